//! Who sleeps in faults of the kernel's userfaultfd, as far as a process can know of itself.
//!
//! The kernel tells no list. Three things are known, and put together here:
//!
//! * which threads of this process are asleep in a fault: `/proc/self/task/TID/wchan`; not of which descriptor;
//! * what was read and not answered yet, with `THREAD_ID`: kept here, a row per thread;
//! * how many sleep in all, and how many messages were not read: `fdinfo`.
//!
//! A row counts only while its thread is asleep. It is taken out by the answers that this crate gives; one that
//! somebody else gives leaves it until the thread's next message is read. The table is in static memory and has
//! no lock: it is looked at while a thread sleeps inside malloc. Its fields are relaxed, for it is rewritten
//! only by who reads or answers the same thread's faults; a listing meanwhile may see half of a change, and a
//! later one will not.
//!
//! A forked child finds its parent's rows, and none of its threads: they say nothing about the child. They are
//! taken out when it opens a descriptor of its own.
//!
//! Kernel counterpart: `handle_userfault`, where they sleep.

use core::fmt::Write as _;
use core::mem::MaybeUninit;
use core::time::Duration;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, RawDir};
use userfault_client::{Errno, Fault, FaultKind, Sleeper, Told, UffdError};
use userfault_signal::{Line, fork_generation};

use crate::context::{Context, system};
use crate::fdinfo::FdInfo;
use crate::handed::{self, Handed};
use crate::sys;

/// Where the kernel says that a thread waits.
const ASLEEP: &[u8] = b"handle_userfault";
/// Threads whose unanswered faults are remembered; of more, only that they sleep.
const ROWS: usize = 512;

/// A fault that was read and not answered yet; free if `thread` is 0.
struct Row {
    thread: AtomicU32,
    kind: AtomicU32,
    context: AtomicU64,
    address: AtomicU64,
    /// When it was read, in nanoseconds from the first one.
    read_at: AtomicU64,
}

static UNANSWERED: [Row; ROWS] = [const {
    Row {
        thread: AtomicU32::new(0),
        kind: AtomicU32::new(0),
        context: AtomicU64::new(0),
        address: AtomicU64::new(0),
        read_at: AtomicU64::new(0),
    }
}; ROWS];

/// The address space that last opened a descriptor, whose rows these are.
static OPENED_IN: AtomicU32 = AtomicU32::new(0);

/// The number of this address space; on kernels that do not tell, the same for all.
fn here() -> u32 {
    fork_generation().unwrap_or(0)
}

/// Whether what is remembered, here and of faults that were handed over, may be about this process.
fn is_of_here() -> bool {
    OPENED_IN.load(Relaxed) == here()
}

/// Names of contexts in the table, never reused.
pub(crate) fn next_name() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let here = here();
    if OPENED_IN.swap(here, Relaxed) != here {
        // Before anything was read in this process.
        UNANSWERED.iter().for_each(|row| row.thread.store(0, Relaxed));
    }
    NEXT.fetch_add(1, Relaxed)
}

fn now_ns() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    u64::try_from(FIRST.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The row of a thread; for one without, a free row.
fn row_of(thread: u32) -> Option<&'static Row> {
    let own = UNANSWERED.iter().find(|row| row.thread.load(Relaxed) == thread);
    own.or_else(|| UNANSWERED.iter().find(|row| row.thread.compare_exchange(0, thread, Relaxed, Relaxed).is_ok()))
}

/// A message of `context` was read. Nothing without a thread's id.
pub(crate) fn read(context: u64, fault: &Fault) {
    let Some(row) = fault.thread.and_then(row_of) else { return };
    let kind = match fault.kind {
        FaultKind::Missing => 0,
        FaultKind::WriteProtect => 1,
        FaultKind::Minor => 2,
    };
    row.context.store(context, Relaxed);
    row.address.store(fault.address, Relaxed);
    row.kind.store(kind, Relaxed);
    row.read_at.store(now_ns(), Relaxed);
}

/// Whoever sleeps for `context` in the `len` bytes at `start` was woken.
pub(crate) fn answered(context: u64, start: u64, len: u64) {
    let is_there =
        |row: &&Row| row.context.load(Relaxed) == context && row.address.load(Relaxed).wrapping_sub(start) < len;
    for row in UNANSWERED.iter().filter(|row| row.thread.load(Relaxed) != 0).filter(is_there) {
        row.thread.store(0, Relaxed);
    }
}

impl Row {
    fn sleeper(&self, thread: u32) -> Sleeper {
        let mut sleeper = Sleeper::default();
        sleeper.thread = Some(thread);
        sleeper.address = Some(self.address.load(Relaxed));
        sleeper.asleep_for = Some(Duration::from_nanos(now_ns().saturating_sub(self.read_at.load(Relaxed))));
        sleeper.told = Some(Told::Read);
        sleeper.kind = Some(match self.kind.load(Relaxed) {
            0 => FaultKind::Missing,
            1 => FaultKind::WriteProtect,
            _ => FaultKind::Minor,
        });
        sleeper
    }
}

