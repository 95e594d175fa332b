//! Driving the engine's work on pages to its end: claim, host calls, commit, wake.
//!
//! Called with the layout lock shared, from ordinary calls and from the fault handler.

use userfault_abi::errno::Errno;
use userfault_engine::{Cause, Claim, End, Filling, Page, PageRange, PageState, Step, Verdict, WaiterId};
use userfault_signal::{SignalsBlocked, futex_wait};

use crate::host::Host;
use crate::region::{Region, Short, Source};
use crate::regions::Regions;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access};

/// Pages claimed at a time, at most: 2 MiB.
const MOST: u64 = 512;
/// How often a step is tried again after mappings were given back.
const RELIEFS: usize = 64;

/// The bytes of a whole fill.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes {
    /// From this address on, as many as the range has; the kernel checks that they can be read.
    At(usize),
    Zeros,
    /// They are there: somebody else has written them.
    There,
}

impl Bytes {
    /// Where the bytes of the `page`th page are.
    fn of(self, page: u64) -> Source {
        match self {
            Self::At(address) => {
                let offset = usize::try_from(page).unwrap_or(usize::MAX).wrapping_mul(PAGE_SIZE);
                Source::Bytes(address.wrapping_add(offset) as *const u8)
            }
            Self::Zeros => Source::Zeros,
            Self::There => Source::There,
        }
    }
}

impl Host {
    /// Works on `filling` until nothing is left; wakes quiet sleepers on the way. The announced ones
    /// are the caller's, after it has written its answer.
    pub(crate) fn drive(&self, blocked: &SignalsBlocked, layout: &Regions, filling: &mut Filling, bytes: Bytes) -> End {
        let first = filling.range().start().number();
        loop {
            match self.engine(blocked).next(filling, MOST) {
                Step::Write(claim) => {
                    let source = bytes.of(claim.range().start().number() - first);
                    let worked = self.work(layout, &claim, source);
                    let woken = match worked {
                        Ok(()) => self.engine(blocked).commit(filling, claim),
                        Err(Short { done, cause }) => {
                            self.engine(blocked).commit_first(filling, claim, done as u64, cause)
                        }
                    };
                    self.unpark(blocked, woken);
                }
                Step::CheckSource(page) => {
                    let readable = self.is_readable(bytes.of(page.number() - first));
                    self.engine(blocked).source_checked(filling, readable);
                }
                Step::Busy(page) => self.await_page(blocked, page),
                Step::End(end) => return end,
            }
        }
    }

    /// Begins the host's own installation of pages; `None` unless one registration holds them all. Only
    /// of registered pages do the states say what is missing; the layout is held, so it stays so.
    pub(crate) fn install(&self, blocked: &SignalsBlocked, range: PageRange) -> Option<Filling> {
        let (held, _) = self.engine(blocked).registration(range.start())?;
        (range.end() <= held.end()).then(|| self.engine(blocked).install(range))
    }

    /// The host calls for one claim, chunk by chunk.
    fn work(&self, layout: &Regions, claim: &Claim, source: Source) -> Result<(), Short> {
        let nothing = Short { done: 0, cause: Cause::NoMemory };
        let region = layout.find(claim.range().start()).ok_or(nothing)?;
        let run = region.run(claim.range()).ok_or(nothing)?;
        let mut at = run.start;
        while at < run.end {
            let part = region.first_chunk(&(at..run.end));
            let worked = self.work_in_chunk(layout, region, claim, &part, source.after(at - run.start));
            if let Err(Short { done, cause }) = worked {
                return Err(Short { done: at - run.start + done, cause });
            }
            at = part.end;
        }
        Ok(())
    }

