//! Ending registrations.
//!
//! Kernel counterpart: `UFFDIO_UNREGISTER`.

use userfault_abi::RegisterModes;

use crate::addr::PageRange;
use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::registration::Mapping;
use crate::space::{AddressSpace, State};
use crate::wait::wake::{Select, Woken};

/// Why a range cannot be unregistered; nothing changed.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnregisterError {
    /// No such context, or (modern) no handshake yet.
    NotEnabled,
    /// The address space has ended.
    Gone,
    /// Nothing is mapped in the range or anywhere above it.
    NothingAbove,
    /// Nothing is mapped in the range.
    NothingMapped,
    /// A mapping in the range is of a kind that can never be registered (W25).
    WrongKind,
    /// Part of the range is registered with another context (W21).
    Foreign(ContextId),
    /// No room to cut a registration in two.
    NoMemory,
}

impl<E: Embedder> AddressSpace<E> {
    /// Unregisters what is mapped in `range`; unregistered parts are passed over.
    ///
    /// `mappings` as for [`register`](Self::register). The range's sleepers, read or not, are
    /// returned to be woken (W7). The embedder makes the pages plain memory before it unparks them.
    ///
    /// # Errors
    ///
    /// One [`UnregisterError`] per broken rule, tested in declaration order.
    pub fn unregister(
        &self,
        context: ContextId,
        range: PageRange,
        mappings: &[Mapping],
    ) -> Result<Woken, UnregisterError> {
        self.state.with(|state| state.unregister(context, range, mappings))
    }
}

impl<E: Embedder> State<E> {
    fn unregister(&mut self, id: ContextId, range: PageRange, mappings: &[Mapping]) -> Result<Woken, UnregisterError> {
        let context = self.contexts.get(id.0).ok_or(UnregisterError::NotEnabled)?;
        if context.rules.handshake_first && !context.is_running() {
            return Err(UnregisterError::NotEnabled);
        }
        if self.is_gone {
            return Err(UnregisterError::Gone);
        }
        let above = context.rules.nothing_above_is_no_memory;
        let nothing = if above { UnregisterError::NothingAbove } else { UnregisterError::NothingMapped };
        let first = mappings.first().ok_or(nothing)?;
        if first.range.start() >= range.end() {
            return Err(UnregisterError::NothingMapped);
        }
        for mapping in mappings {
            let Some(part) = range.intersect(mapping.range) else { continue };
            if !mapping.kind.takes(RegisterModes::MISSING, &context.rules) {
                return Err(UnregisterError::WrongKind);
            }
            if let Some(owner) = self.other_owner(id, part) {
                return Err(UnregisterError::Foreign(owner));
            }
        }
        if self.registrations.cost_of_clear(range) > self.registrations.room() {
            return Err(UnregisterError::NoMemory);
        }
        self.registrations.clear(range).map_err(|_| UnregisterError::NoMemory)?;
        Ok(self.wake_range(Select::Announced { context: id, unread: true }, range))
    }
}