/// The row of a thread that sleeps; `None` if nothing of it was read.
fn known(thread: u32) -> Option<&'static Row> {
    UNANSWERED.iter().find(|row| row.thread.load(Relaxed) == thread).filter(|_| is_of_here())
}

/// Calls `found` with the id and the name of each thread of this process that sleeps in a fault. Allocates nothing.
fn for_each_thread(mut found: impl FnMut(u32, &str)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tasks = rustix::fs::open("/proc/self/task", flags, Mode::empty()).map_err(sys::errno)?;
    let mut room = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&tasks, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(sys::errno)?;
        let Some(thread) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        let (mut wchan, mut comm) = ([0; 64], [0; 64]);
        if file_of(thread, "wchan", &mut wchan) == ASLEEP {
            let name = file_of(thread, "comm", &mut comm);
            found(thread, core::str::from_utf8(name).unwrap_or("").trim_end());
        }
    }
    Ok(())
}

/// What a small file about a thread says; nothing if the thread is gone.
fn file_of<'a>(thread: u32, file: &str, room: &'a mut [u8; 64]) -> &'a [u8] {
    let mut path = Line::new();
    // Writing to a line cannot fail.
    let _written = write!(path, "/proc/self/task/{thread}/{file}");
    let open = rustix::fs::open(path.as_bytes(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let read = open.and_then(|file| rustix::io::read(file, &mut *room)).unwrap_or(0);
    room.get(..read).unwrap_or_default()
}

impl Context {
    /// As `client::Uffd::sleepers`.
    ///
    /// A thread without a row may sleep for any descriptor: such threads are named only if there are exactly as
    /// many as the kernel counts here beyond the rows.
    pub(crate) fn sleepers(&self) -> Result<Vec<Sleeper>, UffdError> {
        self.check_process()?;
        let mut sleepers = Vec::new();
        let mut strangers = Vec::new();
        let mut handed_over = Vec::new();
        for_each_thread(|thread, _| match known(thread) {
            Some(row) if row.context.load(Relaxed) == self.name() => sleepers.push(row.sleeper(thread)),
            Some(_) => {}
            None => strangers.push(thread),
        })
        .map_err(|errno| system("reading /proc/self/task", errno))?;
        let FdInfo { pending, total, .. } = FdInfo::of(self.fd())?;
        if let Some(handover) = self.handed_over() {
            handover.sleepers(|handed, is_read| handed_over.push(of_handed(handed, is_read)));
        }
        let unknown = usize::try_from(total).unwrap_or(usize::MAX).saturating_sub(sleepers.len());
        let unread = usize::try_from(pending).unwrap_or(usize::MAX);
        let are_ours = strangers.len() == unknown;
        for at in 0..unknown {
            let mut sleeper = Sleeper::default();
            sleeper.thread = strangers.get(at).copied().filter(|_| are_ours);
            sleeper.told = match unread {
                0 => Some(Told::Read),
                unread if unread >= unknown => Some(Told::Unread),
                _ => None,
            };
            sleepers.push(sleeper);
        }
        sleepers.append(&mut handed_over);
        Ok(sleepers)
    }
}

/// A thread whose SIGBUS handler sleeps until the monitor has answered.
fn of_handed(handed: Handed, is_read: bool) -> Sleeper {
    let mut sleeper = Sleeper::default();
    sleeper.thread = Some(handed.thread);
    sleeper.address = Some(handed.address);
    sleeper.told = Some(if is_read { Told::Read } else { Told::Unread });
    sleeper.kind = Some(FaultKind::Missing);
    sleeper
}

/// Prints a line for every thread of this process that sleeps in a fault of the kernel's userfaultfd, whoever
/// opened it, and returns how many.
///
/// Neither allocates nor waits for anything that a sleeper may hold, `malloc` and `stderr` included; not for
/// signal handlers. For [`userfault_signal::on_signal`].
///
/// # Examples
///
/// ```
/// assert_eq!(userfault_linux::print_sleepers(), 0);
/// ```
pub fn print_sleepers() -> usize {
    let mut count = 0;
    // Without /proc there is nothing to be seen, and nobody to tell.
    let seen = for_each_thread(|thread, name| {
        count += 1;
        let mut unknown = Sleeper::default();
        unknown.thread = Some(thread);
        let sleeper = known(thread).map_or(unknown, |row| row.sleeper(thread));
        let mut line = Line::new();
        // Writing to a line cannot fail.
        let _written = write!(line, "userfault: {}", sleeper.describe(name, None));
        line.print();
    });
    if !is_of_here() {
        return count;
    }
    handed::for_each(|handed, is_read| {
        let (mut line, mut comm) = (Line::new(), [0; 64]);
        let name = file_of(handed.thread, "comm", &mut comm);
        if name.is_empty() && seen.is_ok() {
            // In a forked child: a thread of its parent's.
            return;
        }
        count += 1;
        let name = core::str::from_utf8(name).unwrap_or("").trim_end();
        // Writing to a line cannot fail.
        let _written = write!(line, "userfault: {}", of_handed(handed, is_read).describe(name, None));
        line.print();
    });
    count
}
