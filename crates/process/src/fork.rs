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
//! Whether this is a child says a word that the kernel empties in a copy of the address space
//! ([`fork_generation`]), not the process id.
//!
//! A child that opens a host of its own keeps its parent's in mind, and that one's parent's: poison stays, and a
//! thread that met a closed page just before another one opened it repeats its access.
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
//! Pages that were closed to save mappings (M5) are whole, and not readable: so nobody closes a page that is
//! whole already and still `Filling…` (`soften` in `region.rs`).
//!
//! A thread that has read a page before it forked finds it in the child: it was accessible, so it is readable.
//!
//! Of shared memory the child has the very pages: one that is being brought at the fork it may see in part.
//!
//! What the program itself has made of the protection of its pages ends in the child where they are registered,
//! and stays where nothing of their region is.
//!
//! Invariant:
//!
//! 1. A row of the table names the mapping of a region of ours, and its mirror, which are unmapped only after the
//!    row was retired; or adopted memory, which the program has back only then (`adopt.rs`), or in a child, once
//!    that has left.
//!
//! Kernel counterpart: `dup_userfaultfd`, for a context without the fork event.
#![expect(unsafe_code, reason = "the ranges of the table become addresses; the invariant above is the proof")]

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use userfault_abi::errno::Errno;
use userfault_engine::{Page, PageRange, PageState, Pages};
use userfault_memory::{MapError, Zeroed};
use userfault_signal::{SignalsBlocked, fork_generation};

use crate::host::Host;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};

/// How many regions there can be, and how many pieces more of adopted memory.
const ROWS: usize = 1 << 17;
/// Of these, the regions' own; the others are for pieces.
const REGIONS: usize = 1 << 16;

/// The memory of all regions, for who may take no lock.
pub(crate) struct Ranges {
    /// By tag, then pieces.
    rows: Zeroed<Row>,
    /// Rows that were ever used.
    used: AtomicUsize,
}

/// Address, length in pages, address of the mirror or 0, [`Kind`]; an address of 0 is nobody's.
type Row = [AtomicUsize; 4];

/// What a row's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the host; some of it may be registered.
    Own = 0,
    /// Of the host; nothing of it is registered, and all is open.
    Plain = 1,
    /// The program's. Once it is plain memory in a child, the program may do there what it likes.
    Adopted = 2,
}

/// A row that is somebody's.
#[derive(Clone, Copy)]
struct Range {
    pages: PageRange,
    mirror: Option<PageRange>,
    kind: Kind,
}

impl Ranges {
    pub(crate) fn new() -> Result<Self, MapError> {
        Ok(Self { rows: Zeroed::new(ROWS)?, used: AtomicUsize::new(0) })
    }

    /// A region of ours is there, and about to be registered. The layout is held exclusively.
    pub(crate) fn publish(&self, tag: u32, base: usize, pages: usize, mirror: Option<usize>) {
        self.store(tag as usize, [base, pages, mirror.unwrap_or(0), Kind::Own as usize]);
    }

    /// As [`publish`](Self::publish), before any page of adopted memory is closed.
    pub(crate) fn publish_adopted(&self, tag: u32, base: usize, pages: usize) {
        self.store(tag as usize, [base, pages, 0, Kind::Adopted as usize]);
    }

    fn store(&self, index: usize, words: [usize; 4]) {
        let Some(row) = self.rows.get(index) else { return };
        // Backwards: who finds the address finds the rest.
        for (place, word) in row.iter().zip(words).rev() {
            place.store(word, Ordering::Release);
        }
        self.used.fetch_max(index + 1, Ordering::Release);
    }

    /// Nothing of a region of ours is registered any more and all of it is open; or no longer so. The layout is
    /// held exclusively.
    pub(crate) fn set_plain(&self, tag: u32, is_plain: bool) {
        let Some([.., kind]) = self.rows.get(tag as usize) else { return };
        if kind.load(Ordering::Relaxed) != Kind::Adopted as usize {
            let new = if is_plain { Kind::Plain } else { Kind::Own };
            kind.store(new as usize, Ordering::Release);
        }
    }

