//! Regions of memory that the program mapped itself.
//!
//! Such a region has its pages one by one: those that were unregistered are the program's again, which may
//! have unmapped them since. The host never touches them after that, whatever comes to lie there (H15).
//!
//! Kernel counterpart: a registered `vm_area_struct`, cut as the program unregisters parts of it.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use userfault_engine::{Mapping, Page, PageRange, PageState, Pages};
use userfault_memory::{Bits, MapError, Survey};

use super::{Region, Run};
use crate::adopt::Adoption;
use crate::machine::Machine;
use crate::states::{PAGE_SIZE, States};
use crate::sys::{self, Access, Span};

/// More open runs than this, and a chunk begins as a guarded one.
const OPEN_RUNS: usize = 2;

pub(super) struct Adopted {
    /// Pages that are in the region still. Changed with the layout held exclusively.
    has: Bits,
    survey: Survey,
}

impl Region {
    /// Of the program's memory, as it stands.
    pub(crate) fn adopted(machine: &Machine, adoption: Adoption, tag: u32) -> Result<Self, MapError> {
        let pages = adoption.len() / PAGE_SIZE;
        let has = Bits::new(pages)?;
        has.set(0..pages, true);
        let region = Self::new(machine, adoption.start(), pages, tag, None)?;
        Ok(Self { adopted: Some(Adopted { has, survey: adoption.into_survey() }), ..region })
    }

    /// Whether `page` is in the region.
    pub(crate) fn has(&self, page: Page) -> bool {
        self.range().contains(page) && self.run(PageRange::one(page)).is_some_and(|run| self.has_run(&run))
    }

    /// Whether all of `range` is in the region.
    pub(crate) fn has_all(&self, range: PageRange) -> bool {
        let inside = range.intersect(self.range()) == Some(range);
        inside && self.run(range).is_some_and(|run| self.has_run(&run))
    }

    fn has_run(&self, run: &Run) -> bool {
        self.adopted.as_ref().is_none_or(|adopted| adopted.has.find(run.clone(), false).is_none())
    }

    /// The runs of pages in `run` that are in the region.
    pub(crate) fn runs(&self, run: Run) -> impl Iterator<Item = Run> {
        let mut at = run.start;
        std::iter::from_fn(move || {
            let (start, end) = match &self.adopted {
                None => (Some(at).filter(|at| *at < run.end), None),
                Some(adopted) => {
                    let start = adopted.has.find(at..run.end, true);
                    (start, start.and_then(|start| adopted.has.find(start..run.end, false)))
                }
            };
            at = end.unwrap_or(run.end);
            start.map(|start| start..at)
        })
    }

