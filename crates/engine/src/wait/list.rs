//! Listing who sleeps, for a report: values, a bounded batch at a time.
//!
//! A batch looks at [`BATCH`] slots under the lock, however many sleep. A listing of several batches is not a
//! moment: who falls asleep or leaves in between may be in it or not, once. The clock is the embedder's, who
//! can keep what it likes beside a waiter's index.
//!
//! Kernel counterpart: none; the counts of `fdinfo` are all there is to see.

use userfault_abi::PagefaultFlags;

use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::space::{AddressSpace, State};
use crate::wait::Phase;
use crate::wait::slots::WaiterId;

const BATCH: u32 = 32;

/// What has become of a sleeper's message.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// Nobody has read it yet.
    Unread,
    /// It was read; the answer is still to come.
    Read,
    /// There is none: a change in progress ends by itself, and the sleep with it.
    Nobody,
}

/// A thread asleep, as it was when it was looked at.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Its name.
    pub waiter: WaiterId,
    /// Whose monitor answers it; nobody's for [`Told::Nobody`].
    pub context: Option<ContextId>,
    /// The byte it touched; the first of the page for [`Told::Nobody`].
    pub address: u64,
    /// What it wants.
    pub flags: PagefaultFlags,
    /// The thread's id as the access said it; 0 if it did not.
    pub thread: u32,
    /// Its message.
    pub told: Told,
}

/// Some of the sleepers, and how to go on.
///
/// Example: [`crate`].
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Sleepers {
    found: [Option<Sleeper>; BATCH as usize],
    /// Where the next batch begins; `None` after the last.
    pub next: Option<u32>,
}

impl Sleepers {
    /// Those that were found.
    pub fn iter(&self) -> impl Iterator<Item = &Sleeper> {
        self.found.iter().flatten()
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Sleepers of every context, by slot, from slot `from` on: 0, then each answer's `next`.
    pub fn sleepers(&self, from: u32) -> Sleepers {
        let page_shift = self.limits.page_shift;
        self.state.with(|state| {
            let until = from.saturating_add(BATCH);
            let mut found = [None; BATCH as usize];
            for (found, index) in found.iter_mut().zip(from..until) {
                *found = state.sleeper_at(index, page_shift);
            }
            Sleepers { found, next: (until < state.waiters.ever_used()).then_some(until) }
        })
    }
}

impl<E: Embedder> State<E> {
    fn sleeper_at(&self, index: u32, page_shift: u32) -> Option<Sleeper> {
        let id = self.waiters.id_at(index)?;
        let waiter = self.waiters.get(id)?;
        let told = match waiter.phase {
            Phase::Quiet => Told::Nobody,
            Phase::Unread => Told::Unread,
            Phase::Read => Told::Read,
            Phase::Woken | Phase::Released => return None,
        };
        let is_quiet = told == Told::Nobody;
        Some(Sleeper {
            waiter: WaiterId(id),
            context: (!is_quiet).then_some(waiter.context),
            address: if is_quiet { waiter.place.page.number().wrapping_shl(page_shift) } else { waiter.address },
            flags: waiter.flags,
            thread: waiter.thread,
            told,
        })
    }
}
