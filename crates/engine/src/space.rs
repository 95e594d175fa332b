//! One address space: the lock, what it guards, and the page states beside it.
//!
//! There is one lock per address space, so that "busy", release and wake are atomic: of two contexts
//! racing for a range one gets it, and nobody sleeps on a context that has just gone. Page states
//! live outside the lock, in the embedder's storage.
//!
//! # What the embedder holds
//!
//! A fill, once begun, and a change of the layout (register, unregister, release, the hooks) must not
//! overlap: the embedder holds a readers-writer lock of its own, shared from `fill` to its end,
//! exclusively around changes of the layout. Faults, reads and wakes need none of it.
//!
//! Kernel counterpart: `mm_struct` with its `mmap_lock`.

use crate::addr::{Limits, Page};
use crate::context::{Context, ContextId, Rules};
use crate::host::{Embedder, Lock};
use crate::registration::Registration;
use crate::registration::interval::{Interval, IntervalMap};
use crate::tree::{Node, Tree};
use crate::wait::slots::{Slot, Slots, WaiterId};
use crate::wait::{Place, Waiter};

/// How many records of each kind there can be.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Threads asleep at a time.
    pub waiters: usize,
    /// Registered ranges after merging.
    pub registrations: usize,
    /// Open contexts.
    pub contexts: usize,
}

/// Everything that userfaultfd knows about one address space.
///
/// Example: [`crate`].
pub struct AddressSpace<E: Embedder> {
    pub(crate) state: E::Lock<State<E>>,
    pub(crate) pages: E::Pages,
    pub(crate) limits: Limits,
}

type Registrations<E> = IntervalMap<Registration, <E as Embedder>::Storage<Node<Page, Interval<Registration>>>>;

/// What the lock guards.
pub(crate) struct State<E: Embedder> {
    pub(crate) registrations: Registrations<E>,
    pub(crate) sleepers: Tree<Place, WaiterId, E::Storage<Node<Place, WaiterId>>>,
    pub(crate) waiters: Slots<Waiter, E::Storage<Slot<Waiter>>>,
    pub(crate) contexts: Slots<Context, E::Storage<Slot<Context>>>,
    /// How many sleepers have ever joined: the next one's arrival.
    pub(crate) arrivals: u64,
    /// The address space has ended; its contexts live on, referring to nothing (W29).
    pub(crate) is_gone: bool,
}

impl<E: Embedder> AddressSpace<E> {
    /// An address space without contexts, or `None` if the embedder has no storage for it.
    pub fn new(limits: Limits, pages: E::Pages, capacities: Capacities) -> Option<Self> {
        let state = State {
            registrations: IntervalMap::new(E::storage(capacities.registrations)?),
            sleepers: Tree::new(E::storage(capacities.waiters)?),
            waiters: Slots::new(E::storage(capacities.waiters)?),
            contexts: Slots::new(E::storage(capacities.contexts)?),
            arrivals: 0,
            is_gone: false,
        };
        Some(Self { state: E::Lock::new(state), pages, limits })
    }

    /// The shape of the address space.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Where page states are kept.
    pub const fn pages(&self) -> &E::Pages {
        &self.pages
    }

    /// Whether the calling thread holds the engine's lock ([`Lock::is_held_by_caller`]).
    pub fn is_locked_by_caller(&self) -> bool {
        self.state.is_held_by_caller()
    }

    /// How many threads sleep, quiet ones included.
    pub fn asleep(&self) -> usize {
        self.state.with(|state| state.sleepers.len())
    }

    /// How many slots for sleepers are in use: those asleep and those woken that have not left yet.
    pub fn slots_in_use(&self) -> usize {
        self.state.with(|state| state.waiters.used())
    }

    /// How many registered ranges there are after merging.
    pub fn registrations(&self) -> usize {
        self.state.with(|state| state.registrations.len())
    }
}

impl<E: Embedder> State<E> {
    pub(crate) fn rules(&self, context: ContextId) -> Option<Rules> {
        self.contexts.get(context.0).map(|context| context.rules)
    }
}
