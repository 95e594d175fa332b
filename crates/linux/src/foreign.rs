//! Contexts of other processes: a forked child's, or one that came over a socket.
//!
//! Such a context means the address space of whoever made it, so its pages have no numbers here, only
//! addresses. Everything is as the kernel has it; nothing of this process's memory can be reached.
//!
//! Kernel counterpart: `m/fill/other-process`, `m/event/fork-descriptor`.

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::FdFlags;
use userfault_abi::{ContinueModes, CopyModes, PoisonModes, ZeropageModes};
use userfault_client::{Errno, Event, Features, IoctlMask, Progress, RegisterModes, UffdError, Wait, WriteProtect};

use crate::context::{Context, system, whole_pages};
use crate::fdinfo::FdInfo;
use crate::given::{self, Handshake};
use crate::read::set_nonblocking;
use crate::sys::{self, Elsewhere, Home, Span};

/// The context of a forked child, as it was read: an open descriptor, closed on drop.
///
/// When it is closed, the child's missing pages read as zeros.
///
/// Example: [`Foreign`].
#[derive(Debug)]
pub struct Forked {
    descriptor: OwnedFd,
    features: Features,
}

impl Forked {
    pub(crate) const fn new(descriptor: OwnedFd, features: Features) -> Self {
        Self { descriptor, features }
    }

    /// Makes it ready for reading and filling.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`], `EMFILE` for instance: reading needs a second descriptor. Closed then.
    pub fn into_foreign(self) -> Result<Foreign, UffdError> {
        // The child's descriptor has the flags its parent's was created with, by whomever.
        set_nonblocking(&self.descriptor)?;
        rustix::io::fcntl_setfd(&self.descriptor, FdFlags::CLOEXEC)
            .map_err(|error| system("fcntl(F_SETFD)", sys::errno(error)))?;
        let elsewhere = sys::forked(&self);
        Ok(Foreign { context: Context::new(self.descriptor, self.features, None)?, elsewhere })
    }
}

impl AsFd for Forked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<Forked> for OwnedFd {
    fn from(forked: Forked) -> Self {
        forked.descriptor
    }
}

/// A userfaultfd for the memory of another process.
///
/// Addresses are that process's, in bytes. It may be gone: fills then stop with
/// [`Gone`](userfault_client::Stopped::Gone), there is no other notice (`m/close/exit`).
///
/// # Examples
///
/// ```
/// use userfault_client::abi::CopyModes;
/// use userfault_client::{Event, UffdError, Wait};
/// use userfault_linux::Forked;
///
/// /// Answers for a forked child, with what `contents` has for each page, until it is gone.
/// fn serve_child(child: Forked, contents: impl Fn(u64) -> Vec<u8>) -> Result<(), UffdError> {
///     let child = child.into_foreign()?;
///     let mut events = Vec::new();
///     loop {
///         child.read(Wait::Forever, &mut events)?;
///         for event in events.drain(..) {
///             let Event::Fault(fault) = event else { continue };
///             let page = fault.address & !0xfff;
///             let progress = child.copy(page, &contents(page), CopyModes::NONE)?;
///             if progress.stopped_by == Some(userfault_client::Stopped::Gone) {
///                 return Ok(());
///             }
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Foreign {
    context: Context,
    elsewhere: Elsewhere,
}

impl Foreign {
    /// Takes over a descriptor that another process made.
    ///
    /// It becomes nonblocking, for every holder, and close-on-exec.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with `EINVAL` if it is no userfaultfd, is not in the state that
    /// `handshake` says, or belongs to this process (use [`Uffd`](crate::Uffd); kernels before 6.8
    /// cannot tell, nor can others while an event waits); [`UffdError::FeaturesMissing`]. The
    /// descriptor is closed then.
    pub fn from_fd(descriptor: OwnedFd, handshake: &Handshake) -> Result<Self, UffdError> {
        let (features, _) = given::take_over(descriptor.as_fd(), handshake)?;
        match sys::home(descriptor.as_fd()) {
            Home::Here => Err(system("treating this process's memory as another's", Errno::EINVAL)),
            Home::NotProvenHere(elsewhere) => {
                Ok(Self { context: Context::new(descriptor, features, None)?, elsewhere })
            }
        }
    }

    /// The features that are on.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.context.features()
    }

    /// What the kernel says about this descriptor.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] without `/proc`.
    pub fn info(&self) -> Result<FdInfo, UffdError> {
        FdInfo::of(self)
    }

    /// As [`Uffd::read`](userfault_client::Uffd::read).
    ///
    /// # Errors
    ///
    /// As there, and `EMFILE` if a FORK message waits and no descriptor is free.
    ///
    /// # Blocking
    ///
    /// As `wait` says.
    pub fn read(&self, wait: Wait, events: &mut Vec<Event<Forked>>) -> Result<usize, UffdError> {
        self.context.read(wait, events)
    }

    /// Ends every blocked and future wait for events.
    pub fn shut_down(&self) {
        self.context.shut_down();
    }

    /// Wakes every thread that sleeps in a fault of this context.
    pub fn wake_all(&self) {
        self.context.wake_all();
    }

    /// Registers what is mapped in the range.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with the kernel's answer; nothing is registered then.
    ///
    /// # Source
    ///
    /// `UFFDIO_REGISTER`, `m/register/order`.
    pub fn register(&self, range: &Range<u64>, modes: RegisterModes) -> Result<IoctlMask, UffdError> {
        self.context.register(self.span(range), modes)
    }

    /// Ends the registration of the range; its sleepers are woken.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with the kernel's answer.
    pub fn unregister(&self, range: &Range<u64>) -> Result<(), UffdError> {
        self.context.unregister(self.span(range))
    }

    /// Wakes the threads that sleep in the range.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with `EINVAL` for a range that can hold no pages.
    pub fn wake(&self, range: &Range<u64>) -> Result<(), UffdError> {
        self.context.wake(self.span(range))
    }

    /// Fills missing pages from `address` on with `bytes`, which are `pages × page_size`.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`].
    pub fn copy(&self, address: u64, bytes: &[u8], modes: CopyModes) -> Result<Progress, UffdError> {
        whole_pages(bytes)?;
        let range = address..address.wrapping_add(bytes.len() as u64);
        Ok(self.context.copy(self.span(&range), bytes, modes))
    }

    /// Fills missing pages with zeros.
    /// What is wrong with the range is in the progress.
    pub fn zeropage(&self, range: &Range<u64>, modes: ZeropageModes) -> Progress {
        self.context.zeropage(self.span(range), modes)
    }

    /// Maps pages that their file has.
    /// What is wrong with the range is in the progress.
    pub fn continue_pages(&self, range: &Range<u64>, modes: ContinueModes) -> Progress {
        self.context.continue_pages(self.span(range), modes)
    }

    /// Makes missing pages raise SIGBUS.
    /// What is wrong with the range is in the progress.
    pub fn poison(&self, range: &Range<u64>, modes: PoisonModes) -> Progress {
        self.context.poison(self.span(range), modes)
    }

    /// Sets or lifts write protection.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with the kernel's answer; `ENOENT` in the middle leaves what lies before
    /// it changed.
    pub fn writeprotect(&self, range: &Range<u64>, how: WriteProtect) -> Result<(), UffdError> {
        self.context.writeprotect(self.span(range), how)
    }

    fn span(&self, range: &Range<u64>) -> Span<'_> {
        Span::elsewhere(&self.elsewhere, range)
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.fd()
    }
}
