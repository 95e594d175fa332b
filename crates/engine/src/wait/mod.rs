//! Who sleeps on what, and who must wake.
//!
//! A thread that cannot go on *joins*: it gets a slot, a place in the by-page index and, if a monitor
//! is to hear of it, a place in its context's unread queue. It leaves only for a named reason. Its
//! name is an index plus a generation, so a wake that arrives after the slot was reused is ignored
//! instead of waking a stranger.
//!
//! Sleepers are *announced* (unread, then read: a message tells the monitor) or *quiet* (the page is
//! in the middle of a change that ends by itself).
//!
//! # Ordering
//!
//! Torvalds' review of the original design asked why a look at the queue cannot miss a thread about
//! to sleep. Here is the reason, step by step.
//!
//! ```text
//! faulting thread                          who fills the page
//! J1  join, under the lock                 C0  lift the protection
//! J2  read the page state (acquire)        C1  page := Present (release)
//! J3  absent: park · else leave, retry     C2  look for sleepers, under the lock; unpark them
//! ```
//!
//! 1. J1 before C2 in the lock's order: C2 finds the sleeper, marks it woken and unparks it. An unpark
//!    that comes before J3 is not lost: parking re-checks the mark (`leave(Why::Check)`) after it has
//!    read the word that the unpark changes.
//! 2. C2 before J1: C1 precedes C2, and the lock that C2 released is acquired by J1, so J2 reads
//!    `Present` (or something later), and J3 leaves.
//! 3. C0 before C1: whoever reads `Present` retries the access at once; were the protection not
//!    lifted yet, it would fault again and again until it is.
//! 4. Quiet sleepers: the same table with J2 reading "still claimed" and C1 storing the settled
//!    state. Every commit and every abort performs C2 for the quiet sleepers of its pages.
//! 5. Slots: a slot is freed, and its generation bumped, only by its own sleeper's `leave`. A waker
//!    holds ids it collected under the lock; an unpark is only a hint to check the mark, so a late
//!    one costs a spurious check and nothing else.
//!
//! Original mode skips unread sleepers at C2 on purpose (W2); they leave by a read and a later wake.
//! Each step is checked by `tests/loom.rs`, and for each there is a patch under `testing/mutants/`
//! that removes it and that loom kills. Steps that are the embedder's (C0, the bytes, the park word, the
//! orderings of the page-state byte, draining before popping) are done there by a double of it, and
//! their patches change the double: they show that the contract is needed, not that a host keeps it.
//!
//! Kernel counterpart: `fault_pending_wqh` and `fault_wqh`.

pub(crate) mod list;
pub(crate) mod queue;
pub(crate) mod slots;
pub(crate) mod wake;

use userfault_abi::PagefaultFlags;

use crate::addr::Page;
use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::space::{AddressSpace, State};
use slots::{Links, WaiterId};

/// Where a sleeper stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for a change in progress; nobody is told.
    #[default]
    Quiet,
    /// Its message was not read yet.
    Unread,
    /// Its message was read; it sleeps on.
    Read,
    /// May go: its page was answered, or somebody asked it to look again.
    Woken,
    /// May go: its registration or its context is gone.
    Released,
}

impl Phase {
    pub(crate) const fn is_asleep(self) -> bool {
        matches!(self, Self::Quiet | Self::Unread | Self::Read)
    }
}

/// A sleeping thread's record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiter {
    pub(crate) phase: Phase,
    pub(crate) context: ContextId,
    pub(crate) place: Place,
    pub(crate) address: u64,
    pub(crate) flags: PagefaultFlags,
    pub(crate) thread: u32,
    pub(crate) links: Links,
}

/// The key of the by-page index: pages ascending, within a page oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) page: Page,
    pub(crate) arrival: u64,
}

/// Why a parked thread asks to leave.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was unparked, or is about to park: may it go?
    Check,
    /// A signal with a handler; the access is repeated afterwards.
    Interrupted,
    /// It will never run again.
    Killed,
}

/// What [`AddressSpace::leave`] decided. In every case but `Asleep` the slot is free again.
///
/// Example: [`crate`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Not woken: park again.
    Asleep,
    /// Woken; retry the access.
    Woken,
    /// The registration or the context ended; retry the access.
    Released,
    /// Left by itself; its message, read or not, is forgotten. Retry the access.
    Interrupted,
    /// No sleeper has this name (any more).
    Stale,
}

impl<E: Embedder> AddressSpace<E> {
    /// A parked (or about to be parked) thread asks whether it may go, or goes.
    ///
    /// # Ordering
    ///
    /// The caller reads its park word *before* this call and parks only if the word still has that
    /// value afterwards; an unpark changes the word after the mark was set. So none is lost.
    pub fn leave(&self, waiter: WaiterId, why: Why) -> Left {
        self.state.with(|state| state.leave(waiter, why))
    }
}

impl<E: Embedder> State<E> {
    pub(crate) fn leave(&mut self, id: WaiterId, why: Why) -> Left {
        let Some(waiter) = self.waiters.get(id.0) else { return Left::Stale };
        let left = match (waiter.phase, why) {
            (Phase::Quiet | Phase::Unread | Phase::Read, Why::Check) => return Left::Asleep,
            (Phase::Quiet | Phase::Unread | Phase::Read, Why::Interrupted | Why::Killed) => {
                self.detach(id);
                Left::Interrupted
            }
            (Phase::Woken, _) => Left::Woken,
            (Phase::Released, _) => Left::Released,
        };
        let _slot = self.waiters.remove(id.0);
        left
    }
}
