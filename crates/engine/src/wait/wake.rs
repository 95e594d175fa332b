//! Collecting who may go.
//!
//! Nobody is unparked under the lock: the engine marks the sleepers and returns their names, at most
//! 32 at a time by value, plus how to go on. Sleepers are found through the by-page index, so a wake
//! costs the logarithm of those outside its range, plus those inside (W9). Within a page, and within
//! each batch, the oldest comes first (W11).
//!
//! A call wakes who was asleep when it began: threads that are woken, retry and join again while the
//! caller still works through the rest are not woken twice, so the rest always ends.
//!
//! Kernel counterpart: `UFFDIO_WAKE` and the wake-up after a fill.

use crate::addr::{Page, PageRange};
use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::space::{AddressSpace, State};
use crate::wait::slots::WaiterId;
use crate::wait::{Phase, Place};

const BATCH: usize = 32;

/// Threads to unpark now, and what is left to do.
///
/// Example: [`crate`].
#[must_use = "sleepers that are not unparked sleep on"]
#[derive(Debug, Default)]
pub struct Woken {
    ids: [(u64, WaiterId); BATCH],
    len: usize,
    /// Unpark these, then call [`AddressSpace::wake_rest`] with it.
    pub rest: Option<Rest>,
}

/// The part of a wake that did not fit into one batch.
///
/// Example: [`crate`].
#[must_use = "the rest of the sleepers sleep on"]
#[derive(Clone, Copy, Debug)]
pub struct Rest(RestOf);

#[derive(Clone, Copy, Debug)]
enum RestOf {
    Range { select: Select, from: Place, end: Page, before: u64 },
    Context { context: ContextId, left: u64, phase: Phase },
}

/// Which sleepers of a range are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Select {
    /// A context's announced ones; those not read yet only if told so.
    Announced { context: ContextId, unread: bool },
    /// Those that wait for a change to end.
    Quiet,
    /// Every sleeper: the range is gone.
    Everybody,
}

impl Woken {
    /// The threads to unpark, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = WaiterId> + '_ {
        self.ids.iter().take(self.len).map(|(_, id)| *id)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0 && self.rest.is_none()
    }

    const fn is_full(&self) -> bool {
        self.len >= BATCH
    }

    /// Adds a sleeper, oldest first.
    fn push(&mut self, arrival: u64, id: WaiterId) {
        let mut added = (arrival, id);
        let taken = self.ids.iter_mut().take(self.len);
        for slot in taken.filter(|slot| slot.0 > arrival) {
            core::mem::swap(slot, &mut added);
        }
        if let Some(slot) = self.ids.get_mut(self.len) {
            *slot = added;
            self.len = self.len.saturating_add(1);
        }
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Wakes the context's sleepers in `range`: all of them (modern), or those whose word was read
    /// (original, W2). Each retries its access.
    pub fn wake(&self, context: ContextId, range: PageRange) -> Woken {
        self.state.with(|state| {
            let Some(rules) = state.rules(context) else { return Woken::default() };
            let select = Select::Announced { context, unread: rules.wake_takes_unread };
            state.wake_range(select, range)
        })
    }

    /// Wakes every sleeper of the context, read or unread, whatever the protocol says of `WAKE`: the
    /// embedder's own operation, not reachable through an ioctl (W12).
    pub fn wake_all(&self, context: ContextId) -> Woken {
        self.state.with(|state| state.wake_context(context, Phase::Woken))
    }

    /// Goes on with a wake after the first batch was unparked.
    pub fn wake_rest(&self, rest: Rest) -> Woken {
        self.state.with(|state| match rest.0 {
            RestOf::Range { select, from, end, before } => state.wake_from(select, from, end, before),
            RestOf::Context { context, left, phase } => state.wake_queued(context, left, phase),
        })
    }
}

impl<E: Embedder> State<E> {
    pub(crate) fn wake_range(&mut self, select: Select, range: PageRange) -> Woken {
        let from = Place { page: range.start(), arrival: 0 };
        self.wake_from(select, from, range.end(), self.arrivals)
    }

    fn wake_from(&mut self, select: Select, from: Place, end: Page, before: u64) -> Woken {
        let mut woken = Woken::default();
        let mut at = from;
        while let Some((place, id)) = self.sleepers.ceiling(at).filter(|(place, _)| place.page < end) {
            if place.arrival >= before {
                at = Place { page: place.page.next(), arrival: 0 };
                continue;
            }
            at = Place { arrival: place.arrival.wrapping_add(1), ..place };
            if !self.is_selected(select, id) {
                continue;
            }
            if woken.is_full() {
                woken.rest = Some(Rest(RestOf::Range { select, from: place, end, before }));
                break;
            }
            let phase = if select == Select::Everybody { Phase::Released } else { Phase::Woken };
            self.release_sleeper(id, phase);
            woken.push(place.arrival, id);
        }
        woken
    }

    /// Wakes every announced sleeper that the context has now; released with its last one, the
    /// context is gone.
    pub(crate) fn wake_context(&mut self, context: ContextId, phase: Phase) -> Woken {
        let left = self.contexts.get(context.0).map_or(0, |context| context.sleepers());
        self.wake_queued(context, left, phase)
    }

    fn wake_queued(&mut self, context: ContextId, mut left: u64, phase: Phase) -> Woken {
        let mut woken = Woken::default();
        while left > 0 {
            // The read ones are older: reading takes the oldest first.
            let read = self.queue_head(context, Phase::Read);
            let Some(id) = read.or_else(|| self.queue_head(context, Phase::Unread)) else { break };
            if woken.is_full() {
                woken.rest = Some(Rest(RestOf::Context { context, left, phase }));
                break;
            }
            let arrival = self.waiters.get(id.0).map_or(0, |waiter| waiter.place.arrival);
            self.release_sleeper(id, phase);
            woken.push(arrival, id);
            left = left.saturating_sub(1);
        }
        if phase == Phase::Released && woken.rest.is_none() {
            let _context = self.contexts.remove(context.0);
        }
        woken
    }

    fn is_selected(&self, select: Select, id: WaiterId) -> bool {
        let Some(waiter) = self.waiters.get(id.0) else { return false };
        match select {
            Select::Announced { context, unread } => {
                waiter.context == context && (waiter.phase == Phase::Read || (unread && waiter.phase == Phase::Unread))
            }
            Select::Quiet => waiter.phase == Phase::Quiet,
            Select::Everybody => waiter.phase.is_asleep(),
        }
    }
}
