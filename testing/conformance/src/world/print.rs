//! Values in comparable form.

use userfault_abi::{Errno, Message, MessageEvent, original::Word};

use super::{PAGE, Span, World};
use crate::place::{Result, Seen, Thread};

pub(super) fn errno(number: i32) -> String {
    let errno = Errno::from_raw(number);
    errno.name().map_or_else(|| format!("errno {number}"), str::to_owned)
}

pub(super) fn seen(seen: Seen) -> String {
    let contents = |byte: Option<u8>| byte.map_or_else(|| "mixed".to_owned(), |byte| format!("{byte:#x}"));
    match seen {
        Seen::Missing => "missing".to_owned(),
        Seen::Present(byte) => contents(byte),
        Seen::Protected(byte) => format!("protected {}", contents(byte)),
        Seen::Marked => "marked".to_owned(),
        Seen::Poisoned => "poisoned".to_owned(),
        Seen::Absent => "absent".to_owned(),
        Seen::Untouched => "untouched".to_owned(),
    }
}

/// `pending/total` of the lines of fdinfo.
pub(super) fn counts(fdinfo: &str) -> String {
    let value = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    format!("{}/{}", value("pending:"), value("total:"))
}

impl World<'_> {
    pub(super) fn address(&self, address: u64) -> String {
        let near = PAGE * super::GAP / 2;
        let within = |near: u64| {
            let around = move |region: &&super::Region| {
                (region.base.saturating_sub(near)..region.at(region.pages) + near).contains(&address)
            };
            self.regions.iter().find(around)
        };
        let region = within(0).or_else(|| within(near));
        let Some(region) = region else {
            return if address == crate::place::ABOVE { "above".to_owned() } else { format!("{address:#x}") };
        };
        let page = (address / PAGE).cast_signed() - (region.base / PAGE).cast_signed();
        match address % PAGE {
            0 => format!("{}{page:+}", region.letter),
            byte => format!("{}{page:+}:{byte:#x}", region.letter),
        }
    }

    pub(super) fn span(&self, span: Span) -> String {
        let holds = |address: u64| {
            self.regions.iter().find(|region| region.base <= address && address <= region.at(region.pages))
        };
        let end = span.start.wrapping_add(span.len);
        if let (Some(one), Some(two)) = (holds(span.start), holds(end))
            && one != two
            && end > one.at(one.pages)
            && span.len.is_multiple_of(PAGE)
        {
            let pages = (end - two.base) / PAGE;
            return format!("{} to {}+{pages}", self.address(span.start), two.letter);
        }
        if span.len.is_multiple_of(PAGE) && span.len / PAGE < 1 << 20 {
            format!("{} {}p", self.address(span.start), span.len / PAGE)
        } else if span.len < 1 << 36 {
            format!("{} {:#x} bytes", self.address(span.start), span.len)
        } else {
            // Lengths this big depend on where the region lies.
            format!("{} too much", self.address(span.start))
        }
    }

    pub(super) fn thread(&mut self, thread: &Thread) -> String {
        match thread {
            Thread::Idle => "idle".to_owned(),
            Thread::Asleep => "asleep".to_owned(),
            Thread::Reading => "reading".to_owned(),
            Thread::Done(value) => format!("done {value:#x}"),
            Thread::Read(result) => self.messages(result.clone()),
            Thread::Bus(address) => format!("bus error {}", self.address(*address)),
            Thread::Segv(address) => format!("segmentation fault {}", self.address(*address)),
            Thread::Killed => "killed".to_owned(),
        }
    }

    /// What was read: how many bytes, then each message.
    pub(super) fn messages(&mut self, result: Result<Vec<u8>>) -> String {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(number) => return errno(number),
        };
        let texts: Vec<String> = match self.protocol {
            userfault_engine::Protocol::Modern => {
                bytes.chunks(Message::SIZE).map(|chunk| self.message(chunk)).collect()
            }
            userfault_engine::Protocol::Original { .. } => {
                bytes.chunks(Word::SIZE).map(|chunk| self.word(chunk)).collect()
            }
        };
        format!("{} bytes: {}", bytes.len(), texts.join("; "))
    }

    fn word(&self, chunk: &[u8]) -> String {
        let Some(bytes) = chunk.first_chunk() else { return format!("{chunk:x?}") };
        let word = u64::from_ne_bytes(*bytes);
        format!("{} low {:#x}", self.address(word & !(PAGE - 1)), word % PAGE)
    }

    fn message(&mut self, chunk: &[u8]) -> String {
        let Some(bytes) = chunk.first_chunk() else { return format!("{chunk:x?}") };
        let MessageEvent::Pagefault { flags, address, thread } = Message::from_bytes(*bytes).event() else {
            return format!("{chunk:x?}");
        };
        if Message::pagefault(flags, address, thread).to_bytes() != *bytes {
            return format!("not zero where it should be: {chunk:x?}");
        }
        let who = match (thread, self.place.thread_of(thread)) {
            (0, _) => String::new(),
            (_, Some(number)) => format!(" by t{number}"),
            (_, None) => " by a stranger".to_owned(),
        };
        format!("{} flags {}{who}", self.address(address), flags.bits())
    }
}
