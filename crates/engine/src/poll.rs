//! What poll answers.
//!
//! Readiness is a hint: another reader, a signal or (modern) a wake may come first (W4).
//!
//! Kernel counterpart: `poll(2)` on a userfaultfd.

use userfault_abi::PollEvents;

use crate::context::{Api, ContextId};
use crate::host::{Embedder, Lock};
use crate::space::AddressSpace;

impl<E: Embedder> AddressSpace<E> {
    /// The events that are set now; `nonblocking` is the descriptor's flag at this moment.
    ///
    /// After release, or once shut down, it is a hang-up (W17).
    pub fn poll(&self, context: ContextId, nonblocking: bool) -> PollEvents {
        self.state.with(|state| {
            let Some(context) = state.contexts.get(context.0) else { return PollEvents::HUP };
            if context.api != Api::Running || (context.rules.poll_needs_nonblocking && !nonblocking) {
                return PollEvents::ERR;
            }
            let hang_up = if context.is_shut_down { PollEvents::HUP } else { PollEvents::NONE };
            if context.unread.len > 0 { PollEvents::IN | hang_up } else { hang_up }
        })
    }
}
