//! The descriptor's calls as steps.

use userfault_abi::request::{self, UFFD_API};
use userfault_abi::{Api, Copy, Poison, Range, Register, Writeprotect, Zeropage};

use super::print::{counts, errno};
use super::{Span, Step, World};
use crate::place::At;

/// `O_NONBLOCK`.
pub const NONBLOCK: u32 = 0x800;

/// What result words hold before a call.
pub const UNTOUCHED: u64 = 0xA5A5_A5A5_A5A5_A5A5;

/// The kernel's answer to a handshake, and ours.
const HANDSHAKE: [&str; 2] =
    ["0 api 0xaa features 0x1ffff ioctls 0x8000000000000003", "0 api 0xaa features 0x69a1 ioctls 0x8000000000000003"];

impl Step<'_, '_> {
    /// A modern handshake that succeeds.
    pub fn answers(self) {
        self.is_but(HANDSHAKE[0], "m/api/answer", HANDSHAKE[1]);
    }
}

impl<'a> World<'a> {
    /// Opens a descriptor that is to be had.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    pub fn open(&mut self, flags: u32) -> usize {
        let number = match self.place.open(flags) {
            Ok(number) => number,
            Err(number) => panic!("open {flags:#x}: {}", errno(number)),
        };
        let info = counts(&self.place.fdinfo(number));
        self.fds.push(Some((number, info)));
        let fd = self.fds.len() - 1;
        self.enter(format!("open {flags:#x}"), format!("fd{fd}"));
        fd
    }

    /// Opens a descriptor that is refused.
    pub fn refused_open(&mut self, flags: u32) -> Step<'_, 'a> {
        let result = match self.place.open(flags) {
            Ok(number) => {
                self.place.close(number);
                "opened".to_owned()
            }
            Err(number) => errno(number),
        };
        self.enter(format!("open {flags:#x}"), result)
    }

    /// Opens a nonblocking descriptor and shakes hands.
    pub fn ready(&mut self, features: u64) -> usize {
        let fd = self.open(NONBLOCK);
        self.api(fd, features).answers();
        fd
    }

    /// Opens a nonblocking descriptor of the original protocol and shakes hands.
    pub fn ready_original(&mut self) -> usize {
        let fd = self.open(NONBLOCK);
        self.api(fd, 0).is("0 api 0xaa features 0x1 ioctls 0x8000000000000003");
        fd
    }

    /// Closes a descriptor.
    pub fn close(&mut self, fd: usize) -> Step<'_, 'a> {
        let number = self.fd(fd);
        self.fds[fd] = None;
        self.place.close(number);
        self.enter(format!("close fd{fd}"), "done".to_owned())
    }

    /// The handshake.
    pub fn api(&mut self, fd: usize, features: u64) -> Step<'_, 'a> {
        self.api_version(fd, UFFD_API, features)
    }

    /// The handshake of any version.
    pub fn api_version(&mut self, fd: usize, version: u64, features: u64) -> Step<'_, 'a> {
        let mut argument = Api { api: version, features, ioctls: UNTOUCHED }.encode();
        let before = argument;
        let result = self.call(fd, request::API, &mut argument);
        let text = if argument == before {
            format!("{result} untouched")
        } else {
            let [api, features, ioctls] = words(&argument);
            format!("{result} api {api:#x} features {features:#x} ioctls {ioctls:#x}")
        };
        self.enter_call(fd, &format!("api {version:#x} {features:#x}"), text)
    }

    /// REGISTER.
    pub fn register(&mut self, fd: usize, span: Span, mode: u64) -> Step<'_, 'a> {
        let range = Range { start: span.start, len: span.len };
        let mut argument = Register { range, mode, ioctls: UNTOUCHED }.encode();
        let what = format!("register {} mode {mode:#x}", self.span(span));
        self.with_word(fd, request::REGISTER, &mut argument, &what, |word| format!("ioctls {word:#x}"))
    }

    /// UNREGISTER.
    pub fn unregister(&mut self, fd: usize, span: Span) -> Step<'_, 'a> {
        let mut argument = Range { start: span.start, len: span.len }.encode();
        let what = format!("unregister {}", self.span(span));
        self.without_word(fd, request::UNREGISTER, &mut argument, &what)
    }

    /// WAKE.
    pub fn wake(&mut self, fd: usize, span: Span) -> Step<'_, 'a> {
        let mut argument = Range { start: span.start, len: span.len }.encode();
        let what = format!("wake {}", self.span(span));
        self.without_word(fd, request::WAKE, &mut argument, &what)
    }

    /// WRITEPROTECT.
    pub fn writeprotect(&mut self, fd: usize, span: Span, mode: u64) -> Step<'_, 'a> {
        let range = Range { start: span.start, len: span.len };
        let mut argument = Writeprotect { range, mode }.encode();
        let what = format!("writeprotect {} mode {mode:#x}", self.span(span));
        self.without_word(fd, request::WRITEPROTECT, &mut argument, &what)
    }

    /// COPY.
    pub fn copy(&mut self, fd: usize, span: Span, src: u64, mode: u64) -> Step<'_, 'a> {
        let mut argument = Copy { dst: span.start, src, len: span.len, mode, copy: UNTOUCHED.cast_signed() }.encode();
        let what = format!("copy {} from {} mode {mode:#x}", self.span(span), self.address(src));
        self.with_word(fd, request::COPY, &mut argument, &what, done)
    }

    /// ZEROPAGE.
    pub fn zeropage(&mut self, fd: usize, span: Span, mode: u64) -> Step<'_, 'a> {
        let range = Range { start: span.start, len: span.len };
        let mut argument = Zeropage { range, mode, zeropage: UNTOUCHED.cast_signed() }.encode();
        let what = format!("zeropage {} mode {mode:#x}", self.span(span));
        self.with_word(fd, request::ZEROPAGE, &mut argument, &what, done)
    }

    /// POISON.
    pub fn poison(&mut self, fd: usize, span: Span, mode: u64) -> Step<'_, 'a> {
        let range = Range { start: span.start, len: span.len };
        let mut argument = Poison { range, mode, updated: UNTOUCHED.cast_signed() }.encode();
        let what = format!("poison {} mode {mode:#x}", self.span(span));
        self.with_word(fd, request::POISON, &mut argument, &what, done)
    }

    /// Any request with any argument.
    pub fn ioctl(&mut self, fd: usize, request: u32, argument: &[u8]) -> Step<'_, 'a> {
        let mut argument = argument.to_vec();
        self.without_word(fd, request, &mut argument, &format!("ioctl {request:#x}"))
    }

    /// `read(2)` that does not block.
    ///
    /// # Panics
    ///
    /// Never, but it may block if the scenario lets it.
    pub fn read(&mut self, fd: usize, count: usize) -> Step<'_, 'a> {
        let at = self.at;
        let number = self.fd(fd);
        let result = self.place.read(number, count, at);
        let text = self.messages(result);
        self.enter_call(fd, &format!("read {count}"), text)
    }

    /// Reads everything; the messages sorted, for threads that came in no particular order.
    pub fn read_sorted(&mut self, fd: usize) -> Step<'_, 'a> {
        let number = self.fd(fd);
        let mut texts = Vec::new();
        let size = if self.protocol == userfault_engine::Protocol::Modern { 32 } else { 8 };
        while let Ok(bytes) = self.place.read(number, size, At::Good) {
            texts.push(self.messages(Ok(bytes)));
        }
        texts.sort();
        self.enter_call(fd, "read all, sorted", texts.join("; "))
    }

    /// `poll(2)`.
    pub fn poll(&mut self, fd: usize) -> Step<'_, 'a> {
        let number = self.fd(fd);
        let events = self.place.poll(number);
        self.enter_call(fd, "poll", format!("{events:#x}"))
    }

    /// Sets or clears `O_NONBLOCK`.
    pub fn set_nonblocking(&mut self, fd: usize, nonblocking: bool) {
        let number = self.fd(fd);
        self.place.set_nonblocking(number, nonblocking);
        self.enter_call(fd, &format!("nonblocking {nonblocking}"), "done".to_owned());
    }

    /// The three lines of fdinfo.
    pub fn fdinfo(&mut self, fd: usize) -> Step<'_, 'a> {
        let number = self.fd(fd);
        let lines = self.place.fdinfo(number);
        self.enter_call(fd, "fdinfo", format!("{lines:?}"))
    }

    fn with_word(
        &mut self,
        fd: usize,
        request: u32,
        argument: &mut [u8],
        what: &str,
        print: fn(u64) -> String,
    ) -> Step<'_, 'a> {
        let before = argument.to_vec();
        let result = self.call(fd, request, argument);
        let (fields, last) = argument.split_at(argument.len() - 8);
        let word = last.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let mut text =
            if word == UNTOUCHED { format!("{result} untouched") } else { format!("{result} {}", print(word)) };
        if fields != &before[..fields.len()] {
            text += " and its input is overwritten";
        }
        self.enter_call(fd, what, text)
    }

    fn without_word(&mut self, fd: usize, request: u32, argument: &mut [u8], what: &str) -> Step<'_, 'a> {
        let before = argument.to_vec();
        let mut text = self.call(fd, request, argument);
        if argument != before {
            text += " and its input is overwritten";
        }
        self.enter_call(fd, what, text)
    }

    fn call(&mut self, fd: usize, request: u32, argument: &mut [u8]) -> String {
        let number = self.fd(fd);
        self.place.ioctl(number, request, argument, self.at).map_or_else(errno, |()| "0".to_owned())
    }

    fn enter_call(&mut self, fd: usize, what: &str, result: String) -> Step<'_, 'a> {
        let at = if self.at == At::Good { String::new() } else { format!(" (argument {:?})", self.at) };
        self.enter(format!("fd{fd} {what}{at}"), result)
    }

    pub(super) fn failed(&mut self, text: String) {
        self.record.failures.push(text);
    }
}

/// The result word of a fill.
fn done(word: u64) -> String {
    let word = word.cast_signed();
    match i32::try_from(word) {
        Ok(number) if number < 0 => format!("-{}", errno(-number)),
        Ok(_) | Err(_) => format!("done {word}"),
    }
}

fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    }
    words
}
