//! The descriptor, the memory it watches, and the ways to answer a fault.
//!
//! Memory is owned: a [`Region`] is a mapping that the provider made and registered, so a fill can
//! name pages of it by number and can never reach a stranger's memory. What a page holds is seen
//! through windows, which say who may change it meanwhile:
//!
//! * a *window* is exclusive and lends slices. Pages under it may be filled, since nobody has seen a
//!   missing page; contents end only through `&mut` of the window;
//! * a *shared* window copies out and in word by word, and tolerates any change underneath.
//!
//! The exception is memory that a provider *adopted* by an unsafe promise of the program's: it is reached by
//! the program's own references, and nothing is lent of it ([`UffdError::Adopted`]).

use core::ops::Range;
use core::time::Duration;
use std::os::fd::BorrowedFd;

use crate::{Capabilities, Event, Progress, Provider, RegisterModes, Sleeper, Stopped, UffdError};

/// How long a read waits for the first event.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until there is one, or the descriptor is shut down.
    Forever,
    /// Not at all.
    Never,
    /// At most this long.
    AtMost(Duration),
}

/// Which way [`Region::writeprotect`] goes.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteProtect {
    /// Writes to the present pages of the range raise faults.
    Protect,
    /// They no longer do; sleepers of the range are woken.
    Lift,
    /// As `Lift`, waking nobody.
    LiftWithoutWake,
}

/// An open userfaultfd: faults come out, regions are made with it.
///
/// Several threads may read one descriptor; each event goes to exactly one of them.
///
/// Example: [`crate`].
pub trait Uffd: Send + Sync {
    /// Memory registered with this descriptor.
    type Region: Region;
    /// The context of a forked child, an owned value.
    type Forked: Send;

    /// Who makes the faults.
    fn provider(&self) -> Provider;

    /// What this descriptor offers.
    fn capabilities(&self) -> &Capabilities;

    /// Maps `pages` pages of fresh private memory, all missing, and registers them.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`] for 0 pages, [`UffdError::ModesUnsupported`], or the host's error
    /// (no memory, too many mappings); from a provider whose faults are signals also
    /// [`UffdError::SignalBlocked`] and [`UffdError::HandlerReplaced`]. Nothing stays mapped.
    fn map(&self, pages: usize, modes: RegisterModes) -> Result<Self::Region, UffdError>;

    /// Moves the events that are there, oldest first, to the end of `events`; waits for the first.
    ///
    /// Returns how many were added: 0 only if the wait ended without one.
    ///
    /// # Errors
    ///
    /// [`UffdError::ShutDown`] after [`shut_down`](Self::shut_down), once nothing is left to read.
    ///
    /// # Blocking
    ///
    /// As `wait` says. An interrupting signal does not end the wait.
    fn read(&self, wait: Wait, events: &mut Vec<Event<Self::Forked>>) -> Result<usize, UffdError>;

    /// A descriptor that polls readable while an event waits. Readiness may be spurious; it is never
    /// lost. For reading, [`read`](Self::read) alone is used.
    ///
    /// # Errors
    ///
    /// The host's error, if a descriptor has to be made and cannot.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, UffdError>;

    /// Ends every blocked and future wait for events with [`UffdError::ShutDown`]. Sleepers stay.
    fn shut_down(&self);

    /// Wakes every thread that sleeps in a fault of this descriptor; each tries its access again.
    fn wake_all(&self);

    /// The threads that sleep in faults of this descriptor now, as far as the provider can know.
    ///
    /// Not a moment: who falls asleep or leaves meanwhile may be missing or there.
    ///
    /// # Errors
    ///
    /// [`UffdError::Forked`]; the host's error, if it cannot be asked.
    fn sleepers(&self) -> Result<Vec<Sleeper>, UffdError>;

    /// Says that the calling thread answers this descriptor's faults, until
    /// [`leave_monitor`](Self::leave_monitor). A provider that can tell makes a fault of its own on its
    /// own regions an immediate bus error with a sentence, instead of a sleep for ever (W35).
    fn enter_monitor(&self) {}

    /// The calling thread answers no faults any more.
    fn leave_monitor(&self) {}
}

/// A mapping whose absent pages raise faults on the descriptor it came from.
///
/// A cheap handle: clones name the same memory, which is unmapped when the last handle and the last
/// window are gone. Page numbers count from the start of the region.
///
/// Example: [`crate`].
pub trait Region: Clone + Send + Sync {
    /// Lends slices; exclusive.
    type Window: AsRef<[u8]> + AsMut<[u8]> + Send;
    /// Copies in and out; any number.
    type Shared: Shared;

    /// Address of the first byte.
    fn base(&self) -> usize;
    /// Length in pages.
    fn pages(&self) -> usize;
    /// Bytes per page.
    fn page_size(&self) -> usize;

