//! What this machine lets us do to pages, and how many mappings we may make of them.
//!
//! Each page that differs from its neighbour in what it allows costs a mapping, and the kernel has a
//! limit for these. So the host counts what it causes and stays below a budget, half of what the
//! machine has left when the host starts (H4).
//!
//! # Invariants
//!
//! 1. `writer` is used only in the process that opened it: in a forked child its descriptor would write
//!    the *parent* (H10). A word that the kernel empties at fork tells.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use userfault_abi::errno::Errno;
use userfault_client::Refusal;
use userfault_memory::{Fixed, Mapping, Protection};
use userfault_signal::fork_generation;

use crate::sys::{self, Span};
use crate::writer::Writer;

/// How many of the most recently lifted pages are never taken back (H7): more than one instruction
/// can need at once.
const RECENT: usize = 64;

/// Settings for unusual machines and for tests; in force if given before the first open.
///
/// Example: [`tune`](crate::tune()).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// At most this many mappings; `None` for half of what `vm.max_map_count` leaves.
    pub mapping_budget: Option<usize>,
    /// Work as on kernels without guard markers (before 6.13).
    pub without_guards: bool,
    /// Work as where `/proc/self/mem` does not write to inaccessible pages (`proc_mem.force_override=never`).
    pub without_forced_writes: bool,
}

pub(crate) struct Machine {
    pub(crate) writer: Writer,
    /// A page for bytes that nobody wants.
    scratch: Mapping,
    /// The address space that it was opened in.
    opened_in: u32,
    /// Guard markers can be installed.
    pub(crate) guards: bool,
    /// In shared memory, too.
    pub(crate) shared_guards: bool,
    budget: usize,
    mappings: AtomicUsize,
    recent: [AtomicU64; RECENT],
    recent_at: AtomicUsize,
    /// Where `relieve` looks next.
    pub(crate) hand: AtomicUsize,
    /// Host calls on pages since the host was made, and which of them fail on request, for tests.
    calls: AtomicUsize,
    failing: [AtomicUsize; 2],
}

