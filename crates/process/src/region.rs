//! One region: making its pages inaccessible, and accessible again.
//!
//! All that touches protection is in this file. A page becomes accessible only by the last call of its
//! fill, when it is complete (H1); guards are put only where nobody can look (H2).
//!
//! ```text
//! chunk is      a missing page is           a fill is
//! plain (M1)    PROT_NONE                   write through /proc/self/mem · lift
//! guarded (M2)  a guard in a RW mapping     close · unguard · write · lift, and it merges back
//! soft (M5)     as above; present pages     (a touch lifts them again, nobody is told)
//!               may be closed, too
//! ```
//!
//! How the bytes come there is the business of `region/install.rs`, which has other ways where writes to
//! inaccessible pages are refused.
//!
//! A chunk is plain while it is filled in order or sparsely, and guarded from the moment that a fill
//! with no open neighbour meets two open runs. It becomes soft only when mappings run short and guards
//! cannot help.
//!
//! # Invariants
//!
//! 1. Host calls on a chunk's pages, its bits and its state happen under the chunk's lock.
//! 2. `open` says which pages we made accessible; `readonly` which of those only for reading.
//! 3. Contents of a page that is not `Present` or `WriteProtected` are dropped before the chunk's
//!    lock is let go: an aborted fill leaves no bytes behind.
//! 4. A region is in the table of regions exactly while its mapping exists, so a run inside it names
//!    pages of ours; of adopted memory, pages that it has still (`adopted.rs`), which are as they were by
//!    the promise that an `Adoption` is.
#![expect(unsafe_code, reason = "the one place where a run becomes addresses; invariant 4 is its proof")]

mod adopted;
mod alias;
mod install;
mod mirror;
mod plain;

pub(crate) use alias::{Alias, Contents};
pub(crate) use mirror::Mirror;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use userfault_abi::errno::Errno;
use userfault_engine::{Lock, Mapping, MappingKind, Page, PageRange, PageState, Pages};
use userfault_memory::{Bits, MapError, ZeroIsValid, Zeroed};

use crate::lock::FutexLock;
use crate::machine::Machine;
use crate::region::adopted::Adopted;
use crate::region::install::Backing;
use crate::states::{PAGE_SIZE, States};
use crate::sys::{Access, Span};

/// Pages of the smallest chunk: 2 MiB.
const CHUNK_PAGES: usize = 512;
/// At most about this many chunks a region.
const CHUNKS: usize = 16_384;

#[derive(Clone, Copy, Debug, Default)]
struct ChunkState {
    guarded: bool,
    soft: bool,
    /// Holds unregistered pages: never softened.
    mixed: bool,
    /// A page whose bit says closed may be open in truth.
    is_unsure: bool,
    /// It is guarded, but some closed page may be PROT_NONE instead of a guard.
    has_gaps: bool,
    /// Some page of its part of the mirror may not be writable.
    is_mirror_closed: bool,
    /// Borders between its pages that allow different things. Those between chunks are not counted:
    /// nothing would be gained by it, since no chunk can give them back.
    borders: usize,
    /// Counts changes.
    stamp: u64,
}

impl ChunkState {
    /// Nothing is known of its pages any more.
    const fn anew(self) -> Self {
        let (guarded, soft, mixed, is_unsure, has_gaps) = (false, false, false, false, false);
        Self { guarded, soft, mixed, is_unsure, has_gaps, ..self }
    }
}

struct Chunk(FutexLock<ChunkState>);

// SAFETY: a free lock is 0 and 0, and zero is a value of every field of the state.
unsafe impl ZeroIsValid for Chunk {}

/// Pages of a region, counted from its start.
type Run = Range<usize>;

/// Where a fill's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// As many bytes as the pages have; the kernel reads them and says if it cannot.
    Bytes(*const u8),
    Zeros,
    /// Somebody else has brought them.
    There,
}

/// What came of a touch of a page that has contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reopened {
    /// Something was closed, or is changing: repeat the access.
    Retry,
    /// There was nothing to do; the number of changes that the chunk has seen.
    WasOpen { stamp: u64 },
    /// It is closed still, for lack of mappings.
    NoMemory,
}

/// Why a piece of work ended early: pages done, then this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) done: usize,
    pub(crate) cause: userfault_engine::Cause,
}

pub(crate) struct Region {
    base: usize,
    pages: usize,
    tag: u32,
    chunk_pages: usize,
    chunks: Zeroed<Chunk>,
    backing: Backing,
    open: Bits,
    readonly: Bits,
    /// `None` for a mapping of ours.
    adopted: Option<Adopted>,
    /// Some page may be poisoned.
    pub(crate) may_be_poisoned: AtomicBool,
    /// Nothing of it is registered: bits and chunk states say nothing, whatever they are.
    is_plain: AtomicBool,
    /// Some unregistered page may be inaccessible still, because opening it failed.
    needs_opening: AtomicBool,
}

