//! Bringing bytes to closed pages, and opening them.
//!
//! ```text
//! forced      plain: write through PROT_NONE · lift      guarded: close · unguard · write · lift
//! by mirror   write to the mirror · move onto the hole, whatever it is: it allows what the mirror allowed
//!             under a limit of data: close the mirror first, and lift what was moved
//! ```

use userfault_abi::errno::Errno;
use userfault_engine::Cause;
use userfault_memory::MapError;

use super::{Alias, ChunkState, Contents, Mirror, Region, Run, Short, Source};
use crate::machine::Machine;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};

/// How bytes come to closed pages of a region.
pub(super) enum Backing {
    /// They are written there, through what protects them.
    Forced,
    /// They are made ready elsewhere, and moved there.
    Mirror(Mirror),
    /// They are the pages of a file, and are written through another mapping of it.
    Alias(Alias),
}

impl Backing {
    /// For a region that holds nothing yet, or one of shared memory.
    pub(super) fn of(machine: &Machine, region: Span, shared: Option<Contents>) -> Result<Self, MapError> {
        if let Some(contents) = shared {
            let failed = |errno: Errno| MapError::Os { call: "making a second mapping", errno: errno.raw() };
            return Alias::of(region, contents).map(Self::Alias).map_err(failed);
        }
        if machine.writer.is_forced() {
            return Ok(Self::Forced);
        }
        let failed = |errno: Errno| MapError::Os { call: "making a mirror", errno: errno.raw() };
        Mirror::of(&machine.writer, region).map(Self::Mirror).map_err(failed)
    }

    /// Whether a fresh region is accessible now, however it was mapped.
    pub(super) const fn leaves_open(&self) -> bool {
        matches!(self, Self::Mirror(_) | Self::Alias(_))
    }
}

const fn no_memory(done: usize) -> Short {
    Short { done, cause: Cause::NoMemory }
}

impl Region {
    /// Where its mirror begins, if it has one.
    pub(crate) fn mirror_base(&self) -> Option<usize> {
        match &self.backing {
            Backing::Forced | Backing::Alias(_) => None,
            Backing::Mirror(mirror) => Some(mirror.span(&(0..1)).start()),
        }
    }

