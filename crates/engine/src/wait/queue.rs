//! Joining and leaving the queues of a context.
//!
//! A context has two: *unread*, in order of arrival, and *read*. Both are doubly linked through the
//! waiters, so joining, reading and leaving cost the same however many wait (W8).
//!
//! Kernel counterpart: `fault_pending_wqh` (unread) and `fault_wqh` (read).

use crate::addr::Page;
use crate::context::{Context, ContextId};
use crate::host::Embedder;
use crate::space::State;
use crate::tree::Full;
use crate::wait::slots::{Links, NIL, SlotId, WaiterId};
use crate::wait::{Phase, Place, Waiter};

/// Ends and length of one queue, by slot index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }
}

impl<E: Embedder> State<E> {
    /// Files a waiter; `waiter.place.arrival` is set here.
    pub(crate) fn join(&mut self, page: Page, mut waiter: Waiter) -> Result<WaiterId, Full> {
        if self.sleepers.room() == 0 {
            return Err(Full);
        }
        waiter.place = Place { page, arrival: self.arrivals };
        let id = WaiterId(self.waiters.add(waiter)?);
        self.arrivals = self.arrivals.wrapping_add(1);
        self.sleepers.insert(waiter.place, id)?;
        self.append(id);
        Ok(id)
    }

    /// Marks a sleeper as free to go and takes it out of every queue.
    pub(crate) fn release_sleeper(&mut self, id: WaiterId, phase: Phase) {
        self.detach(id);
        if let Some(waiter) = self.waiters.get_mut(id.0) {
            waiter.phase = phase;
        }
    }

    /// Takes a sleeper out of the by-page index and its context's queue; its slot stays.
    pub(crate) fn detach(&mut self, id: WaiterId) {
        self.unlink(id);
        if let Some(waiter) = self.waiters.get(id.0) {
            let _found = self.sleepers.remove(waiter.place);
        }
    }

    /// Moves a sleeper from one of its context's queues to the end of the other.
    pub(crate) fn requeue(&mut self, id: WaiterId, phase: Phase) {
        self.unlink(id);
        if let Some(waiter) = self.waiters.get_mut(id.0) {
            waiter.phase = phase;
        }
        self.append(id);
    }

    /// Puts a read sleeper back among the unread ones, at its old place by arrival (W14).
    pub(crate) fn unread_again(&mut self, id: WaiterId) {
        let Some(waiter) = self.waiters.get(id.0).copied().filter(|waiter| waiter.phase == Phase::Read) else {
            return;
        };
        self.unlink(id);
        if let Some(waiter) = self.waiters.get_mut(id.0) {
            waiter.phase = Phase::Unread;
        }
        // Only words given back at the same time can be older: a short walk from the head.
        let mut next = self.contexts.get(waiter.context.0).map_or(NIL, |context| context.unread.head);
        while let Some(other) = self.waiter_at(next).filter(|other| other.place.arrival < waiter.place.arrival) {
            next = other.links.next;
        }
        self.link_before(id, next);
    }

    pub(crate) fn queue_head(&self, context: ContextId, phase: Phase) -> Option<WaiterId> {
        let context = self.contexts.get(context.0)?;
        let queue = if phase == Phase::Read { context.read } else { context.unread };
        self.waiters.id_at(queue.head).map(WaiterId)
    }

    fn append(&mut self, id: WaiterId) {
        self.link_before(id, NIL);
    }

    fn link_before(&mut self, id: WaiterId, next: u32) {
        let Some(waiter) = self.waiters.get(id.0).copied() else { return };
        let Some(queue) = self.queue_mut(&waiter) else { return };
        queue.len = queue.len.saturating_add(1);
        let old_tail = queue.tail;
        if next == NIL {
            queue.tail = id.0.index;
        }
        let previous =
            if next == NIL { old_tail } else { self.waiter_at(next).map_or(NIL, |next| next.links.previous) };
        if previous == NIL
            && let Some(queue) = self.queue_mut(&waiter)
        {
            queue.head = id.0.index;
        }
        self.edit_links(previous, |links| links.next = id.0.index);
        self.edit_links(next, |links| links.previous = id.0.index);
        self.edit_links(id.0.index, |links| *links = Links { previous, next });
    }

    fn unlink(&mut self, id: WaiterId) {
        let Some(waiter) = self.waiters.get(id.0).copied() else { return };
        let Links { previous, next } = waiter.links;
        let Some(queue) = self.queue_mut(&waiter) else { return };
        queue.len = queue.len.saturating_sub(1);
        if previous == NIL {
            queue.head = next;
        }
        if next == NIL {
            queue.tail = previous;
        }
        self.edit_links(previous, |links| links.next = next);
        self.edit_links(next, |links| links.previous = previous);
        self.edit_links(id.0.index, |links| *links = Links::default());
    }

    fn queue_mut(&mut self, waiter: &Waiter) -> Option<&mut Queue> {
        let context: &mut Context = self.contexts.get_mut(waiter.context.0)?;
        match waiter.phase {
            Phase::Unread => Some(&mut context.unread),
            Phase::Read => Some(&mut context.read),
            Phase::Quiet | Phase::Woken | Phase::Released => None,
        }
    }

    fn slot_at(&self, index: u32) -> Option<SlotId> {
        self.waiters.id_at(index)
    }

    fn waiter_at(&self, index: u32) -> Option<&Waiter> {
        self.waiters.get(self.slot_at(index)?)
    }

    fn edit_links(&mut self, index: u32, change: impl FnOnce(&mut Links)) {
        let Some(id) = self.slot_at(index) else { return };
        if let Some(waiter) = self.waiters.get_mut(id) {
            change(&mut waiter.links);
        }
    }
}