impl Region {
    /// Of a fresh mapping, which holds nothing and which nobody knows yet; or of shared memory.
    pub(crate) fn new(
        machine: &Machine,
        base: usize,
        pages: usize,
        tag: u32,
        shared: Option<Contents>,
    ) -> Result<Self, MapError> {
        // SAFETY: the caller's mapping, as a whole (invariant 4).
        let all = unsafe { Span::new(base, pages * PAGE_SIZE) };
        let backing = Backing::of(machine, all, shared)?;
        let chunk_pages = CHUNK_PAGES.max(pages.div_ceil(CHUNKS).next_power_of_two());
        Ok(Self {
            base,
            pages,
            tag,
            chunk_pages,
            chunks: Zeroed::new(pages.div_ceil(chunk_pages))?,
            backing,
            open: Bits::new(pages)?,
            readonly: Bits::new(pages)?,
            adopted: None,
            may_be_poisoned: AtomicBool::new(false),
            is_plain: AtomicBool::new(true),
            needs_opening: AtomicBool::new(false),
        })
    }

    pub(crate) const fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn range(&self) -> PageRange {
        let start = Page::new((self.base / PAGE_SIZE) as u64);
        PageRange::new(start, Page::new(start.number() + self.pages as u64)).unwrap_or(PageRange::one(start))
    }

    pub(crate) fn mapping(&self) -> Mapping {
        let kind = if self.is_shared() { MappingKind::Shared } else { MappingKind::PrivateAnonymous };
        Mapping { range: self.range(), kind, tag: self.tag }
    }

    /// The part of `range` that lies in this region.
    pub(crate) fn run(&self, range: PageRange) -> Option<Run> {
        let inside = range.intersect(self.range())?;
        let first = inside.start().number() - self.range().start().number();
        let first = usize::try_from(first).ok()?;
        Some(first..first + usize::try_from(inside.pages()).ok()?)
    }

    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn span(&self, run: &Run) -> Span {
        debug_assert!(run.start < run.end && run.end <= self.pages, "a run lies in its region");
        // SAFETY: whole pages of this region (invariant 4).
        unsafe { Span::new(self.base + run.start * PAGE_SIZE, (run.end - run.start) * PAGE_SIZE) }
    }

    fn page(&self, index: usize) -> Page {
        Page::new(self.range().start().number() + index as u64)
    }

    fn numbers(&self, run: &Run) -> Range<u64> {
        self.page(run.start).number()..self.page(run.end).number()
    }

    fn chunk_run(&self, chunk: usize) -> Run {
        let start = chunk * self.chunk_pages;
        start..self.pages.min(start + self.chunk_pages)
    }

    /// Runs `work` on the chunk that `run` lies in, then counts its borders again.
    fn in_chunk<R>(&self, machine: &Machine, run: &Run, work: impl FnOnce(&mut ChunkState) -> R) -> Option<R> {
        let chunk = self.chunks.get(run.start / self.chunk_pages)?;
        Some(chunk.0.with(|state| {
            let answer = work(state);
            self.recount(machine, run, state);
            answer
        }))
    }

    fn recount(&self, machine: &Machine, run: &Run, state: &mut ChunkState) {
        let all = self.chunk_run(run.start / self.chunk_pages);
        let borders = if state.guarded && !state.soft {
            // Closed pages are guards in a mapping that looks as the open ones do.
            self.readonly.borders(&self.readonly, all)
        } else {
            self.open.borders(&self.readonly, all)
        };
        machine.count(state.borders, borders);
        state.borders = borders;
        state.stamp = state.stamp.wrapping_add(1);
    }

    /// Brings contents to closed pages of one chunk, then opens them as `access` says.
    pub(crate) fn fill(
        &self,
        machine: &Machine,
        states: &States,
        run: &Run,
        source: Source,
        access: Access,
    ) -> Result<(), Short> {
        self.in_chunk(machine, run, |state| {
            if self.can_guard(machine) && !state.guarded && !state.soft && self.is_scattered(run) {
                // Failing costs nothing but mappings: runs that got no guards stay PROT_NONE.
                let _unconverted = self.convert(machine, states, run, state);
            }
            let filled = self.bring(machine, run, source, access, state);
            let done = filled.map_or_else(|short| short.done, |()| run.end - run.start);
            let opened = run.start..run.start + done;
            if matches!(source, Source::Zeros) && done > 0 {
                // Where it is refused, an unregistered page that nobody has touched counts as missing when
                // it is registered again.
                let _old_kernel = crate::sys::populate(self.span(&opened));
            }
            self.open.set(opened.clone(), true);
            self.readonly.set(opened.clone(), access == Access::Read);
            machine.lifted(self.numbers(&opened));
            filled
        })
        .unwrap_or(Err(Short { done: 0, cause: userfault_engine::Cause::NoMemory }))
    }

