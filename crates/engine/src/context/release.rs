//! The last reference goes.
//!
//! ```text
//! embedder: exclusive layout lock                 meanwhile
//!   begin_release       context is releasing      its faults: Retry, lock dropped (W31)
//!   release_range … ×n  one registration each;    still Retry: it stays until all are plain
//!                       the embedder makes its
//!                       pages plain memory
//!   finish_release      registrations end, every  retried accesses meet plain memory
//!                       sleeper is woken
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
use crate::space::{AddressSpace, State};
use crate::wait::Phase;
use crate::wait::wake::Woken;

/// A range that a context gave up.
///
/// Example: [`crate`].
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

    /// One of the context's registrations, the first at or after `from`; other contexts' are passed
    /// over. `None` when none is left. Go on from the end of its range: nothing changes here.
    ///
    /// It ends with [`finish_release`](Self::finish_release) only: a fault that comes before its pages
    /// are plain memory must be told to retry, not that nobody knows it.
    pub fn release_range(&self, context: ContextId, from: Page) -> Option<Released> {
        self.state.with(|state| {
            let (range, registration) = state.registration_of(context, from)?;
            Some(Released { range, registration })
        })
    }

    /// Ends the context and its registrations: every announced sleeper is woken, its name is never
    /// valid again once all batches were taken, be it here or by [`wake_rest`](Self::wake_rest).
    pub fn finish_release(&self, context: ContextId) -> Woken {
        self.state.with(|state| {
            let mut from = Page::new(0);
            while let Some((range, _)) = state.registration_of(context, from) {
                // A whole interval: clearing it takes no storage.
                let _cleared = state.registrations.clear(range);
                from = range.end();
            }
            state.wake_context(context, Phase::Released)
        })
    }
}

impl<E: Embedder> State<E> {
    fn registration_of(&self, context: ContextId, from: Page) -> Option<(PageRange, Registration)> {
        let mut at = from;
        while let Some((range, registration)) = self.registrations.first_from(at) {
            if registration.context == context {
                return Some((range, registration));
            }
            at = range.end();
        }
        None
    }
}
