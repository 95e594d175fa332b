//! What a forked child finds: plain memory (H17, H18).
//!
//! Pages that are present keep their contents, missing ones read as zeros, nobody is asked and nobody is told; a
//! poisoned page stays a bus error. The child may open a host of its own. The parent notices nothing.
//!
//! ```text
//! fork              the C library calls `in_child`            before fork returns there
//! clone, raw fork   nobody calls: the first fault of a region or the first call into us finds out
//! vfork, CLONE_VM   the memory is the parent's, and so are the answers to faults: nothing to do
//! ```
//!
//! Whether this is a child says a word that the kernel empties in a copy of the address space (`Machine`), not
//! the process id, which namespaces repeat.
//!
//! # No lock
//!
//! `fork` takes malloc's locks before it forks, and a thread that waits for a page may hold one of them: so there
//! is no hook before the fork, and none in the parent. The child has one thread, and whatever lock another
//! thread held is held there for ever. So it reads only the table of [`Ranges`] and the states of pages.
//!
//! # What the child sees of other threads' work
//!
//! The address space is copied under the lock that every change of mappings and every write through
//! `/proc/self/mem` takes, so each host call has happened as a whole, or not at all. The stores of a thread are
//! found up to one of them, and none after it: a store that meets a page copied already waits for the end of the
//! copying, and the thread with it. So for each page the child finds its state, and the host calls that its
//! state stands for, at one point of the worker's program:
//!
//! ```text
//! Filling…, Installing   bytes in part, or whole; accessible only if whole (H1)  ->  kept if readable, else dropped
//! Changing               protection changes, or contents end: whole either way   ->  kept
//! Poisoned               no contents                                             ->  stays inaccessible
//! others                 whole, or nothing                                       ->  kept
//! ```
//!
//! A thread that has read a page before it forked finds it in the child: it was accessible, so it is readable.
//!
//! Invariant:
//!
//! 1. A range in the table is the mapping of a region of ours, which is unmapped only after it has left the table,
//!    or adopted memory, which the program has back only then (`adopt.rs`).
//!
//! Kernel counterpart: `dup_userfaultfd`, for a context without the fork event.
#![expect(unsafe_code, reason = "the ranges of the table become addresses; the invariant above is the proof")]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use userfault_engine::{Page, PageRange, PageState, Pages};
use userfault_memory::{MapError, Zeroed};
use userfault_signal::SignalsBlocked;

use crate::host::Host;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};

/// How many regions there can be, and how many pieces more of adopted memory.
const ROWS: usize = 1 << 17;
/// Of these, the regions' own; the others are for pieces.
const REGIONS: usize = 1 << 16;

/// The memory of all regions, for who may take no lock.
pub(crate) struct Ranges {
    /// Address and length in pages, by tag, then pieces; an address of 0 is nobody's.
    rows: Zeroed<[AtomicUsize; 2]>,
    /// Rows that were ever used.
    used: AtomicUsize,
}

impl Ranges {
    pub(crate) fn new() -> Result<Self, MapError> {
        Ok(Self { rows: Zeroed::new(ROWS)?, used: AtomicUsize::new(0) })
    }

    /// A region is there. The layout is held exclusively.
    pub(crate) fn publish(&self, tag: u32, base: usize, pages: usize) {
        let index = tag as usize;
        let Some([row_base, row_pages]) = self.rows.get(index) else { return };
        // Who finds the address finds the length.
        row_pages.store(pages, Ordering::Relaxed);
        row_base.store(base, Ordering::Release);
        self.used.fetch_max(index + 1, Ordering::Release);
    }

    /// The region goes. What it has mapped is not touched any more from now on.
    pub(crate) fn retire(&self, tag: u32) {
        if let Some([base, _]) = self.rows.get(tag as usize) {
            base.store(0, Ordering::Release);
        }
    }

    /// Pages of adopted memory go back to the program, cut out of what is there. The layout is held exclusively.
    ///
    /// Each row is changed so that a child forked at any moment finds every page that is left in some row, and
    /// of the others at most some that have not been given back yet. Whether there was room; nothing has
    /// changed otherwise.
    pub(crate) fn cut(&self, gone: PageRange) -> bool {
        let used = self.used.load(Ordering::Acquire);
        for row in self.rows.iter().take(used) {
            let Some(range) = Self::range(row).filter(|range| range.intersect(gone).is_some()) else { continue };
            if let Some(after) = range.from(gone.end())
                && !self.add(after)
            {
                return false;
            }
            let [base, pages] = row;
            match range.until(gone.start()) {
                Some(before) => pages.store(usize::try_from(before.pages()).unwrap_or(0), Ordering::Release),
                None => base.store(0, Ordering::Release),
            }
        }
        true
    }