    /// The region goes. What it has mapped is not touched any more from now on.
    pub(crate) fn retire(&self, tag: u32) {
        if let Some([base, ..]) = self.rows.get(tag as usize) {
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
            let pages = Self::range(row).map(|range| range.pages).filter(|pages| pages.intersect(gone).is_some());
            let Some(pages) = pages else { continue };
            if let Some(after) = pages.from(gone.end())
                && !self.add(after)
            {
                return false;
            }
            let [base, len, ..] = row;
            match pages.until(gone.start()) {
                Some(before) => len.store(usize::try_from(before.pages()).unwrap_or(0), Ordering::Release),
                None => base.store(0, Ordering::Release),
            }
        }
        true
    }

    /// Adds a piece of adopted memory. Whether there was room.
    pub(crate) fn add(&self, range: PageRange) -> bool {
        let number = |number: u64| usize::try_from(number).unwrap_or(0);
        let free = self.rows.iter().enumerate().skip(REGIONS).find(|(_, [base, ..])| base.load(Ordering::Relaxed) == 0);
        let Some((index, _)) = free else { return false };
        let base = number(range.start().number()) * PAGE_SIZE;
        self.store(index, [base, number(range.pages()), 0, Kind::Adopted as usize]);
        true
    }

    fn iter(&self) -> impl Iterator<Item = Range> {
        let used = self.used.load(Ordering::Acquire);
        self.rows.iter().take(used).filter_map(Self::range)
    }

    fn range(row: &Row) -> Option<Range> {
        let [base, pages, mirror, kind] = row.each_ref().map(|word| word.load(Ordering::Acquire));
        let at = |address: usize| {
            let start = Page::new((address / PAGE_SIZE) as u64);
            if address == 0 { None } else { PageRange::new(start, Page::new(start.number() + pages as u64)) }
        };
        let kind = [Kind::Own, Kind::Plain, Kind::Adopted].into_iter().find(|known| *known as usize == kind)?;
        Some(Range { pages: at(base)?, mirror: at(mirror), kind })
    }
}

/// What a forked child has done about its parent's memory.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// 0 nothing yet, [`DONE`](Self::DONE) all, else the number of the address space whose thread is at it.
    ///
    /// A child's child inherits what was done. If it is forked while another thread is at it, the number is its
    /// parent's, and it begins anew, which does no harm.
    state: AtomicU32,
    /// Some page could not be opened; its first touch tries again.
    left_closed: AtomicBool,
}

impl Leaving {
    const DONE: u32 = u32::MAX;

    /// Runs `work` once.
    fn once(&self, work: impl FnOnce()) {
        // It was made when the host was: there is one.
        let here = fork_generation().unwrap_or(0);
        loop {
            let seen = self.state.load(Ordering::Acquire);
            if seen == Self::DONE {
                return;
            }
            if seen != here && self.state.compare_exchange(seen, here, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                work();
                self.state.store(Self::DONE, Ordering::Release);
                return;
            }
            sys::yield_now();
        }
    }
}

/// Called by the C library in a forked child, before `fork` returns there.
pub(crate) extern "C" fn in_child() {
    if let Some(host) = Host::of_ancestors().next() {
        let blocked = SignalsBlocked::new();
        host.leave(&blocked);
        host.end_waits_in_child();
    }
}