    /// Brings contents to closed pages, and opens them by the last call (H1).
    pub(super) fn bring(
        &self,
        machine: &Machine,
        run: &Run,
        source: Source,
        access: Access,
        state: &mut ChunkState,
    ) -> Result<(), Short> {
        match &self.backing {
            Backing::Forced if state.guarded => self.fill_guarded(machine, run, source, access, state),
            Backing::Forced => self.fill_plain(machine, run, source, access),
            Backing::Mirror(mirror) => self.fill_by_mirror(machine, mirror, run, source, access, state),
            Backing::Alias(alias) => self.fill_by_alias(machine, alias, run, source, state),
        }
    }

    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.backing, Backing::Alias(_))
    }

    /// Whether guards can be put on its pages.
    pub(super) const fn can_guard(&self, machine: &Machine) -> bool {
        if self.is_shared() { machine.shared_guards } else { machine.guards }
    }

    /// The first run of pages in `run` that have contents, though not necessarily from us.
    pub(crate) fn found_in(&self, run: &Run) -> Result<Option<Run>, Errno> {
        match &self.backing {
            Backing::Alias(alias) => alias.present_in(run),
            Backing::Forced | Backing::Mirror(_) => Ok(None),
        }
    }

    /// Writes shared memory through its other mapping, whatever is there.
    pub(crate) fn write_beside(&self, machine: &Machine, run: &Run, source: *const u8) -> Result<(), Errno> {
        match &self.backing {
            Backing::Alias(alias) => machine.write(source, alias.span(run)).map_err(|(_, errno)| errno),
            Backing::Forced | Backing::Mirror(_) => Err(Errno::EINVAL),
        }
    }

    /// Ends contents of shared memory, which no guard and no advice about a mapping does. Nobody may reach
    /// them here.
    pub(super) fn end_contents(&self, run: &Run) -> Result<(), Errno> {
        match &self.backing {
            Backing::Alias(alias) => alias.punch(run),
            Backing::Forced | Backing::Mirror(_) => Ok(()),
        }
    }

    /// Ends contents of pages that anybody may reach.
    pub(super) fn end_plain_contents(&self, run: &Run) -> Result<(), Errno> {
        match &self.backing {
            Backing::Alias(alias) => alias.punch(run),
            Backing::Forced | Backing::Mirror(_) => sys::zap(self.span(run)),
        }
    }

    fn fill_plain(&self, machine: &Machine, run: &Run, source: Source, access: Access) -> Result<(), Short> {
        let wrote = write(machine, self.span(run), source);
        let done = done_of(run, wrote);
        self.drop_contents(machine, &(done.end..run.end));
        let lifted = self.as_far_as_possible(&done, |span| machine.open_pages(span, access));
        if lifted < done.end {
            self.drop_contents(machine, &(lifted..done.end));
            return Err(no_memory(lifted - run.start));
        }
        wrote
    }

    fn fill_guarded(
        &self,
        machine: &Machine,
        run: &Run,
        source: Source,
        access: Access,
        state: &mut ChunkState,
    ) -> Result<(), Short> {
        machine.protect(self.span(run), Access::None).map_err(|_| no_memory(0))?;
        if machine.unguard(self.span(run)).is_err() {
            self.guard_again(machine, run, state);
            return Err(no_memory(0));
        }
        let wrote = write(machine, self.span(run), source);
        let done = done_of(run, wrote);
        self.guard_again(machine, &(done.end..run.end), state);
        let lifted = self.as_far_as_possible(&done, |span| machine.open_pages(span, access));
        if lifted < done.end {
            self.guard_again(machine, &(lifted..done.end), state);
            return Err(no_memory(lifted - run.start));
        }
        wrote
    }

    /// Makes pages ready in the mirror, and moves them onto the closed ones, whatever keeps those closed.
    fn fill_by_mirror(
        &self,
        machine: &Machine,
        mirror: &Mirror,
        run: &Run,
        source: Source,
        access: Access,
        state: &mut ChunkState,
    ) -> Result<(), Short> {
        if state.is_mirror_closed {
            let all = mirror.span(&self.chunk_run(run.start / self.chunk_pages));
            machine.protect(all, Access::ReadWrite).map_err(|_| no_memory(0))?;
            state.is_mirror_closed = false;
        }
        let wrote = write(machine, mirror.span(run), source);
        let done = done_of(run, wrote);
        mirror.drop_contents(&(done.end..run.end));
        if done.is_empty() {
            return wrote;
        }
        // What must not be writable for an instant, or is not to be refused by a limit halfway (`sys::move_pages`).
        let is_limited = access == Access::ReadWrite && sys::is_data_limited();
        let moved_as = if is_limited { Access::None } else { access };
        if moved_as != Access::ReadWrite {
            state.is_mirror_closed = true;
            if machine.protect(mirror.span(&done), moved_as).is_err() {
                mirror.drop_contents(&done);
                return Err(no_memory(0));
            }
        }
        let mut parts = mirror.parts(&done).into_iter().filter(|part| !part.is_empty());
        let stuck = parts.find(|part| machine.move_pages(mirror.span(part), self.span(part)).is_err());
        if let Some(part) = &stuck {
            mirror.drop_contents(&(part.start..done.end));
        }
        let moved = done.start..stuck.map_or(done.end, |part| part.start);
        let opened = if is_limited { self.open_moved(machine, &moved, state) } else { moved.end };
        if state.is_mirror_closed {
            // Where it fails the next fill tries again.
            state.is_mirror_closed = machine.protect(mirror.span(&done), Access::ReadWrite).is_err();
        }
        if opened < done.end { Err(no_memory(opened - run.start)) } else { wrote }
    }

    /// Opens pages that were moved inaccessible, as far as that goes; the others are missing again.
    fn open_moved(&self, machine: &Machine, moved: &Run, state: &mut ChunkState) -> usize {
        let opened = self.as_far_as_possible(moved, |span| machine.open_pages(span, Access::ReadWrite));
        let rest = opened..moved.end;
        if state.guarded {
            self.guard_again(machine, &rest, state);
        } else {
            self.drop_contents(machine, &rest);
        }
        opened
    }

    /// Writes pages through the other mapping: they are complete before they can be reached here.
    fn fill_by_alias(
        &self,
        machine: &Machine,
        alias: &Alias,
        run: &Run,
        source: Source,
        state: &mut ChunkState,
    ) -> Result<(), Short> {
        // Then taking the guards away is all there is to do.
        let are_guards = state.guarded && !state.soft && !state.has_gaps;
        if state.guarded && !are_guards {
            machine.protect(self.span(run), Access::None).map_err(|_| no_memory(0))?;
            if machine.unguard(self.span(run)).is_err() {
                self.guard_again(machine, run, state);
                return Err(no_memory(0));
            }
        }
        let wrote = match source {
            Source::Bytes(_) => write(machine, alias.span(run), source).map_err(|short| really(machine, short, source)),
            Source::Zeros => alias.populate(machine, run).map_err(|_| no_memory(0)),
            Source::There => Ok(()),
        };
        let done = done_of(run, wrote);
        let opened = self.as_far_as_possible(&done, |span| {
            if are_guards { machine.unguard(span) } else { machine.open_pages(span, Access::ReadWrite) }
        });
        if source != Source::There {
            self.drop_contents(machine, &(opened..run.end));
        }
        if state.guarded && !are_guards {
            self.guard_again(machine, &(opened..run.end), state);
        }
        if opened < done.end { Err(no_memory(opened - run.start)) } else { wrote }
    }

    /// Drops what an unfinished fill may have left in closed pages (invariant 3).
    pub(super) fn drop_contents(&self, machine: &Machine, run: &Run) {
        if let Backing::Alias(alias) = &self.backing {
            if alias.punch(run).is_err() {
                sys::die("userfault: the contents of an unfinished shared page could not be dropped\n");
            }
            return;
        }
        if run.is_empty() || sys::zap(self.span(run)).is_ok() {
            return;
        }
        // The program has locked its memory (`mlockall`).
        if let Backing::Mirror(_) = self.backing {
            if sys::unlock(self.span(run)).and_then(|()| sys::zap(self.span(run))).is_ok() {
                return;
            }
            sys::die("userfault: the contents of an unfinished page could not be dropped\n");
        }
        // What is locked cannot end, but can be zeros, and stays locked.
        for page in run.clone() {
            if machine.erase(self.span(&(page..page + 1))).is_err() {
                sys::die("userfault: the contents of an unfinished page could not be dropped\n");
            }
        }
    }

    /// Makes closed pages of a guarded chunk guards again; where that fails they stay PROT_NONE, which
    /// is as good for everybody but the budget.
    pub(super) fn guard_again(&self, machine: &Machine, run: &Run, state: &mut ChunkState) {
        if run.is_empty() {
            return;
        }
        // A guard ends contents, too, but for shared ones: with these the caller has dealt.
        if machine.guard(self.span(run)).is_err() {
            state.has_gaps = true;
            if !self.is_shared() {
                self.drop_contents(machine, run);
            }
        } else if !state.soft {
            state.has_gaps |= machine.protect(self.span(run), Access::ReadWrite).is_err();
        }
    }
}

/// Brings bytes to pages that the machine's writer reaches.
fn write(machine: &Machine, span: Span, source: Source) -> Result<(), Short> {
    let Source::Bytes(bytes) = source else { return Ok(()) };
    machine.write(bytes, span).map_err(|(written, errno)| {
        let cause = if errno == Errno::EFAULT { Cause::SourceUnreadable } else { Cause::NoMemory };
        Short { done: written / PAGE_SIZE, cause }
    })
}

/// What ended a write to shared memory: where that is full, the kernel blames an address, too.
fn really(machine: &Machine, short: Short, source: Source) -> Short {
    match (short.cause, source.after(short.done)) {
        (Cause::SourceUnreadable, Source::Bytes(rest)) if machine.is_readable(rest) => no_memory(short.done),
        _ => short,
    }
}

/// The part of `run` that has its bytes.
fn done_of(run: &Run, wrote: Result<(), Short>) -> Run {
    run.start..wrote.map_or_else(|short| run.start + short.done, |()| run.end)
}