    /// Adds a piece. Whether there was room.
    pub(crate) fn add(&self, range: PageRange) -> bool {
        let bytes = |page: Page| usize::try_from(page.number()).unwrap_or(0) * PAGE_SIZE;
        let free = self.rows.iter().enumerate().skip(REGIONS).find(|(_, [base, _])| base.load(Ordering::Relaxed) == 0);
        let Some((index, [base, pages])) = free else { return false };
        pages.store(usize::try_from(range.pages()).unwrap_or(0), Ordering::Relaxed);
        base.store(bytes(range.start()), Ordering::Release);
        self.used.fetch_max(index + 1, Ordering::Release);
        true
    }

    fn iter(&self) -> impl Iterator<Item = PageRange> {
        let used = self.used.load(Ordering::Acquire);
        self.rows.iter().take(used).filter_map(Self::range)
    }

    fn range([base, pages]: &[AtomicUsize; 2]) -> Option<PageRange> {
        let base = base.load(Ordering::Acquire);
        let start = Page::new((base / PAGE_SIZE) as u64);
        let end = Page::new(start.number() + pages.load(Ordering::Relaxed) as u64);
        if base == 0 { None } else { PageRange::new(start, end) }
    }
}

/// Whether the memory is plain already: 0 no, [`DONE`](Self::DONE) yes, else the id of the process whose thread is
/// at it.
///
/// A child's child inherits what was done. If it is forked while another thread is at it, the id is its parent's,
/// and it begins anew, which does no harm.
#[derive(Debug, Default)]
pub(crate) struct Leaving(AtomicU32);

impl Leaving {
    const DONE: u32 = u32::MAX;

    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::DONE
    }

    /// Runs `work` once.
    fn once(&self, work: impl FnOnce()) {
        let here = std::process::id();
        loop {
            let seen = self.0.load(Ordering::Acquire);
            if seen == Self::DONE {
                return;
            }
            if seen != here && self.0.compare_exchange(seen, here, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                work();
                self.0.store(Self::DONE, Ordering::Release);
                return;
            }
            sys::yield_now();
        }
    }
}

/// Called by the C library in a forked child, before `fork` returns there.
pub(crate) extern "C" fn in_child() {
    if let Some(host) = Host::get()
        && !host.machine.is_opener()
    {
        let blocked = SignalsBlocked::new();
        host.leave(&blocked);
    }
}

impl Host {
    /// This process is a forked child of the one that opened the host: makes its memory plain, and forgets the
    /// host. Once; others wait. Async-signal-safe.
    pub(crate) fn leave(&self, _blocked: &SignalsBlocked) {
        self.leaving.once(|| {
            for range in self.ranges.iter() {
                self.make_plain_in_child(range);
            }
        });
    }

    /// In a forked child: the memory of a region is about to go.
    pub(crate) fn remove_in_child(&self, tag: u32) {
        let blocked = SignalsBlocked::new();
        self.leave(&blocked);
        self.ranges.retire(tag);
    }

    /// In a forked child that has left: whether `page` was poisoned before the fork.
    pub(crate) fn was_poisoned(&self, page: Page) -> bool {
        self.states().get(page) == PageState::Poisoned && self.ranges.iter().any(|range| range.contains(page))
    }

    fn make_plain_in_child(&self, range: PageRange) {
        let mut open_from = range.start();
        self.states().each_unsettled(range, |page, state| {
            let span = span(PageRange::one(page));
            let is_whole = state != PageState::Poisoned && sys::is_readable(span);
            if is_whole {
                return;
            }
            if matches!(state, PageState::Poisoned | PageState::FillingPoisoned) {
                self.open_in_child(PageRange::new(open_from, page));
                open_from = page.next();
            }
            if state != PageState::Poisoned {
                // In locked memory contents cannot end, but they can be written over once it is open.
                let _dropped = sys::zap(span);
            }
        });
        self.open_in_child(PageRange::new(open_from, range.end()));
    }

    fn open_in_child(&self, range: Option<PageRange>) {
        let Some(span) = range.map(span) else { return };
        if self.machine.guards {
            let _none_where_it_fails = sys::unguard(span);
        }
        // There are fewer mappings afterwards than before.
        let _opened = sys::protect(span, Access::ReadWrite);
    }
}

/// Pages of a range in the table.
fn span(range: PageRange) -> Span {
    let bytes = |pages: u64| usize::try_from(pages).unwrap_or(0) * PAGE_SIZE;
    // SAFETY: whole pages of a region (invariant 1).
    unsafe { Span::new(bytes(range.start().number()), bytes(range.pages())) }
}
