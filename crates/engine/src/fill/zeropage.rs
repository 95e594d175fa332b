//! ZEROPAGE: zeros, over a missing page only.
//!
//! Kernel counterpart: `UFFDIO_ZEROPAGE`.

use crate::fill::Action;
use crate::page::PageState;

pub(super) const fn action(state: PageState) -> Action {
    match state {
        PageState::Missing => Action::Claim { through: state.filling(), to: PageState::Present },
        PageState::MissingProtected | PageState::Poisoned | PageState::Present | PageState::WriteProtected => {
            Action::Exists
        }
        PageState::Filling
        | PageState::FillingProtected
        | PageState::FillingPoisoned
        | PageState::Changing
        | PageState::Installing => Action::Busy,
    }
}