    /// Whether a fill of `run` makes a third open run in its chunk.
    fn is_scattered(&self, run: &Run) -> bool {
        let all = self.chunk_run(run.start / self.chunk_pages);
        let touches =
            (run.start > all.start && self.open.get(run.start - 1)) || (run.end < all.end && self.open.get(run.end));
        !touches && self.open.runs(all).filter(|(_, open)| *open).take(2).count() == 2
    }

    /// Changes what pages allow, as far as that goes; the first that was not reached. A call over several
    /// mappings may fail when it has changed some of them: page by page what is done shows, and must be
    /// said, since it can be seen (H1).
    fn as_far_as_possible(&self, run: &Run, change: impl Fn(Span) -> Result<(), Errno>) -> usize {
        if run.is_empty() || change(self.span(run)).is_ok() {
            return run.end;
        }
        run.clone().find(|page| change(self.span(&(*page..page + 1))).is_err()).unwrap_or(run.end)
    }

    /// Makes a plain chunk a guarded one: guards first, under PROT_NONE, then access (H2, H3). Present
    /// pages are not touched, nor pages in the middle of a change.
    fn convert(&self, machine: &Machine, states: &States, run: &Run, state: &mut ChunkState) -> Result<(), Errno> {
        let all = self.chunk_run(run.start / self.chunk_pages);
        (state.guarded, state.has_gaps) = (true, true);
        let mut at = all.start;
        while let Some(start) = (at..all.end).find(|page| self.is_empty(states, *page)) {
            let end = (start..all.end).find(|page| !self.is_empty(states, *page)).unwrap_or(all.end);
            machine.guard(self.span(&(start..end)))?;
            machine.protect(self.span(&(start..end)), Access::ReadWrite)?;
            at = end;
        }
        state.has_gaps = all.into_iter().any(|page| !self.open.get(page) && !self.is_empty(states, page));
        Ok(())
    }

    /// Whether the page is closed and has no contents.
    fn is_empty(&self, states: &States, page: usize) -> bool {
        let absent = match states.get(self.page(page)) {
            PageState::Missing
            | PageState::MissingProtected
            | PageState::Poisoned
            | PageState::Filling
            | PageState::FillingProtected
            | PageState::FillingPoisoned
            | PageState::Installing => true,
            PageState::Present | PageState::WriteProtected | PageState::Changing => false,
        };
        absent && !self.open.get(page)
    }

