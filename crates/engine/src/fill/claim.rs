//! Claims: exclusive pieces of work on pages.
//!
//! Kernel counterpart: the page-table lock held while a page is installed.

use userfault_abi::Features;

use crate::addr::{Page, PageRange};
use crate::context::ContextId;
use crate::fill::{Action, Cause, FillStop, Filling, Kind, Wake};
use crate::host::{Embedder, Lock, Pages};
use crate::page::PageState;
use crate::space::AddressSpace;
use crate::wait::wake::{Select, Woken};

/// Pages that the holder alone may work on. Neither `Clone` nor constructible elsewhere.
///
/// Example: [`crate`].
#[must_use = "commit or abort it: others wait for these pages"]
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    range: PageRange,
    from: PageState,
    through: PageState,
    to: PageState,
}

/// What a [`Filling`] needs next.
///
/// Example: [`crate`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Do the work on these pages, then commit or abort.
    Write(Claim),
    /// Say whether the source of this page can be read: [`AddressSpace::source_checked`].
    CheckSource(Page),
    /// Somebody else has claimed this page: wait with [`AddressSpace::await_page`], then go on.
    Busy(Page),
    /// Nothing more to do.
    End(End),
}

/// How a fill ended. Write the answer first, then wake.
///
/// Example: [`crate`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Pages done, counted from the first.
    pub pages_done: u64,
    /// Why the next page was not done.
    pub stop: Option<FillStop>,
    /// Whose sleepers to wake, where.
    pub wake: Option<(ContextId, PageRange)>,
}

impl Claim {
    /// The claimed pages.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        self.range
    }

    /// What they are now, for everybody else.
    #[must_use]
    pub const fn was(&self) -> PageState {
        self.from
    }

    /// What they become by a commit.
    #[must_use]
    pub const fn becomes(&self) -> PageState {
        self.to
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Claims the next pages: at most `most` of them, all in the same state.
    ///
    /// No lock is held in between; a claim is one compare-exchange a page.
    pub fn next(&self, filling: &mut Filling, most: u64) -> Step {
        loop {
            let Some(piece) = self.piece(filling) else { return Step::End(filling.end()) };
            let page = piece.start();
            let state = self.pages.get(page);
            match filling.kind.action(state) {
                Action::Skip => filling.pass(page.next()),
                Action::Mark(to) => {
                    if self.pages.swap(page, state, to).is_ok() {
                        filling.pass(page.next());
                    }
                }
                Action::Busy => return Step::Busy(page),
                Action::ExistsUnlessUnreadable if !filling.source_checked => return Step::CheckSource(page),
                Action::Exists | Action::ExistsUnlessUnreadable => filling.stop = Some(FillStop::Exists),
                Action::Claim { through, to } => {
                    let Some(range) = self.claim_run(piece, most, state, through) else { continue };
                    filling.pass(range.end());
                    return Step::Write(Claim { range, from: state, through, to });
                }
            }
        }
    }

    /// Claims pages from the start of `piece` on, as long as they are in state `from`.
    fn claim_run(&self, piece: PageRange, most: u64, from: PageState, through: PageState) -> Option<PageRange> {
        let mut end = piece.start();
        let limit = piece.first(most.max(1))?.end();
        while end < limit && self.pages.swap(end, from, through).is_ok() {
            end = end.next();
        }
        PageRange::new(piece.start(), end)
    }

    /// The pages that may be worked on next without crossing a hole.
    fn piece(&self, filling: &mut Filling) -> Option<PageRange> {
        if filling.stop.is_some() {
            return None;
        }
        let rest = filling.range.from(filling.at)?;
        if let Some(piece) = filling.piece.and_then(|piece| piece.from(filling.at)) {
            return Some(piece);
        }
        let found = self.state.with(|state| {
            let (found, registration) = state.registrations.first_in(rest)?;
            let owner = state.contexts.get(registration.context.0);
            Some((found, owner.is_some_and(|owner| owner.features.contains(Features::WP_UNPOPULATED))))
        });
        let piece = found.and_then(|(found, unpopulated)| Some((found.intersect(rest)?, unpopulated)));
        let Some((piece, unpopulated)) = piece else {
            // Only a hole is left.
            filling.at = filling.range.end();
            return None;
        };
        if filling.kind == (Kind::Protect { unpopulated: !unpopulated }) {
            // Whose range it is decides, not who calls.
            filling.kind = Kind::Protect { unpopulated };
        }
        filling.at = piece.start();
        filling.piece = Some(piece);
        Some(piece)
    }

    /// Answers [`Step::CheckSource`].
    pub fn source_checked(&self, filling: &mut Filling, readable: bool) {
        filling.source_checked = readable;
        if !readable {
            filling.stop = Some(FillStop::SourceUnreadable);
        }
    }

    /// The work is done and the pages are accessible as [`Claim::becomes`] says (C0): settles them.
    pub fn commit(&self, filling: &mut Filling, claim: Claim) -> Woken {
        let pages = claim.range.pages();
        self.commit_first(filling, claim, pages, Cause::NoMemory)
    }

    /// The first `pages` pages are done, the others were not touched because of `cause`.
    pub fn commit_first(&self, filling: &mut Filling, claim: Claim, pages: u64, cause: Cause) -> Woken {
        let Claim { range, from, through, to } = claim;
        let done_until = range.first(pages).map_or(range.start(), PageRange::end);
        let mut page = range.start();
        while page < range.end() {
            let settled = if page < done_until { to } else { from }; // C1
            let swapped = self.pages.swap(page, through, settled);
            debug_assert!(swapped.is_ok(), "only the claimer moves a claimed page (page.rs, invariant 2)");
            page = page.next();
        }
        if done_until < range.end() {
            filling.at = done_until;
            filling.stop = Some(match cause {
                Cause::SourceUnreadable => FillStop::SourceUnreadable,
                Cause::NoMemory => FillStop::NoMemory,
            });
        }
        self.state.with(|state| state.wake_range(Select::Quiet, range)) // C2, for the quiet ones
    }

    /// Nothing was done: the pages are as before, and the fill ends because of `cause`.
    pub fn abort(&self, filling: &mut Filling, claim: Claim, cause: Cause) -> Woken {
        self.commit_first(filling, claim, 0, cause)
    }
}

impl Filling {
    fn pass(&mut self, next: Page) {
        self.at = next;
        self.source_checked = false;
    }

    fn end(&self) -> End {
        let done = PageRange::new(self.range.start(), self.at);
        let stop = self.stop.or(self.stop_at_end);
        let woken = match self.wake {
            Wake::Nobody => None,
            Wake::Done => done,
            Wake::Whole => {
                if stop.is_none() {
                    Some(self.range)
                } else {
                    None
                }
            }
        };
        End { pages_done: done.map_or(0, PageRange::pages), stop, wake: self.context.zip(woken) }
    }
}