    /// The page that holds `address`, if it lies in the region.
    fn page_at(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address).ok()?.checked_sub(self.base())?;
        let page = offset / self.page_size();
        (page < self.pages()).then_some(page)
    }

    /// Fills missing pages from `first` on with `bytes` (`pages × page_size` of them), each visible
    /// only when it is complete, and wakes their sleepers.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`], [`UffdError::OutsideRegion`].
    fn copy(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError>;

    /// As [`copy`](Self::copy), but waking nobody: the caller wakes when all of its work is done.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    fn copy_without_wake(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError>;

    /// As [`copy`](Self::copy), but goes on behind pages that are present already and wakes their
    /// sleepers; such pages keep their contents and count as done.
    ///
    /// Who meets a page that somebody else filled wakes nobody by that, and its sleepers may have been
    /// left to the second: a monitor that fills more than it was asked for uses this.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    fn copy_missing(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        let mut done = 0;
        loop {
            let rest = bytes.get(done * self.page_size()..).unwrap_or_default();
            let progress = self.copy(first + done, rest)?;
            done += progress.pages_done;
            if progress.stopped_by != Some(Stopped::AlreadyPresent) {
                return Ok(Progress { pages_done: done, ..progress });
            }
            match self.wake(first + done..first + done + 1) {
                // They are awake; that the next fault may be taken for a crash is no reason to stop half-way.
                Ok(()) | Err(UffdError::HandlerReplaced { .. }) => {}
                Err(error) => return Err(error),
            }
            done += 1;
            if done * self.page_size() >= bytes.len() {
                return Ok(Progress::all(done));
            }
        }
    }

    /// As [`copy`](Self::copy), the pages write-protected from the start.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy); [`UffdError::ModesUnsupported`] without `WP` registration.
    fn copy_protected(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError>;

    /// Fills missing pages with zeros and wakes their sleepers.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    fn zeropage(&self, pages: Range<usize>) -> Result<Progress, UffdError>;

    /// Makes missing pages raise SIGBUS on access, and wakes their sleepers, who get it.
    ///
    /// A copy to such a page gives it contents; so does a monitor that fills a window around it.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::Unsupported`] on kernels before 6.6.
    fn poison(&self, pages: Range<usize>) -> Result<Progress, UffdError>;

    /// Sets or lifts write protection of the present pages in the range.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::ModesUnsupported`] without `WP` registration.
    fn writeprotect(&self, pages: Range<usize>, how: WriteProtect) -> Result<(), UffdError>;

    /// Wakes the threads that sleep on these pages; each tries its access again.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::HandlerReplaced`] from a provider whose faults are signals: they
    /// are awake then, but their next fault goes to somebody else.
    fn wake(&self, pages: Range<usize>) -> Result<(), UffdError>;

    /// Ends the registration of these pages: missing ones read as zeros from now on, protection is
    /// lifted, their sleepers are woken. Of adopted memory they are the program's alone afterwards: no request
    /// by way of this region reaches them any more, whatever comes to lie there.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`] and the host's error; of adopted memory [`UffdError::StillRegistered`].
    fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError>;

    /// Touches these pages by loads, whatever is lent of them, so that each is there when this returns: before
    /// a system call on them, which fails with `EFAULT` where it cannot wait (H32).
    ///
    /// They stay until somebody discards them. A process provider that is short of mappings may close pages
    /// again; the 64 most recent ones never.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; nothing was touched then.
    ///
    /// # Blocking
    ///
    /// In each missing page, until it is answered: not for the thread that answers. A poisoned page raises
    /// SIGBUS.
    fn populate(&self, pages: Range<usize>) -> Result<(), UffdError>;

    /// Lends these pages exclusively.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::Lent`], [`UffdError::Adopted`].
    fn window(&self, pages: Range<usize>) -> Result<Self::Window, UffdError>;

    /// Lends these pages for copying in and out.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::Lent`] if an exclusive window overlaps,
    /// [`UffdError::Adopted`].
    fn shared(&self, pages: Range<usize>) -> Result<Self::Shared, UffdError>;

    /// Makes pages of the window missing again; `pages` counts from the start of the *region*.
    ///
    /// # Errors
    ///
    /// [`UffdError::ForeignWindow`], [`UffdError::OutsideRegion`] if they are not in the window,
    /// [`UffdError::Adopted`].
    fn discard(&self, window: &mut Self::Window, pages: Range<usize>) -> Result<(), UffdError>;

    /// As [`discard`](Self::discard), for pages lent for copying.
    ///
    /// # Errors
    ///
    /// As [`discard`](Self::discard).
    fn discard_shared(&self, shared: &Self::Shared, pages: Range<usize>) -> Result<(), UffdError>;
}

/// Memory that others may change meanwhile, reached by copying words.
///
/// Offsets are bytes from the start of what was lent.
///
/// Example: [`crate`].
pub trait Shared: Clone + Send + Sync {
    /// Length in bytes.
    fn len_bytes(&self) -> usize;

    /// Copies `into.len()` bytes out, by plain loads; faults are answered meanwhile.
    ///
    /// # Panics
    ///
    /// If the range leaves what was lent, as slice indexing does.
    fn read(&self, offset: usize, into: &mut [u8]);

    /// Copies `from` in, by plain stores.
    ///
    /// # Panics
    ///
    /// If the range leaves what was lent.
    fn write(&self, offset: usize, from: &[u8]);

    /// Compares with `expected` by plain loads; the first differing byte's position, if any.
    ///
    /// # Panics
    ///
    /// If the range leaves what was lent.
    fn compare(&self, offset: usize, expected: &[u8]) -> Option<usize>;
}
