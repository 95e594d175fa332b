//! Setting and lifting write protection.
//!
//! Works mapping by mapping in address order and has no result word: what comes before the first
//! mapping that cannot be protected stays changed (`m/writeprotect/partial`).
//!
//! Kernel counterpart: `UFFDIO_WRITEPROTECT`.

use userfault_abi::{RegisterModes, WriteprotectModes};

use crate::addr::PageRange;
use crate::context::ContextId;
use crate::fill::{Action, FillError, FillStop, Filling, Kind, Wake, is_lift};
use crate::host::{Embedder, Lock};
use crate::page::PageState;
use crate::registration::Mapping;
use crate::space::{AddressSpace, State};

pub(super) const fn protect(state: PageState, unpopulated: bool) -> Action {
    match state {
        PageState::Present => Action::Claim { through: PageState::Changing, to: PageState::WriteProtected },
        PageState::Missing if unpopulated => Action::Mark(PageState::MissingProtected),
        PageState::Missing | PageState::MissingProtected | PageState::WriteProtected | PageState::Poisoned => {
            Action::Skip
        }
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}

pub(super) const fn unprotect(state: PageState) -> Action {
    match state {
        PageState::WriteProtected => Action::Claim { through: PageState::Changing, to: PageState::Present },
        PageState::MissingProtected => Action::Mark(PageState::Missing),
        PageState::Missing | PageState::Present | PageState::Poisoned => Action::Skip,
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Begins to set (`WP`) or lift write protection of what is mapped in `range`; holes are skipped.
    ///
    /// `mappings` as for [`register`](Self::register).
    ///
    /// # Errors
    ///
    /// [`FillError::NotEnabled`], [`FillError::BadModes`]; [`FillError::NotOneMapping`] if nothing in
    /// the range can be changed at all.
    pub fn writeprotect(
        &self,
        context: ContextId,
        range: PageRange,
        modes: WriteprotectModes,
        mappings: &[Mapping],
    ) -> Result<Filling, FillError> {
        self.state.with(|state| state.check_writeprotect(context, range, modes, mappings))
    }

    /// Begins to lift write protection that nobody asks for any more: the answer to
    /// [`Verdict::Unprotect`](crate::Verdict::Unprotect).
    pub fn unprotect(&self, range: PageRange) -> Filling {
        Filling::new(Kind::Unprotect, None, range)
    }
}

impl<E: Embedder> State<E> {
    fn check_writeprotect(
        &self,
        id: ContextId,
        range: PageRange,
        modes: WriteprotectModes,
        mappings: &[Mapping],
    ) -> Result<Filling, FillError> {
        let context = self.contexts.get(id.0).ok_or(FillError::NotEnabled)?;
        let known = context.rules.modes.contains(RegisterModes::WP);
        if !known || (context.rules.handshake_first && !context.is_running()) {
            return Err(FillError::NotEnabled);
        }
        if !modes.unknown().is_empty() || modes.contains(WriteprotectModes::WP | WriteprotectModes::DONTWAKE) {
            return Err(FillError::BadModes);
        }
        if self.is_gone {
            return Err(FillError::Gone);
        }
        let mut mapped = mappings.iter().filter_map(|mapping| range.intersect(mapping.range)).peekable();
        if mapped.peek().is_none() {
            return Err(FillError::NotOneMapping);
        }
        let unprotectable = mapped.find_map(|part| self.first_unprotectable(part));
        let doable = unprotectable.map_or(Some(range), |stop| range.until(stop)).ok_or(FillError::NotOneMapping)?;
        let lift = is_lift(modes);
        // Whether missing pages are marked depends on each range's owner: `next` asks.
        let kind = if lift { Kind::Unprotect } else { Kind::Protect { unpopulated: false } };
        let wake = if lift && !modes.contains(WriteprotectModes::DONTWAKE) { Wake::Whole } else { Wake::Nobody };
        let stop_at_end = unprotectable.map(|_| FillStop::NotProtectable);
        Ok(Filling { wake, piece: None, stop_at_end, ..Filling::new(kind, Some(id), doable) })
    }

    /// The first page of `part` that is not registered for write protection.
    fn first_unprotectable(&self, part: PageRange) -> Option<crate::Page> {
        let mut left = Some(part);
        while let Some(rest) = left {
            match self.registrations.get(rest.start()) {
                Some((found, registration)) if registration.modes.contains(RegisterModes::WP) => {
                    left = rest.from(found.end());
                }
                Some(_) | None => return Some(rest.start()),
            }
        }
        None
    }
}
