//! What the embedder tells the engine about its mappings.
//!
//! Without the events of later protocols nothing is reported to the monitor (W34); but nobody is left
//! asleep on memory that is gone.
//!
//! Kernel counterpart: the userfaultfd calls in munmap, mremap and fork.

use crate::addr::{Page, PageRange};
use crate::host::{Embedder, Lock};
use crate::registration::Registration;
use crate::space::AddressSpace;
use crate::wait::wake::{Select, Woken};

impl<E: Embedder> AddressSpace<E> {
    /// `range` was unmapped or mapped over: its registrations end, its sleepers retry.
    ///
    /// `None` if there is no room to cut a registration in two: nothing changed; the embedder refuses
    /// the unmapping.
    pub fn removed(&self, range: PageRange) -> Option<Woken> {
        self.state.with(|state| {
            if state.registrations.cost_of_clear(range) > state.registrations.room() {
                return None;
            }
            state.registrations.clear(range).ok()?;
            Some(state.wake_range(Select::Everybody, range))
        })
    }

    /// The address space ended, by exit or exec, while descriptors of its contexts live on.
    ///
    /// Its registrations end and its sleepers, if any thread is left to leave, retry. From now on calls
    /// answer that it is gone; nothing keeps its memory alive (W29).
    pub fn exited(&self) -> Woken {
        self.state.with(|state| {
            state.is_gone = true;
            while let Some((range, _)) = state.registrations.first_from(Page::new(0)) {
                // Clearing a whole interval takes no storage.
                if state.registrations.clear(range).is_err() {
                    break;
                }
            }
            let all = PageRange::new(Page::new(0), Page::new(u64::MAX));
            all.map_or_else(Woken::default, |all| state.wake_range(Select::Everybody, all))
        })
    }

    /// A mapping moved away from `from`. Without an event for it the registration does not go along:
    /// the same as [`removed`](Self::removed).
    pub fn moved(&self, from: PageRange) -> Option<Woken> {
        self.removed(from)
    }

    /// What a forked child must treat as unregistered: the first registered range at or after `from`.
    /// The parent is untouched.
    pub fn forked(&self, from: Page) -> Option<(PageRange, Registration)> {
        self.state.with(|state| state.registrations.first_from(from))
    }
}