    /// What the region is, as the engine wants to know it.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = Mapping> {
        let kind = self.mapping().kind;
        self.runs(0..self.pages).map(move |run| Mapping { range: self.pages_of(&run), kind, tag: self.tag })
    }

    /// No huge pages from now on: one filled page must not take 2 MiB (H8).
    pub(crate) fn avoid_huge_pages(&self) {
        self.each_huge(&(0..self.pages), |span| {
            // Refused, it takes more memory, no more.
            let _refused = sys::avoid_huge_pages(span);
        });
    }

    fn each_huge(&self, run: &Run, work: impl Fn(Span)) {
        let Some(adopted) = &self.adopted else { return };
        for huge in adopted.survey.huge() {
            let page = |address: usize| address.saturating_sub(self.base) / PAGE_SIZE;
            let part = page(huge.start).max(run.start)..page(huge.end).min(run.end);
            if part.start < part.end {
                work(self.span(&part));
            }
        }
    }

    /// Opens the pages that had contents when all were closed, chunk by chunk. Where they are scattered the
    /// chunk is a guarded one from the start, so that adopting takes few mappings.
    pub(crate) fn open_contents(&self, machine: &Machine, states: &States) {
        for chunk in 0..self.chunks() {
            let all = self.chunk_run(chunk);
            let has_contents = |page: &usize| states.get(self.page(*page)) == PageState::Present;
            let next = |at: usize| {
                let start = (at..all.end).find(has_contents)?;
                Some(start..(start..all.end).find(|page| !has_contents(page)).unwrap_or(all.end))
            };
            let runs = || std::iter::successors(next(all.start), |run| next(run.end));
            self.in_chunk(machine, &all, |state| {
                if machine.guards && runs().take(OPEN_RUNS + 1).count() > OPEN_RUNS {
                    // Runs that got no guards stay PROT_NONE.
                    let _unconverted = self.convert(machine, states, &all, state);
                }
                for run in runs() {
                    // What cannot be opened now is opened by its first touch.
                    let opened = machine.protect(self.span(&run), Access::ReadWrite).is_ok();
                    self.open.set(run, opened);
                }
            });
        }
    }

    /// Takes back that all pages were closed.
    ///
    /// # Errors
    ///
    /// The addresses from the first to the last page that is inaccessible still.
    pub(crate) fn undo_close(&self, machine: &Machine, states: &States) -> Result<(), Range<usize>> {
        let all = 0..self.pages;
        let is_open = machine.open_pages(self.span(&all), Access::ReadWrite).is_ok();
        let is_bare = !machine.guards || machine.unguard(self.span(&all)).is_ok();
        let mut closed: Option<Run> = None;
        if !(is_open && is_bare) {
            for page in all.clone().filter(|page| !self.is_plain_now(machine, states, *page, is_open)) {
                closed = Some(closed.map_or(page, |run| run.start)..page + 1);
            }
        }
        self.each_huge(&all, |span| {
            let _refused = sys::allow_huge_pages(span);
        });
        self.forget(machine);
        closed.map_or(Ok(()), |run| Err(self.base + run.start * PAGE_SIZE..self.base + run.end * PAGE_SIZE))
    }

    /// Tries to make one page accessible; whether it is.
    fn is_plain_now(&self, machine: &Machine, states: &States, page: usize, is_open: bool) -> bool {
        let span = self.span(&(page..page + 1));
        let has_contents = matches!(states.get(self.page(page)), PageState::Present | PageState::WriteProtected);
        let is_open = is_open || machine.protect(span, Access::ReadWrite).is_ok();
        let is_bare = !machine.guards || machine.unguard(span).is_ok();
        // Pages with contents have no guards. Some of it may be done by an earlier call that failed in the end.
        is_open && (is_bare || has_contents) || !self.readonly.get(page) && sys::copy_in(span.start(), &mut [0]).is_ok()
    }

    /// Makes registered pages plain memory, but for the poisoned ones, which stay inaccessible; `end` ends the
    /// registration of each run that is the program's now, if there is room to do so.
    ///
    /// How many pages are registered still; the layout is held exclusively.
    pub(crate) fn give_back(
        &self,
        machine: &Machine,
        states: &States,
        run: &Run,
        end: impl Fn(PageRange) -> bool,
    ) -> usize {
        let may_be = self.may_be_poisoned.load(Relaxed);
        let is_poisoned = |page: usize| may_be && states.get(self.page(page)) == PageState::Poisoned;
        let mut kept = 0;
        let mut at = run.start;
        while at < run.end {
            let poisoned = is_poisoned(at);
            let next = if may_be { (at..run.end).find(|page| is_poisoned(*page) != poisoned) } else { None };
            let part = at..next.unwrap_or(run.end);
            kept += if poisoned {
                self.let_go(machine, &part, &end)
            } else {
                self.give_back_part(machine, states, &part, &end)
            };
            at = part.end;
        }
        kept
    }

    fn give_back_part(
        &self,
        machine: &Machine,
        states: &States,
        part: &Run,
        end: &impl Fn(PageRange) -> bool,
    ) -> usize {
        let let_go = |run: &Run| {
            let kept = self.let_go(machine, run, end);
            if kept > 0 {
                // Accessible, so with contents, whatever it was.
                states.settle(self.pages_of(run), PageState::Present);
            }
            kept
        };
        let is_open = machine.protect(self.span(part), Access::ReadWrite).is_ok();
        if is_open && (!machine.guards || machine.unguard(self.span(part)).is_ok()) {
            return let_go(part);
        }
        // Missing pages that are accessible now may have been written to: nothing closes them again.
        let mut kept = 0;
        for page in part.clone() {
            kept += if self.is_plain_now(machine, states, page, is_open) { let_go(&(page..page + 1)) } else { 1 };
        }
        kept
    }

    /// Takes pages out of the region; all or none. How many are left.
    fn let_go(&self, machine: &Machine, run: &Run, end: &impl Fn(PageRange) -> bool) -> usize {
        if !end(self.pages_of(run)) {
            return run.end - run.start;
        }
        self.each_huge(run, |span| {
            let _refused = sys::allow_huge_pages(span);
        });
        self.each_chunk(run, |part| {
            self.in_chunk(machine, part, |state| {
                state.mixed = true;
                self.open.set(part.clone(), true);
                self.readonly.set(part.clone(), false);
            });
        });
        if let Some(adopted) = &self.adopted {
            adopted.has.set(run.clone(), false);
        }
        0
    }
}
