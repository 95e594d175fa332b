//! An access that could not complete.
//!
//! Kernel counterpart: `handle_userfault`.

use userfault_abi::{Features, IoctlMask, OpenFlags, PagefaultFlags, RegisterModes};

use crate::addr::{Page, PageRange};
use crate::context::{ContextId, Life};
use crate::host::{Embedder, Lock, Pages};
use crate::page::PageState;
use crate::space::{AddressSpace, State};
use crate::wait::slots::WaiterId;
use crate::wait::{Phase, Place, Waiter};

/// What the embedder is prepared to do about a fault.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The access cannot be repeated: it fails unless it can go on.
    Fail,
    /// It can be repeated, but nobody may sleep.
    Retry,
    /// It can sleep and be repeated.
    Wait,
    /// As `Wait`; and in a context that [answers inline](AddressSpace::answer_inline) the thread itself can
    /// bring a page that is not there.
    Answer,
}

/// On whose behalf memory is accessed.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A load or store of the program.
    User,
    /// A system call, or another process.
    Kernel,
}

/// An access that could not complete.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The exact byte.
    pub address: u64,
    /// Store, or atomic read-modify-write.
    pub write: bool,
    /// What may be done about it.
    pub patience: Patience,
    /// Who accesses.
    pub origin: Origin,
    /// The thread's id, for `THREAD_ID`.
    pub thread: u32,
}

/// What the embedder is to do.
///
/// Example: [`crate`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No registration covers the page: the engine has no opinion. An embedder that is just changing
    /// its layout (it unregisters first, then makes the pages plain) waits for the end of that.
    NotOurs,
    /// The page is accessible for this access, as far as the engine knows: retry. If it is not, the
    /// embedder took the access away itself.
    Present(Page),
    /// Retry the access now, after yielding: something is changing.
    Retry,
    /// No room for another sleeper: yield, then retry.
    Full,
    /// The access fails: SIGBUS for the program, an error for a system call.
    Bus,
    /// Registered, but not for missing pages: the embedder installs a zero page and retries.
    Zero(Page),
    /// Registered, but no longer for write protection: the embedder lifts it and retries.
    Unprotect(Page),
    /// Not there, and nobody works on it: the thread brings it by a fill as any other, under no lock and
    /// without a claim while it gets the bytes; then it retries. If it cannot, it faults again with
    /// [`Patience::Wait`]. Nobody was told and nothing was queued.
    Inline {
        /// Whose page it is.
        context: ContextId,
        /// The page.
        page: Page,
    },
    /// Drop the address-space lock, make the descriptor of `ring` readable, then park. An unpark that
    /// comes first must not be lost: see [`AddressSpace::leave`].
    Sleep {
        /// Who sleeps.
        waiter: WaiterId,
        /// Whose monitor is to hear of it; nobody's if a change in progress ends by itself.
        ring: Option<ContextId>,
    },
}

/// What a sleeper waits for; decides whether it is still worth sleeping after it joined (J2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Fill,
    Unprotect,
    ChangeToEnd,
}

enum Joined {
    Decided(Verdict),
    Asleep(WaiterId, Need, Option<ContextId>),
}