    /// Takes contents and access away from pages of one chunk that are in `Changing`.
    pub(crate) fn discard(&self, machine: &Machine, run: &Run) -> Result<(), Short> {
        self.in_chunk(machine, run, |state| {
            if machine.protect(self.span(run), Access::None).is_err() {
                self.lose_track(run, state);
                return Err(Short { done: 0, cause: userfault_engine::Cause::NoMemory });
            }
            self.open.set(run.clone(), false);
            self.readonly.set(run.clone(), false);
            self.end_contents(run).map_err(|_| Short { done: 0, cause: userfault_engine::Cause::NoMemory })?;
            if state.guarded {
                self.guard_again(machine, run, state)
            } else if !self.is_shared() {
                self.drop_contents(machine, run);
            }
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Changes what pages of one chunk that are in `Changing` allow.
    pub(crate) fn set_access(&self, machine: &Machine, run: &Run, access: Access) -> Result<(), Short> {
        self.in_chunk(machine, run, |state| {
            for (open_run, open) in self.open.runs(run.clone()) {
                // Closed ones are opened by the next touch, as their state then says.
                if open || state.is_unsure {
                    // What comes before is done: were it not said so, its state would be another one.
                    let changed = self.as_far_as_possible(&open_run, |span| machine.protect(span, access));
                    self.open.set(open_run.start..changed, true);
                    self.readonly.set(open_run.start..changed, access == Access::Read);
                    if changed < open_run.end {
                        let done = changed - run.start;
                        return Err(Short { done, cause: userfault_engine::Cause::NoMemory });
                    }
                }
            }
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// A change of access failed, perhaps halfway: the pages count as closed, so that the next touch sets
    /// what their state says, and nobody relies on "closed" in this chunk any more.
    fn lose_track(&self, run: &Run, state: &mut ChunkState) {
        state.is_unsure = true;
        self.open.set(run.clone(), false);
        self.readonly.set(run.clone(), false);
    }

    /// A touch of a page that has contents: opens it if we had closed it.
    pub(crate) fn reopen(&self, machine: &Machine, states: &States, page: usize, write: bool) -> Reopened {
        let run = page..page + 1;
        self.in_chunk(machine, &run, |state| {
            let access = match states.get(self.page(page)) {
                PageState::Present => Access::ReadWrite,
                PageState::WriteProtected if !write => Access::Read,
                PageState::WriteProtected
                | PageState::Missing
                | PageState::MissingProtected
                | PageState::Poisoned
                | PageState::Filling
                | PageState::FillingProtected
                | PageState::FillingPoisoned
                | PageState::Changing
                | PageState::Installing => return Reopened::Retry,
            };
            if self.open.get(page) && self.readonly.get(page) == (access == Access::Read) {
                // `recount` counts this as a change: do not let it look like one.
                state.stamp = state.stamp.wrapping_sub(1);
                return Reopened::WasOpen { stamp: state.stamp };
            }
            if machine.protect(self.span(&run), access).is_err() {
                return Reopened::NoMemory;
            }
            self.open.set(run.clone(), true);
            self.readonly.set(run.clone(), access == Access::Read);
            machine.lifted(self.numbers(&run));
            Reopened::Retry
        })
        .unwrap_or(Reopened::Retry)
    }

    /// Gives mappings back: guards in a plain chunk, otherwise closing what was not lifted just now (M5,
    /// H7). `false` if this chunk has none to give.
    pub(crate) fn relieve(&self, machine: &Machine, states: &States, chunk: usize) -> bool {
        let run = self.chunk_run(chunk);
        let Some(chunk) = self.chunks.get(chunk) else { return false };
        chunk.0.with(|state| {
            if state.borders < 2 || state.mixed || self.is_plain.load(Relaxed) {
                return false;
            }
            let gave = if self.can_guard(machine) && !state.guarded && !state.soft {
                self.convert(machine, states, &run, state).is_ok()
            } else {
                self.soften(machine, states, &run, state)
            };
            self.recount(machine, &run, state);
            gave
        })
    }

    /// Closes the pages of a chunk but for those lifted most recently. Whether there were any.
    fn soften(&self, machine: &Machine, states: &States, run: &Run, state: &mut ChunkState) -> bool {
        let first = self.page(run.start).number();
        let spared = machine.lifted_recently(&self.numbers(run));
        let index = |page: &u64| usize::try_from(page.saturating_sub(first)).unwrap_or(usize::MAX);
        let spared = spared.iter().map(|page| index(page).saturating_add(run.start));
        let mut gave = false;
        let mut at = run.start;
        // A page that is whole but not committed stays open: a forked child tells it by that.
        let is_whole = |page: &usize| self.open.get(*page) && states.get(self.page(*page)).is_being_filled();
        for spared in spared.chain([run.end]) {
            let end = spared.min(run.end);
            while at < end {
                let gap = at..(at..end).find(is_whole).unwrap_or(end);
                at = gap.end + 1;
                // In a chunk that is soft already, closed pages look all alike.
                if gap.is_empty() || (state.soft && self.open.find(gap.clone(), true).is_none()) {
                    continue;
                }
                if machine.protect(self.span(&gap), Access::None).is_err() {
                    self.lose_track(&gap, state);
                    state.soft |= gave;
                    return gave;
                }
                self.open.set(gap.clone(), false);
                self.readonly.set(gap, false);
                gave = true;
            }
            at = at.max(end.saturating_add(1));
        }
        state.soft |= gave;
        gave
    }

    /// The chunks' share of the mappings, when the region goes.
    pub(crate) fn forget(&self, machine: &Machine) {
        for chunk in self.chunks.iter() {
            chunk.0.with(|state| machine.count(std::mem::take(&mut state.borders), 0));
        }
    }

    pub(crate) fn pages_of(&self, run: &Run) -> PageRange {
        PageRange::new(self.page(run.start), self.page(run.end)).unwrap_or(PageRange::one(self.page(run.start)))
    }

    fn each_chunk(&self, run: &Run, mut work: impl FnMut(&Run)) {
        let mut at = run.start;
        while at < run.end {
            let part = self.first_chunk(&(at..run.end));
            work(&part);
            at = part.end;
        }
    }

    /// The part of `run` that lies in its first chunk.
    pub(crate) fn first_chunk(&self, run: &Run) -> Run {
        run.start..self.chunk_run(run.start / self.chunk_pages).end.min(run.end)
    }
}