    /// Tries, and tries again with fewer mappings (H5).
    fn work_in_chunk(
        &self,
        layout: &Regions,
        region: &Region,
        claim: &Claim,
        part: &std::ops::Range<usize>,
        source: Source,
    ) -> Result<(), Short> {
        let (machine, states) = (&self.machine, self.states());
        if machine.is_over_budget() {
            // One chunk at a time: bounded work in a fault.
            let _nothing_to_give = layout.relieve(machine, states);
        }
        let mut left = RELIEFS;
        let mut done = 0;
        loop {
            let (part, source) = (&(part.start + done..part.end), source.after(done));
            let worked = match (claim.was(), claim.becomes()) {
                (PageState::Present | PageState::WriteProtected, PageState::Missing) => region.discard(machine, part),
                (PageState::Present, PageState::WriteProtected) => region.set_access(machine, part, Access::Read),
                (PageState::WriteProtected, _) => region.set_access(machine, part, Access::ReadWrite),
                (_, PageState::WriteProtected) => region.fill(machine, states, part, source, Access::Read),
                (_, _) => region.fill(machine, states, part, source, Access::ReadWrite),
            };
            match worked {
                Err(Short { done: more, cause: Cause::NoMemory }) if left > 0 => {
                    left -= 1;
                    done += more;
                    let _nothing_to_give = layout.relieve(machine, states);
                }
                Err(Short { done: more, cause }) => return Err(Short { done: done + more, cause }),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Whether a page's bytes could be read, as the kernel sees it.
    fn is_readable(&self, source: Source) -> bool {
        match source {
            Source::Zeros | Source::There => true,
            Source::Bytes(address) => self.machine.is_readable(address),
        }
    }

    /// Sleeps until somebody else's claim on `page` ends; signals stay blocked, since it ends soon: its
    /// holder runs and waits for nobody.
    fn await_page(&self, blocked: &SignalsBlocked, page: Page) {
        match self.engine(blocked).await_page(page, 0) {
            Verdict::Sleep { waiter, .. } => self.park_blocked(blocked, waiter),
            Verdict::Full
            | Verdict::Retry
            | Verdict::NotOurs
            | Verdict::Present(_)
            | Verdict::Bus
            | Verdict::Zero(_)
            | Verdict::Unprotect(_)
            | Verdict::Inline { .. } => sys::yield_now(),
        }
    }

    fn park_blocked(&self, blocked: &SignalsBlocked, waiter: WaiterId) {
        let Some(word) = self.words.get(waiter.index()) else { return };
        loop {
            let seen = word.load(std::sync::atomic::Ordering::Acquire);
            if self.engine(blocked).leave(waiter, userfault_engine::Why::Check) != userfault_engine::Left::Asleep {
                return;
            }
            let _look_again = futex_wait(word, seen, None);
        }
    }

    /// Ends the contents of `range`, as the caller may: registered pages are missing again, others read
    /// as zeros.
    pub(crate) fn discard(&self, range: PageRange) -> Result<(), Errno> {
        let blocked = SignalsBlocked::new();
        let layout = self.layout.read(&blocked);
        self.discard_in(&blocked, &layout, range)
    }

    pub(crate) fn discard_in(&self, blocked: &SignalsBlocked, layout: &Regions, range: PageRange) -> Result<(), Errno> {
        let mut left = Some(range);
        while let Some(part) = left {
            let (piece, is_registered) = self.piece(blocked, part);
            if is_registered {
                let mut filling = self.engine(blocked).discard(piece);
                let end = self.drive(blocked, layout, &mut filling, Bytes::Zeros);
                end.stop.map_or(Ok(()), |stop| Err(userfault_engine::errno(stop)))?;
            } else if let Some(region) = layout.find(piece.start())
                && let Some(run) = region.run(piece)
            {
                region.discard_plain(&self.machine, self.states(), &run)?;
            }
            left = part.from(piece.end());
        }
        Ok(())
    }

    /// The first part of `range` that is registered, or not, as a whole.
    pub(crate) fn piece(&self, blocked: &SignalsBlocked, range: PageRange) -> (PageRange, bool) {
        let held = self.engine(blocked).forked(range.start()).and_then(|(held, _)| held.intersect(range));
        match held {
            None => (range, false),
            Some(held) => range.until(held.start()).map_or((held, true), |gap| (gap, false)),
        }
    }
}

impl Source {
    pub(crate) const fn after(self, pages: usize) -> Self {
        match self {
            Self::Bytes(start) => Self::Bytes(start.wrapping_add(pages * PAGE_SIZE)),
            Self::Zeros | Self::There => self,
        }
    }
}
