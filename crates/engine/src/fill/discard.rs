//! Giving contents back: the page is missing again, whatever it was.
//!
//! The mirror image of a fill: the state leaves `Present` before the embedder takes the access away,
//! and says `Missing` only when nobody can reach the page any more.
//!
//! Kernel counterpart: `MADV_DONTNEED` on registered memory.

use crate::addr::PageRange;
use crate::fill::{Action, Filling, Kind};
use crate::host::Embedder;
use crate::page::PageState;
use crate::space::AddressSpace;

pub(super) const fn action(state: PageState) -> Action {
    match state {
        PageState::Present | PageState::WriteProtected => {
            Action::Claim { through: PageState::Changing, to: PageState::Missing }
        }
        PageState::MissingProtected | PageState::Poisoned => Action::Mark(PageState::Missing),
        PageState::Missing => Action::Skip,
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Begins to discard the contents of `range`.
    pub fn discard(&self, range: PageRange) -> Filling {
        Filling::new(Kind::Discard, None, range)
    }
}
