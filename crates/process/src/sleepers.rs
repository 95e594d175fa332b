//! Who sleeps in this process: as values, and printed for a process that hangs.
//!
//! The engine lists its waiters; beside each slot the host notes which thread fell asleep there and when, since
//! the engine has no clock and is not always told the thread.
//!
//! # Ordering
//!
//! A slot's note may be rewritten by its next sleeper while somebody reads it.
//!
//! ```text
//! sleeper                                reader, who has the waiter's name from the engine
//! N1  name := 0, then fence (release)    R1  name (acquire) is the waiter's?
//! N2  thread, time                       R2  thread, time
//! N3  name := the waiter's (release)     R3  fence (acquire), name is the same still?
//! ```
//!
//! R1 that sees N3 sees N2 of the same sleep. If R2 sees anything of a later sleep's N2, R3 sees its N1, or
//! something later, and the note counts as absent: the report says less, never something else.
//!
//! Kernel counterpart: `/proc/PID/task/TID/stat`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use userfault_abi::PagefaultFlags;
use userfault_client::{FaultKind, Place, Sleeper, Told};
use userfault_engine::{self as engine, ContextId, Page, WaiterId};
use userfault_memory::{MapError, Zeroed};
use userfault_signal::{Line, SignalsBlocked};

use crate::host::Host;
use crate::states::PAGE_SIZE;
use crate::sys;

/// Name of the waiter, thread id, time in nanoseconds.
type Row = [AtomicU64; 3];

/// One row per waiter slot.
pub(crate) struct Notes {
    rows: Zeroed<Row>,
}

impl Notes {
    pub(crate) fn new(slots: usize) -> Result<Self, MapError> {
        Zeroed::new(slots).map(|rows| Self { rows })
    }

    /// The calling thread is about to sleep in this slot. Async-signal-safe.
    pub(crate) fn note(&self, waiter: WaiterId) {
        let Some([name, thread, time]) = self.rows.get(waiter.index()) else { return };
        name.store(0, Ordering::Relaxed);
        fence(Ordering::Release); // N1
        thread.store(u64::from(sys::thread_id()), Ordering::Relaxed); // N2
        time.store(sys::now_ns(), Ordering::Relaxed);
        name.store(waiter.to_bits(), Ordering::Release); // N3
    }

    /// Which thread fell asleep there, and when.
    fn read(&self, waiter: WaiterId) -> Option<(u32, u64)> {
        let [name, thread, time] = self.rows.get(waiter.index())?;
        let before = name.load(Ordering::Acquire); // R1
        let note = (u32::try_from(thread.load(Ordering::Relaxed)).ok()?, time.load(Ordering::Relaxed)); // R2
        fence(Ordering::Acquire);
        let after = name.load(Ordering::Relaxed); // R3
        (before == waiter.to_bits() && after == before).then_some(note)
    }
}

impl Host {
    /// Calls `found` with every sleeper and the context whose monitor answers it. No lock is held meanwhile.
    pub(crate) fn for_each_sleeper(&self, mut found: impl FnMut(Option<ContextId>, &Sleeper)) {
        let mut next = Some(0);
        while let Some(from) = next {
            let blocked = SignalsBlocked::new();
            let batch = self.engine(&blocked).sleepers(from);
            drop(blocked);
            for sleeper in batch.iter() {
                found(sleeper.context, &self.describe(sleeper));
            }
            next = batch.next;
        }
    }

    fn describe(&self, sleeper: &engine::Sleeper) -> Sleeper {
        let note = self.notes.read(sleeper.waiter);
        let told = match sleeper.told {
            engine::Told::Unread => Told::Unread,
            engine::Told::Read => Told::Read,
            engine::Told::Nobody => Told::Nobody,
        };
        let is_protected = sleeper.flags.contains(PagefaultFlags::WP);
        let kind = if is_protected { FaultKind::WriteProtect } else { FaultKind::Missing };
        let mut answer = Sleeper::default();
        answer.thread = note.map(|(thread, _)| thread).or((sleeper.thread != 0).then_some(sleeper.thread));
        answer.address = Some(sleeper.address);
        answer.asleep_for = note.map(|(_, since)| Duration::from_nanos(sys::now_ns().saturating_sub(since)));
        answer.told = Some(told);
        answer.kind = (told != Told::Nobody).then_some(kind);
        answer
    }

    fn place(&self, address: u64) -> Option<Place> {
        let page = Page::new(address / PAGE_SIZE as u64);
        let blocked = SignalsBlocked::new();
        let layout = self.layout.read(&blocked);
        let start = layout.find(page)?.range().start().number();
        Some(Place { base: start * PAGE_SIZE as u64, page: page.number() - start })
    }
}

/// Prints a line for every thread that sleeps in a fault of this provider, and returns how many.
///
/// Neither allocates nor waits for anything that a sleeper may hold, `malloc` and `stderr` included; not for
/// signal handlers. For [`userfault_signal::on_signal`].
///
/// # Examples
///
/// ```
/// assert_eq!(userfault_process::print_sleepers(), 0);
/// ```
pub fn print_sleepers() -> usize {
    let Some(host) = Host::get() else { return 0 };
    let mut count = 0;
    host.for_each_sleeper(|_, sleeper| {
        count += 1;
        let place = sleeper.address.and_then(|address| host.place(address));
        let mut room = [0; 32];
        let name = sleeper.thread.map_or("", |thread| thread_name(thread, &mut room));
        let mut line = Line::new();
        // Writing to a line cannot fail.
        let _written = write!(line, "userfault: {}", sleeper.describe(name, place));
        line.print();
    });
    count
}

/// A thread's name as the kernel has it; empty if it is gone.
fn thread_name(thread: u32, room: &mut [u8; 32]) -> &str {
    let mut path = Line::new();
    let _written = write!(path, "/proc/self/task/{thread}/comm");
    // Short paths are put on the stack by the standard library: nothing allocates here.
    let read = std::str::from_utf8(path.as_bytes()).ok().and_then(|path| File::open(path).ok()?.read(room).ok());
    let name = room.get(..read.unwrap_or(0)).unwrap_or_default();
    std::str::from_utf8(name).unwrap_or("").trim_end()
}
