//! Registering a range.
//!
//! Checks, in the rules' order, then a price (how many records the change needs at most), then the
//! change: nothing is changed unless everything can be (W22).
//!
//! Kernel counterpart: `UFFDIO_REGISTER`.

use userfault_abi::{IoctlMask, RegisterModes};

use crate::addr::PageRange;
use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::registration::{Mapping, Registration};
use crate::space::{AddressSpace, State};

/// Why a range cannot be registered; nothing changed.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// No such context, or (modern) no handshake yet.
    NotEnabled,
    /// No mode, or one that the protocol or this memory does not have.
    BadModes,
    /// The address space has ended.
    Gone,
    /// Nothing is mapped in the range or anywhere above it.
    NothingAbove,
    /// Nothing is mapped in the range.
    NothingMapped,
    /// A mapping in the range is not private anonymous memory.
    WrongKind,
    /// Part of the range is registered with another context: this one (W28).
    Busy(ContextId),
    /// No room for another record.
    NoMemory,
}

impl<E: Embedder> AddressSpace<E> {
    /// Registers what is mapped in `range`.
    ///
    /// `mappings` holds, in address order, every mapping that overlaps the range; if none does, the
    /// first one above it, if there is one. The embedder keeps them stable during the call.
    ///
    /// Returns the ioctls that work on the range.
    ///
    /// # Errors
    ///
    /// One [`RegisterError`] per broken rule, tested in declaration order; of several mappings the
    /// first that offends decides, its kind before its owner.
    pub fn register(
        &self,
        context: ContextId,
        range: PageRange,
        modes: RegisterModes,
        mappings: &[Mapping],
    ) -> Result<IoctlMask, RegisterError> {
        self.state.with(|state| {
            let ioctls = state.check_register(context, range, modes, mappings)?;
            state.apply_register(context, range, modes, mappings)?;
            Ok(ioctls)
        })
    }

    /// Whether [`register`](Self::register) would succeed now; changes nothing.
    ///
    /// # Errors
    ///
    /// As `register`.
    pub fn registrable(
        &self,
        context: ContextId,
        range: PageRange,
        modes: RegisterModes,
        mappings: &[Mapping],
    ) -> Result<IoctlMask, RegisterError> {
        self.state.with(|state| state.check_register(context, range, modes, mappings))
    }
}

/// Calls `each` with the pieces of `range` that are mapped, with what they are registered as.
macro_rules! for_each_piece {
    ($state:ident, $range:expr, $mappings:expr, |$piece:ident, $held:ident, $mapping:ident| $body:block) => {
        for $mapping in $mappings {
            let mut left = $range.intersect($mapping.range);
            while let Some(part) = left {
                let (piece, $held) = match $state.registrations.first_in(part) {
                    Some((found, held)) => match part.until(found.start()) {
                        Some(gap) => (Some(gap), None),
                        None => (found.intersect(part), Some(held)),
                    },
                    None => (Some(part), None),
                };
                let Some($piece) = piece else { break };
                $body
                left = part.from($piece.end());
            }
        }
    };
}

impl<E: Embedder> State<E> {
    fn check_register(
        &self,
        id: ContextId,
        range: PageRange,
        modes: RegisterModes,
        mappings: &[Mapping],
    ) -> Result<IoctlMask, RegisterError> {
        let context = self.contexts.get(id.0).ok_or(RegisterError::NotEnabled)?;
        let rules = context.rules;
        if rules.handshake_first && !context.is_running() {
            return Err(RegisterError::NotEnabled);
        }
        if modes.is_empty() || !modes.difference(rules.modes).is_empty() {
            return Err(RegisterError::BadModes);
        }
        if self.is_gone {
            return Err(RegisterError::Gone);
        }
        let nothing =
            if rules.nothing_above_is_no_memory { RegisterError::NothingAbove } else { RegisterError::NothingMapped };
        let first = mappings.first().ok_or(nothing)?;
        if first.range.start() >= range.end() {
            return Err(RegisterError::NothingMapped);
        }
        for mapping in mappings {
            let Some(part) = range.intersect(mapping.range) else { continue };
            if !mapping.kind.takes(modes, &rules) {
                return Err(RegisterError::WrongKind);
            }
            if let Some(owner) = self.other_owner(id, part) {
                return Err(RegisterError::Busy(owner));
            }
        }
        let mut needed = 0_usize;
        for_each_piece!(self, range, mappings, |piece, held, mapping| {
            if wanted(id, modes, mapping, held, rules.modes_accumulate).is_some() {
                needed = needed.saturating_add(self.registrations.cost_of_set(piece));
            }
        });
        if needed > self.registrations.room() {
            return Err(RegisterError::NoMemory);
        }
        Ok(rules.range_ioctls(modes))
    }

    fn apply_register(
        &mut self,
        id: ContextId,
        range: PageRange,
        modes: RegisterModes,
        mappings: &[Mapping],
    ) -> Result<(), RegisterError> {
        let accumulate = self.rules(id).is_some_and(|rules| rules.modes_accumulate);
        for_each_piece!(self, range, mappings, |piece, held, mapping| {
            if let Some(registration) = wanted(id, modes, mapping, held, accumulate) {
                self.registrations.set(piece, registration).map_err(|_| RegisterError::NoMemory)?;
            }
        });
        Ok(())
    }

    /// The first context other than `id` that has a registration in `range`.
    pub(crate) fn other_owner(&self, id: ContextId, range: PageRange) -> Option<ContextId> {
        let mut left = Some(range);
        while let Some(part) = left {
            let (found, held) = self.registrations.first_in(part)?;
            if held.context != id {
                return Some(held.context);
            }
            left = part.from(found.end());
        }
        None
    }
}

/// What a piece is to be registered as, or `None` if it stays as it is.
fn wanted(
    context: ContextId,
    modes: RegisterModes,
    mapping: &Mapping,
    held: Option<Registration>,
    accumulate: bool,
) -> Option<Registration> {
    let old = held.map_or(RegisterModes::NONE, |held| held.modes);
    if held.is_some() && old.contains(modes) {
        return None;
    }
    // A superset is kept; anything else replaces (`m/register/again`) or adds (`o/register/accumulate`).
    let modes = if accumulate { old | modes } else { modes };
    Some(Registration { context, modes, tag: mapping.tag })
}
