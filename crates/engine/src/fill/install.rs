//! The embedder's own installation of pages, which wakes no announced sleeper.
//!
//! The original protocol has no fill: its pages come this way, followed by a WAKE. It also serves
//! memory that is registered but not for missing pages, which gets zeros without anybody being asked.
//!
//! Kernel counterpart: an ordinary fault that maps a page.

use crate::addr::PageRange;
use crate::fill::{Action, Filling, Kind};
use crate::host::Embedder;
use crate::page::PageState;
use crate::space::AddressSpace;

pub(super) const fn action(state: PageState) -> Action {
    match state {
        PageState::Missing => Action::Claim { through: PageState::Installing, to: PageState::Present },
        PageState::MissingProtected => Action::Claim { through: PageState::Installing, to: PageState::WriteProtected },
        PageState::Poisoned | PageState::Present | PageState::WriteProtected => Action::Exists,
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Begins to install missing pages; a page with contents stops it.
    ///
    /// Registered or not: it is the embedder who knows whether it keeps states of pages that nobody has
    /// registered, and whether a missing one of these is missing.
    pub fn install(&self, range: PageRange) -> Filling {
        Filling::new(Kind::Install, None, range)
    }
}