impl Need {
    const fn still_holds(self, now: PageState) -> bool {
        match self {
            Self::Fill => now.is_absent(),
            Self::Unprotect => matches!(now, PageState::WriteProtected),
            Self::ChangeToEnd => now.is_claimed(),
        }
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// An access faulted.
    ///
    /// # Ordering
    ///
    /// J1 and J2 of `wait/mod.rs`: joins under the lock, then reads the page's state once more.
    pub fn fault(&self, access: &Access) -> Verdict {
        let page = self.limits.page_of(access.address);
        let before = self.pages.get(page);
        if before == PageState::Poisoned {
            return Verdict::Bus;
        }
        let joined = self.state.with(|state| state.join_fault(access, page, before)); // J1
        self.recheck(page, joined)
    }

    /// Waits for the claim on `page` to end: for a fill that met [`Step::Busy`](crate::Step::Busy).
    pub fn await_page(&self, page: Page, thread: u32) -> Verdict {
        let joined = self.state.with(|state| state.join_quietly(page, thread)); // J1
        self.recheck(page, joined)
    }

    fn recheck(&self, page: Page, joined: Joined) -> Verdict {
        match joined {
            Joined::Decided(verdict) => verdict,
            Joined::Asleep(waiter, need, ring) => {
                if need.still_holds(self.pages.get(page)) {
                    return Verdict::Sleep { waiter, ring }; // J2, J3
                }
                let _left = self.leave(waiter, crate::Why::Interrupted);
                Verdict::Retry
            }
        }
    }

    /// Whether threads with [`Patience::Answer`] bring the missing pages of `context` themselves, from now on.
    /// `false` if there is no such context, or one whose protocol knows no fills by which they could.
    pub fn answer_inline(&self, context: ContextId, whether: bool) -> bool {
        self.state.with(|state| {
            let Some(context) = state.contexts.get_mut(context.0) else { return false };
            if !context.rules.fills.contains(IoctlMask::COPY) {
                return false;
            }
            context.answers_inline = whether;
            true
        })
    }
}

impl<E: Embedder> State<E> {
    fn join_fault(&mut self, access: &Access, page: Page, state: PageState) -> Joined {
        let Some((_, registration)) = self.registrations.get(page) else {
            return Joined::Decided(Verdict::NotOurs);
        };
        let Some(context) = self.contexts.get(registration.context.0) else {
            return Joined::Decided(Verdict::Retry);
        };
        if context.life == Life::Releasing {
            return Joined::Decided(Verdict::Retry);
        }
        let raises = context.features.contains(Features::SIGBUS);
        let answers_inline = access.patience == Patience::Answer && context.answers_inline && !raises;
        let need = match need(access, page, registration.modes, state) {
            // Whoever claimed it wakes by the end of the claim; if nothing came of that, it is asked anew.
            Ok(Need::Fill) if answers_inline && state.is_claimed() => Ok(Need::ChangeToEnd),
            need => need,
        };
        let need = match need {
            Ok(Need::ChangeToEnd) if matches!(access.patience, Patience::Wait | Patience::Answer) => {
                return self.join_quietly(page, access.thread);
            }
            Ok(Need::ChangeToEnd) => return Joined::Decided(Verdict::Retry),
            Ok(need) => need,
            Err(verdict) => return Joined::Decided(verdict),
        };
        let user_only = context.flags.contains(OpenFlags::USER_MODE_ONLY) && access.origin == Origin::Kernel;
        if access.patience == Patience::Fail || user_only || raises {
            return Joined::Decided(Verdict::Bus);
        }
        if access.patience == Patience::Retry {
            return Joined::Decided(Verdict::Retry);
        }
        if answers_inline && need == Need::Fill {
            return Joined::Decided(Verdict::Inline { context: registration.context, page });
        }
        let write = if access.write { PagefaultFlags::WRITE } else { PagefaultFlags::NONE };
        let protect = if need == Need::Unprotect { PagefaultFlags::WP } else { PagefaultFlags::NONE };
        let waiter = Waiter {
            phase: Phase::Unread,
            context: registration.context,
            address: access.address,
            flags: write | protect,
            thread: access.thread,
            ..Waiter::default()
        };
        match self.join(page, waiter) {
            Ok(id) => Joined::Asleep(id, need, Some(registration.context)),
            Err(_) => Joined::Decided(Verdict::Full),
        }
    }

    fn join_quietly(&mut self, page: Page, thread: u32) -> Joined {
        let waiter = Waiter { phase: Phase::Quiet, thread, place: Place { page, arrival: 0 }, ..Waiter::default() };
        match self.join(page, waiter) {
            Ok(id) => Joined::Asleep(id, Need::ChangeToEnd, None),
            Err(_) => Joined::Decided(Verdict::Full),
        }
    }
}

/// What the access needs, or the verdict if nobody has to be asked.
fn need(access: &Access, page: Page, modes: RegisterModes, state: PageState) -> Result<Need, Verdict> {
    let missing = modes.contains(RegisterModes::MISSING);
    let protecting = modes.contains(RegisterModes::WP);
    match state {
        // A fill by a monitor counts as missing for messages, as in the kernel.
        _ if missing && state.is_absent() => Ok(Need::Fill),
        // A marker becomes a protected zero page first, also for a write, which then faults on that.
        PageState::Missing | PageState::MissingProtected => Err(Verdict::Zero(page)),
        PageState::WriteProtected if access.write && protecting => Ok(Need::Unprotect),
        PageState::WriteProtected if access.write => Err(Verdict::Unprotect(page)),
        PageState::Present | PageState::WriteProtected => Err(Verdict::Present(page)),
        // Still poisoned until the fill commits.
        PageState::Poisoned | PageState::FillingPoisoned => Err(Verdict::Bus),
        PageState::Filling | PageState::FillingProtected | PageState::Changing | PageState::Installing => {
            Ok(Need::ChangeToEnd)
        }
    }
}

/// The page of an access as a range, for wakes.
impl From<Page> for PageRange {
    fn from(page: Page) -> Self {
        Self::one(page)
    }
}
