//! POISON: every access to a missing page becomes a bus error.
//!
//! There is nothing for the embedder to bring: the page stays inaccessible.
//!
//! Kernel counterpart: `UFFDIO_POISON`.

use crate::fill::Action;
use crate::page::PageState;

pub(super) const fn action(state: PageState) -> Action {
    match state {
        PageState::Missing => Action::Mark(PageState::Poisoned),
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
