//! Installing pages and changing them: claim → work by the embedder → commit or abort.
//!
//! ```text
//! fill / writeprotect / install / discard      checks, under the lock        -> Filling
//!   next                                       claims a run of pages         -> Step::Write(Claim)
//!     the embedder brings the bytes, then makes the pages accessible (C0)
//!   commit | commit_first | abort              settles their state (C1)      -> quiet sleepers (C2)
//!   next …                                     until                         -> Step::End
//! the embedder writes the answer, then
//!   wake                                       announced sleepers (C2)
//! ```
//!
//! Only the claimer may lift a page's protection, so a page is never half visible and never filled
//! twice; whoever meets a claimed page waits for it, since the claim may yet be aborted.
//!
//! # Invariants
//!
//! 1. A `Filling` has at most one claim out at a time.
//! 2. `at` is the first page not done, apart from an outstanding claim.
//!
//! Kernel counterpart: `UFFDIO_COPY` and its siblings, and the page-table lock they hold.

pub(crate) mod claim;
mod copy;
mod discard;
mod install;
mod poison;
mod writeprotect;
mod zeropage;

use userfault_abi::{CopyModes, IoctlMask, PoisonModes, RegisterModes, WriteprotectModes, ZeropageModes};

use crate::addr::{Page, PageRange};
use crate::context::ContextId;
use crate::host::{Embedder, Lock};
use crate::page::PageState;
use crate::space::{AddressSpace, State};

/// A fill, as asked for through a descriptor.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Bytes of the caller's.
    Copy(CopyModes),
    /// Zeros.
    Zeropage(ZeropageModes),
    /// A bus error on every access.
    Poison(PoisonModes),
}

/// Why a fill cannot be tried; nothing changed.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FillError {
    /// No such context, no handshake yet (modern), or no such fill in this protocol.
    NotEnabled,
    /// A mode that the fill does not have.
    BadModes,
    /// The address space has ended.
    Gone,
    /// The range is not one mapping that is registered.
    NotOneMapping,
    /// Protected pages asked for where write protection is not registered.
    NotWriteProtectable,
}

/// Why a fill stopped before its end.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FillStop {
    /// The page has contents, or a marker that this fill does not replace.
    Exists,
    /// The source of the page could not be read.
    SourceUnreadable,
    /// No mapping registered for write protection begins here.
    NotProtectable,
    /// The embedder has no memory for it.
    NoMemory,
}

/// Why an embedder gives a claim back.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The source could not be read.
    SourceUnreadable,
    /// The host is out of memory or mappings; the pages are as before.
    NoMemory,
}

/// What is being done to the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Copy { protect: bool },
    Zeropage,
    Poison,
    Install,
    Protect { unpopulated: bool },
    Unprotect,
    Discard,
}

/// What to do with a page in a given state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Move it through a claimed state to `to`; the embedder works in between.
    Claim {
        through: PageState,
        to: PageState,
    },
    /// The embedder has nothing to do.
    Mark(PageState),
    Skip,
    Exists,
    /// As `Exists`, but an unreadable source comes first.
    ExistsUnlessUnreadable,
    Busy,
}

/// Who is woken at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Nobody,
    /// Sleepers of the pages done.
    Done,
    /// Sleepers of the whole range, when nothing stopped it.
    Whole,
}

/// Work in progress on a range of pages.
///
/// Example: [`crate`].
#[must_use = "drive it with `next` until `Step::End`"]
#[derive(Debug)]
pub struct Filling {
    kind: Kind,
    context: Option<ContextId>,
    wake: Wake,
    range: PageRange,
    /// Pages left of the piece that `next` may work on without looking anything up.
    piece: Option<PageRange>,
    at: Page,
    stop: Option<FillStop>,
    /// What to say when the end of `range` is reached.
    stop_at_end: Option<FillStop>,
    /// The source of the page at `at` is known to be readable.
    source_checked: bool,
}

impl Kind {
    /// The table of what each operation does to each state.
    pub(crate) const fn action(self, state: PageState) -> Action {
        if state.is_claimed() {
            return Action::Busy;
        }
        match self {
            Self::Copy { protect } => copy::action(state, protect),
            Self::Zeropage => zeropage::action(state),
            Self::Poison => poison::action(state),
            Self::Install => install::action(state),
            Self::Protect { unpopulated } => writeprotect::protect(state, unpopulated),
            Self::Unprotect => writeprotect::unprotect(state),
            Self::Discard => discard::action(state),
        }
    }
}

impl Filling {
    pub(crate) const fn new(kind: Kind, context: Option<ContextId>, range: PageRange) -> Self {
        Self {
            kind,
            context,
            wake: Wake::Nobody,
            range,
            piece: Some(range),
            at: range.start(),
            stop: None,
            stop_at_end: None,
            source_checked: false,
        }
    }

    /// The pages asked for.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        self.range
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Checks a fill of `range` and begins it.
    ///
    /// The context need not be the one that registered the range (`m/fill/any-context`); only its own
    /// sleepers are woken.
    ///
    /// # Errors
    ///
    /// One [`FillError`] per broken rule, tested in declaration order.
    pub fn fill(&self, context: ContextId, range: PageRange, fill: Fill) -> Result<Filling, FillError> {
        self.state.with(|state| state.check_fill(context, range, fill))
    }
}

impl<E: Embedder> State<E> {
    fn check_fill(&self, id: ContextId, range: PageRange, fill: Fill) -> Result<Filling, FillError> {
        let context = self.contexts.get(id.0).ok_or(FillError::NotEnabled)?;
        let known = match fill {
            Fill::Copy(_) => IoctlMask::COPY,
            Fill::Zeropage(_) => IoctlMask::ZEROPAGE,
            Fill::Poison(_) => IoctlMask::POISON,
        };
        if !context.rules.fills.contains(known) || (context.rules.handshake_first && !context.is_running()) {
            return Err(FillError::NotEnabled);
        }
        let wp_known = context.rules.modes.contains(RegisterModes::WP);
        let (kind, dontwake, bad) = match fill {
            Fill::Copy(modes) => {
                let protect = modes.contains(CopyModes::WP);
                let bad = !modes.unknown().is_empty() || (protect && !wp_known);
                (Kind::Copy { protect }, modes.contains(CopyModes::DONTWAKE), bad)
            }
            Fill::Zeropage(modes) => {
                (Kind::Zeropage, modes.contains(ZeropageModes::DONTWAKE), !modes.unknown().is_empty())
            }
            Fill::Poison(modes) => (Kind::Poison, modes.contains(PoisonModes::DONTWAKE), !modes.unknown().is_empty()),
        };
        if bad {
            return Err(FillError::BadModes);
        }
        if self.is_gone {
            return Err(FillError::Gone);
        }
        let (found, registration) = self.registrations.get(range.start()).ok_or(FillError::NotOneMapping)?;
        if found.end() < range.end() {
            return Err(FillError::NotOneMapping);
        }
        if kind == (Kind::Copy { protect: true }) && !registration.modes.contains(RegisterModes::WP) {
            return Err(FillError::NotWriteProtectable);
        }
        let wake = if dontwake { Wake::Nobody } else { Wake::Done };
        Ok(Filling { wake, ..Filling::new(kind, Some(id), range) })
    }
}

pub(crate) const fn is_lift(modes: WriteprotectModes) -> bool {
    !modes.contains(WriteprotectModes::WP)
}
