//! COPY: bytes of the caller's, over a missing page or a marker.
//!
//! Kernel counterpart: `UFFDIO_COPY`.

use crate::fill::Action;
use crate::page::PageState;

pub(super) const fn action(state: PageState, protect: bool) -> Action {
    match state {
        PageState::Missing | PageState::MissingProtected | PageState::Poisoned => {
            let to = if protect { PageState::WriteProtected } else { PageState::Present };
            Action::Claim { through: state.filling(), to }
        }
        PageState::Present | PageState::WriteProtected => Action::ExistsUnlessUnreadable,
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}