impl Host {
    /// In a forked child: the host that its parent had, and those that its parent's ancestors had. All but the
    /// first have been left.
    pub(crate) fn of_ancestors() -> impl Iterator<Item = &'static Self> {
        iter::successors(Self::newest(), |host| host.former).filter(|host| !host.machine.is_opener())
    }

    /// This process is a forked child of the one that opened the host: makes its memory plain, and forgets the
    /// host. Once; others wait. Async-signal-safe.
    pub(crate) fn leave(&self, _blocked: &SignalsBlocked) {
        self.leaving.once(|| {
            for range in self.ranges.iter().filter(|range| range.kind != Kind::Plain) {
                self.make_plain_in_child(range);
            }
        });
    }

    /// In a forked child: where this thread was interrupted by a handler that forked, it may be about to wait for
    /// what nobody here will do. It is to look again.
    fn end_waits_in_child(&self) {
        for bell in self.bells.as_ref().iter().filter(|bell| bell.is_used()) {
            bell.count.fetch_add(1, Ordering::Release);
        }
        let sleeper = self.threads.mine().and_then(|thread| thread.sleeper());
        if let Some(word) = sleeper.and_then(|waiter| self.words.get(waiter.index())) {
            word.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether this is the process that opened the host. A forked child that nobody has told leaves first: it is
    /// about to hear that the memory is no concern of the host's any more, and then it is not.
    pub(crate) fn is_of_this_process(&self) -> bool {
        let is_opener = self.machine.is_opener();
        if !is_opener {
            self.leave(&SignalsBlocked::new());
        }
        is_opener
    }

    /// In a forked child: the memory of a region is about to go.
    pub(crate) fn remove_in_child(&self, tag: u32) {
        let blocked = SignalsBlocked::new();
        self.leave(&blocked);
        self.ranges.retire(tag);
    }

    /// In a forked child: what a fault at `page` is about, if the page is of a region of this host; leaves it first.
    pub(crate) fn find_in_child(&self, blocked: &SignalsBlocked, page: Page) -> Option<Found> {
        self.leave(blocked);
        let range = self.ranges.iter().find(|range| range.pages.contains(page))?;
        if self.states().get(page) == PageState::Poisoned {
            return Some(Found::Poisoned);
        }
        if range.kind != Kind::Adopted && self.leaving.left_closed.load(Ordering::Relaxed) {
            self.open_in_child(PageRange::one(page));
        }
        Some(Found::Plain)
    }

    fn make_plain_in_child(&self, range: Range) {
        if let Some(mirror) = range.mirror {
            // Something that was being made ready, if anything; nobody looks there.
            let _costs_memory = sys::zap(span(mirror));
        }
        let all = range.pages;
        // Where guards, and where mappings, are to be opened from.
        let (mut unguard_from, mut protect_from) = (all.start(), all.start());
        self.states().each_unsettled(all, |page, state| {
            let page_span = span(PageRange::one(page));
            if sys::is_readable(page_span) {
                return;
            }
            if state != PageState::Poisoned {
                sys::map_if_gone(page_span);
                // What cannot end because it is locked is not locked in a child.
                let _dropped = sys::zap(page_span);
            }
            if !matches!(state, PageState::Poisoned | PageState::FillingPoisoned) {
                return;
            }
            self.states().settle(PageRange::one(page), PageState::Poisoned);
            self.unguard_in_child(PageRange::new(unguard_from, page));
            unguard_from = page.next();
            // A guard costs no mapping.
            if !self.machine.guards || sys::guard(page_span).is_err() {
                self.protect_in_child(PageRange::new(protect_from, page));
                protect_from = page.next();
            }
        });
        self.unguard_in_child(PageRange::new(unguard_from, all.end()));
        self.protect_in_child(PageRange::new(protect_from, all.end()));
    }

    fn open_in_child(&self, range: PageRange) {
        self.unguard_in_child(Some(range));
        self.protect_in_child(Some(range));
    }

    fn unguard_in_child(&self, range: Option<PageRange>) {
        if let Some(range) = range.filter(|_| self.machine.guards) {
            self.note_in_child(self.machine.unguard(span(range)));
        }
    }

    fn protect_in_child(&self, range: Option<PageRange>) {
        if let Some(range) = range {
            self.note_in_child(self.machine.protect(span(range), Access::ReadWrite));
        }
    }

    fn note_in_child(&self, opened: Result<(), Errno>) {
        if opened.is_err() {
            self.leaving.left_closed.store(true, Ordering::Relaxed);
        }
    }
}

/// What a fault in a forked child is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A page that was poisoned before the fork.
    Poisoned,
    /// Plain memory: the page was closed when the access met it, or the program has closed it.
    Plain,
}

/// Pages of a range in the table.
fn span(range: PageRange) -> Span {
    let bytes = |pages: u64| usize::try_from(pages).unwrap_or(0) * PAGE_SIZE;
    // SAFETY: whole pages of a region or of its mirror (invariant 1).
    unsafe { Span::new(bytes(range.start().number()), bytes(range.pages())) }
}