impl Machine {
    /// Opens what is needed and reads the limits. Must not run under a lock: it allocates.
    pub(crate) fn open(tuning: Tuning, writer: Writer) -> Result<Self, Refusal> {
        let opened_in = fork_generation().map_err(|errno| Refusal {
            way: "a page that the kernel empties at fork (MADV_WIPEONFORK)",
            errno: Errno::from_raw(errno),
            remedy: "use Linux 4.14 or later, and allow madvise",
        })?;
        let scratch = Mapping::reserve(1, Protection::ReadWrite).map_err(|_| Refusal {
            way: "map a scratch page",
            errno: Errno::ENOMEM,
            remedy: "raise the limit of address space (ulimit -v)",
        })?;
        let limit = read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530);
        let now = std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
        Ok(Self {
            writer,
            scratch,
            opened_in,
            guards: !tuning.without_guards && crate::probe::guards().is_ok(),
            shared_guards: !tuning.without_guards && crate::probe::shared_guards().is_ok(),
            budget: tuning.mapping_budget.unwrap_or(limit.saturating_sub(now) / 2),
            mappings: AtomicUsize::new(0),
            recent: [const { AtomicU64::new(u64::MAX) }; RECENT],
            recent_at: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            failing: [const { AtomicUsize::new(0) }; 2],
        })
    }

    /// Whether this is the process that opened the host, and not a forked child of it.
    pub(crate) fn is_opener(&self) -> bool {
        fork_generation() == Ok(self.opened_in)
    }

    /// Writes to pages of ours; unless the writer is a forced one they must be writable.
    ///
    /// # Errors
    ///
    /// How many bytes were written before the errno.
    pub(crate) fn write(&self, source: *const u8, target: Span) -> Result<(), (usize, Errno)> {
        if !self.is_opener() {
            return Err((0, Errno::EIO));
        }
        self.may_fail().map_err(|errno| (0, errno))?;
        self.writer.write(source, target)
    }

    /// Overwrites a page with zeros.
    pub(crate) fn erase(&self, page: Span) -> Result<(), Errno> {
        static ZEROS: [u8; crate::states::PAGE_SIZE] = [0; crate::states::PAGE_SIZE];
        self.writer.write(ZEROS.as_ptr(), page).map_err(|(_, errno)| errno)
    }

    /// Whether the kernel can read a page of bytes at `source`: tried by writing them where nobody looks.
    pub(crate) fn is_readable(&self, source: *const u8) -> bool {
        let nowhere = Span::of(&self.scratch, &(0..1));
        self.is_opener() && self.writer.write(source, nowhere).is_ok()
    }

    /// Gives writable pages without contents zeros of their own.
    pub(crate) fn populate_for_writing(&self, span: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::populate_for_writing(span)
    }

    /// Moves pages of one span to another of the same length, in one step.
    pub(crate) fn move_pages(&self, from: Span, to: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::move_pages(from, to)
    }

    pub(crate) fn protect(&self, span: Span, access: sys::Access) -> Result<(), Errno> {
        self.may_fail()?;
        sys::protect(span, access)
    }

    /// Gives access to pages that have none.
    pub(crate) fn open_pages(&self, span: Span, access: sys::Access) -> Result<(), Errno> {
        let Err(errno) = self.may_fail() else { return sys::protect(span, access) };
        match span.first_half() {
            // A call over several mappings may fail when it has changed some of them: so does this one.
            Some(half) => sys::protect(half, access).and(Err(errno)),
            // Where there is nothing to do it cannot fail.
            None => sys::copy_in(span.start(), &mut [0]).map_err(|_| errno),
        }
    }

    pub(crate) fn guard(&self, span: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::guard(span)
    }

    pub(crate) fn unguard(&self, span: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::unguard(span)
    }

    /// A chunk now has `new` borders instead of `old`.
    pub(crate) fn count(&self, old: usize, new: usize) {
        if new >= old {
            self.mappings.fetch_add(new - old, Relaxed);
        } else {
            self.mappings.fetch_sub(old - new, Relaxed);
        }
    }

    /// How many mappings we cause, and how many we may.
    pub(crate) fn mappings(&self) -> (usize, usize) {
        (self.mappings.load(Relaxed), self.budget)
    }

    pub(crate) fn is_over_budget(&self) -> bool {
        let (used, budget) = self.mappings();
        used > budget
    }

    /// Notes that these pages were lifted just now.
    pub(crate) fn lifted(&self, pages: std::ops::Range<u64>) {
        for page in pages.rev().take(RECENT) {
            let at = self.recent_at.fetch_add(1, Relaxed) % RECENT;
            if let Some(slot) = self.recent.get(at) {
                slot.store(page, Relaxed);
            }
        }
    }

    /// Those of the most recently lifted pages that lie in `pages`, ascending; the rest is `u64::MAX`.
    pub(crate) fn lifted_recently(&self, pages: &std::ops::Range<u64>) -> [u64; RECENT] {
        let mut found = [u64::MAX; RECENT];
        for (found, page) in found.iter_mut().zip(&self.recent) {
            *found = Some(page.load(Relaxed)).filter(|page| pages.contains(page)).unwrap_or(u64::MAX);
        }
        found.sort_unstable();
        found
    }

    /// Fails if a test asked for it (H5).
    fn may_fail(&self) -> Result<(), Errno> {
        let call = self.calls.fetch_add(1, Relaxed);
        let [from, until] = &self.failing;
        if (from.load(Relaxed)..until.load(Relaxed)).contains(&call) { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Makes host calls fail: `count` of them, after `skip` more.
    pub(crate) fn fail(&self, skip: usize, count: usize) {
        let first = self.calls().saturating_add(skip);
        let [from, until] = &self.failing;
        until.store(0, Relaxed);
        from.store(first, Relaxed);
        until.store(first.saturating_add(count), Relaxed);
    }
}

fn read_number(path: &str) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Storage for the engine outside the malloc heap (D13).
pub(crate) struct Room<T>(Fixed<T>);

impl<T> Room<T> {
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        Fixed::with_capacity(capacity).ok().map(Self)
    }
}

impl<T> userfault_engine::Storage<T> for Room<T> {
    fn as_slice(&self) -> &[T] {
        self.0.as_ref()
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self.0.as_mut()
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn push(&mut self, value: T) -> Result<(), T> {
        self.0.push(value)
    }
}
