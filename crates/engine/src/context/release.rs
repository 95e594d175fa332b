//! The last reference goes.
//!
//! ```text
//! embedder: exclusive layout lock                 meanwhile
//!   begin_release       context is releasing      its faults: Retry, lock dropped (W31)
//!   release_range … ×n  one registration each;    …
//!                       the embedder makes its
//!                       pages plain memory
//!   finish_release      every sleeper is woken    retried accesses meet plain memory
//! embedder: lets go, unparks
//! ```
//!
//! Missing pages read as zeros afterwards: that is the protocol. Who does not want it keeps the
//! descriptor open (W32).
//!
//! Kernel counterpart: the release of the file behind a userfaultfd.

use crate::addr::{Page, PageRange};
use crate::context::{ContextId, Life};
use crate::host::{Embedder, Lock};
use crate::registration::Registration;
use crate::space::AddressSpace;
use crate::wait::Phase;
use crate::wait::wake::Woken;

/// A range that a context gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its pages.
    pub range: PageRange,
    /// How it was registered.
    pub registration: Registration,
}

impl<E: Embedder> AddressSpace<E> {
    /// Tells readers and pollers that they wait in vain (W17): what is queued can still be read, then
    /// reading ends with [`ReadError::ShutDown`](crate::ReadError::ShutDown), and poll reports a hang-up.
    /// The embedder wakes those that wait. Registrations and sleepers stay.
    pub fn shut_down(&self, context: ContextId) {
        self.state.with(|state| {
            if let Some(context) = state.contexts.get_mut(context.0) {
                context.is_shut_down = true;
            }
        });
    }

    /// From here on nobody joins this context's queues. `false` if there is no such context.
    pub fn begin_release(&self, context: ContextId) -> bool {
        self.state.with(|state| {
            let Some(context) = state.contexts.get_mut(context.0) else { return false };
            context.life = Life::Releasing;
            true
        })
    }

    /// Removes one of the context's registrations, the first at or after `from`; other contexts' are
    /// passed over. `None` when none is left.
    pub fn release_range(&self, context: ContextId, from: Page) -> Option<Released> {
        self.state.with(|state| {
            let mut at = from;
            while let Some((range, registration)) = state.registrations.first_from(at) {
                if registration.context == context {
                    // Clearing a whole interval takes no storage.
                    state.registrations.clear(range).ok()?;
                    return Some(Released { range, registration });
                }
                at = range.end();
            }
            None
        })
    }

    /// Ends the context: every announced sleeper is woken, its name is never valid again once all
    /// batches were taken.
    pub fn finish_release(&self, context: ContextId) -> Woken {
        self.state.with(|state| {
            let woken = state.wake_context(context, Phase::Released);
            if woken.rest.is_none() {
                let _context = state.contexts.remove(context.0);
            }
            woken
        })
    }
}
