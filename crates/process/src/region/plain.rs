//! What registering and unregistering mean for a region's pages.
//!
//! Unregistered pages are plain memory: accessible, and the kernel alone decides about their contents. The
//! layout is held exclusively wherever pages come or go, so no claim is out.
//!
//! Kernel counterpart: the clearing of markers when a userfaultfd lets a mapping go.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use userfault_abi::errno::Errno;
use userfault_engine::{PageState, Pages};

use super::{ChunkState, Region, Run};
use crate::machine::Machine;
use crate::states::{PAGE_SIZE, States};
use crate::sys::{self, Access};

impl Region {
    /// Its place in the table of regions.
    pub(crate) const fn tag(&self) -> u32 {
        self.tag
    }

    /// Whether nothing of it is registered; pages that could not be opened then may still be closed.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain.load(Relaxed)
    }

    /// Makes all of a fresh region inaccessible, if it was not mapped so: it is about to be registered.
    pub(crate) fn begin_closed(&self, machine: &Machine) -> Result<(), Errno> {
        if self.backing.leaves_open() {
            machine.protect(self.span(&(0..self.pages)), Access::None)?;
        }
        self.is_plain.store(false, Relaxed);
        Ok(())
    }

    /// Makes all pages inaccessible before they are registered.
    ///
    /// The layout is held exclusively: no claim is out.
    pub(crate) fn close(&self, machine: &Machine, run: &Run) -> Result<(), Errno> {
        machine.protect(self.span(run), Access::None)?;
        if self.can_guard(machine) {
            // Poison leaves guards behind, and so does making pages plain when it fails.
            machine.unguard(self.span(run))?;
        }
        if self.is_plain.swap(false, Relaxed) {
            self.all_mixed(machine);
        }
        self.open.set(run.clone(), false);
        self.readonly.set(run.clone(), false);
        self.each_chunk(run, |part| {
            self.in_chunk(machine, part, |state| {
                if *part == self.chunk_run(part.start / self.chunk_pages) {
                    *state = state.anew();
                }
            });
        });
        Ok(())
    }

    /// Writes down what the region is as a whole: accessible, and unregistered.
    fn all_mixed(&self, machine: &Machine) {
        let all = 0..self.pages;
        self.open.set(all.clone(), true);
        self.readonly.set(all.clone(), false);
        self.each_chunk(&all, |part| {
            self.in_chunk(machine, part, |state| {
                *state = ChunkState { mixed: true, ..state.anew() };
            });
        });
    }

    /// Opens pages that had contents when they were registered.
    pub(crate) fn open_present(&self, machine: &Machine, run: &Run) -> Result<(), Errno> {
        let mut result = Ok(());
        self.each_chunk(run, |part| {
            self.in_chunk(machine, part, |_| {
                // What cannot be opened now is opened by its first touch.
                match machine.protect(self.span(part), Access::ReadWrite) {
                    Ok(()) => self.open.set(part.clone(), true),
                    Err(errno) => result = Err(errno),
                }
            });
        });
        result
    }

    /// Makes pages plain memory again, but for the poisoned ones.
    ///
    /// The layout is held exclusively: no claim is out.
    pub(crate) fn make_plain(&self, machine: &Machine, states: &States, run: &Run) -> Result<(), Errno> {
        let mut result = Ok(());
        let mut at = run.start;
        let poisoned = |page: &usize| states.get(self.page(*page)) == PageState::Poisoned;
        let may_be = self.may_be_poisoned.load(Relaxed);
        while at < run.end {
            let end = if may_be { (at..run.end).find(poisoned).unwrap_or(run.end) } else { run.end };
            if at < end {
                let part = at..end;
                result = self.open_run(machine, &part).and(result);
                states.forget(self.pages_of(&part));
            }
            at = (end..run.end).find(|page| !poisoned(page)).unwrap_or(run.end);
        }
        if result.is_err() {
            self.needs_opening.store(true, Relaxed);
        }
        if *run == (0..self.pages) {
            self.is_plain.store(true, Relaxed);
            self.forget(machine);
        } else if !self.is_plain.load(Relaxed) {
            self.each_chunk(run, |part| {
                self.in_chunk(machine, part, |state| {
                    state.mixed = true;
                    self.open.set(part.clone(), true);
                    self.readonly.set(part.clone(), false);
                });
            });
        }
        result
    }

    /// Makes all of a region of shared memory plain again, page by page where it has to be.
    ///
    /// The layout is held exclusively: no claim is out.
    ///
    /// # Errors
    ///
    /// The addresses from the first to the last page that is inaccessible still.
    pub(crate) fn make_all_plain(&self, machine: &Machine, states: &States) -> Result<(), Range<usize>> {
        let all = 0..self.pages;
        if self.make_plain(machine, states, &all).is_ok() {
            return Ok(());
        }
        let is_closed = |page: &usize| {
            let run = *page..page + 1;
            // Some of it may be done by a call over all of it that failed in the end.
            self.open_run(machine, &run).is_err() && sys::copy_in(self.span(&run).start(), &mut [0]).is_err()
        };
        let mut closed: Option<Run> = None;
        for page in all.filter(is_closed) {
            closed = Some(closed.map_or(page, |run| run.start)..page + 1);
        }
        closed.map_or(Ok(()), |run| Err(self.base + run.start * PAGE_SIZE..self.base + run.end * PAGE_SIZE))
    }

    /// Ends the contents of unregistered pages, poison included.
    pub(crate) fn discard_plain(&self, machine: &Machine, states: &States, run: &Run) -> Result<(), Errno> {
        self.end_plain_contents(run)?;
        if self.may_be_poisoned.load(Relaxed) {
            // Before the states: who finds poison that is inaccessible still repeats the access.
            let opened = self.open_run(machine, run);
            states.forget(self.pages_of(run));
            if opened.is_err() {
                self.needs_opening.store(true, Relaxed);
            }
            return opened;
        }
        Ok(())
    }

    /// Opens one page of unregistered memory, if some could not be opened when they were unregistered.
    pub(crate) fn open_plain(&self, machine: &Machine, page: usize) {
        if !self.needs_opening.load(Relaxed) {
            return;
        }
        let _retried = self.open_run(machine, &(page..page + 1));
    }

    fn open_run(&self, machine: &Machine, run: &Run) -> Result<(), Errno> {
        let unguarded = if self.can_guard(machine) { machine.unguard(self.span(run)) } else { Ok(()) };
        unguarded.and(machine.protect(self.span(run), Access::ReadWrite))
    }
}
