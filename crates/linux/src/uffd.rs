//! The descriptor for memory of this process.
//!
//! Kernel counterpart: `userfaultfd(2)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use userfault_client::{
    Capabilities, Errno, Event, Options, Provider, Refusal, RegisterModes, Sleeper, UffdError, Wait,
};

use crate::context::{Context, Mark, system};
use crate::fdinfo::FdInfo;
use crate::file::FileRegion;
use crate::foreign::Forked;
use crate::given::{self, Handshake};
use crate::open::{self, Opened, Way};
use crate::region::Region;
use crate::sys::{self, Home};

/// An open userfaultfd of the kernel, for memory of the process that opened it.
///
/// # Examples
///
/// ```no_run
/// use userfault_client::{Event, Options, Region as _, RegisterModes, Uffd as _, Wait};
/// use userfault_linux::Uffd;
///
/// let uffd = Uffd::open(&Options::default())?;
/// let region = uffd.map(16, RegisterModes::MISSING)?;
/// let window = region.window(0..16)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_eq!(window.as_ref()[0], 7));
///     let mut events = Vec::new();
///     uffd.read(Wait::Forever, &mut events)?;
///     if let Some(Event::Fault(fault)) = events.pop()
///         && let Some(page) = region.page_at(fault.address)
///     {
///         let _progress = region.copy(page, &vec![7; region.page_size()])?;
///     }
///     Ok::<(), userfault_client::UffdError>(())
/// })?;
/// # Ok::<(), userfault_client::UffdError>(())
/// ```
#[derive(Debug)]
pub struct Uffd {
    context: Arc<Context>,
    capabilities: Capabilities,
    way: Way,
    tried: Vec<Refusal>,
}

impl Uffd {
    /// Opens a descriptor, close-on-exec and nonblocking, and does the handshake.
    ///
    /// Without kernel faults: the system call for user mode only, then the device for user mode only.
    /// With them: the system call, then `/dev/userfaultfd`; where they are only tried for, user mode
    /// in the end. Refusals on the way are kept, see [`refusals`](Self::refusals).
    ///
    /// # Errors
    ///
    /// [`UffdError::Refused`] with each way that was tried; [`UffdError::FeaturesMissing`];
    /// [`UffdError::System`] for what no other way would avoid (`EMFILE`, `ENOMEM`). Nothing stays open.
    ///
    /// # Source
    ///
    /// `m/open/permission`, `m/open/device`, `m/api/once`.
    pub fn open(options: &Options) -> Result<Self, UffdError> {
        Self::new(open::open(options)?)
    }

    /// As [`open`](Self::open), on an open `/dev/userfaultfd` that somebody else handed over: its
    /// permission counts, not this process's.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Source
    ///
    /// `m/open/device`.
    pub fn open_on(device: impl AsFd, options: &Options) -> Result<Self, UffdError> {
        Self::new(open::open_on(device.as_fd(), options)?)
    }

    /// Takes over a descriptor that was made for this process by other code.
    ///
    /// It becomes nonblocking, for every holder, and close-on-exec. Whether it answers kernel faults
    /// leaves no visible trace, so [`Capabilities::kernel_faults`] says no.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] with `EINVAL` if it is no userfaultfd, belongs to another process (use
    /// [`Foreign`](crate::Foreign)), or is not in the state that `handshake` says;
    /// [`UffdError::FeaturesMissing`]. The descriptor is closed then.
    pub fn from_fd(descriptor: OwnedFd, handshake: &Handshake) -> Result<Self, UffdError> {
        let (features, available) = given::take_over(descriptor.as_fd(), handshake)?;
        let capabilities = open::capabilities(descriptor.as_fd(), Way::Given, features, available);
        let is_here = match sys::home(descriptor.as_fd()) {
            Home::Here => true,
            // A page of ours can be registered with it: as good as the kernel lets us know.
            Home::NotProvenHere(_) => !capabilities.modes.is_empty(),
        };
        if !is_here {
            return Err(system("taking over a descriptor of another process", Errno::EINVAL));
        }
        Self::new(Opened { descriptor, way: Way::Given, capabilities, tried: Vec::new() })
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn new(opened: Opened) -> Result<Self, UffdError> {
        let Opened { descriptor, way, capabilities, tried } = opened;
        let mark = Some(Mark::new()?);
        let context = Arc::new(Context::new(descriptor, capabilities.features, mark)?);
        Ok(Self { context, capabilities, way, tried })
    }

    /// How it was opened.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }

    /// Ways that were refused before the one that worked.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.tried
    }

    /// What the kernel says about this descriptor: how many threads sleep, which features are on.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] without `/proc`.
    pub fn info(&self) -> Result<FdInfo, UffdError> {
        FdInfo::of(self)
    }

    /// Maps `pages` pages of a fresh file in memory, all of them holes, and registers them.
    ///
    /// Shared memory has minor faults, and its contents are visible through the file; so they are
    /// copied out and in, never lent.
    ///
    /// # Errors
    ///
    /// As [`map`](userfault_client::Uffd::map).
    pub fn map_shared(&self, pages: usize, modes: RegisterModes) -> Result<FileRegion, UffdError> {
        FileRegion::map(&self.context, pages, modes)
    }
}

impl userfault_client::Uffd for Uffd {
    type Region = Region;
    type Forked = Forked;

    fn provider(&self) -> Provider {
        Provider::Linux
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn map(&self, pages: usize, modes: RegisterModes) -> Result<Region, UffdError> {
        Region::map(&self.context, pages, modes)
    }

    /// # Errors
    ///
    /// Also [`UffdError::System`] with `EMFILE` if a FORK message waits and no descriptor is free for
    /// the child's context: the message stays.
    ///
    /// # Blocking
    ///
    /// With `EVENT_FORK`, give a vector with spare capacity: while a thread forks, malloc blocks until
    /// the message was read, and a vector without room would ask it for some.
    fn read(&self, wait: Wait, events: &mut Vec<Event<Forked>>) -> Result<usize, UffdError> {
        self.context.read(wait, events)
    }

    /// With the SIGBUS feature an epoll descriptor, readable also for faults that a handler handed over.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, UffdError> {
        self.context.poller()
    }

    fn shut_down(&self) {
        self.context.shut_down();
    }

    fn wake_all(&self) {
        self.context.wake_all();
    }

    /// What is known: the threads whose fault was read and not answered, with `THREAD_ID`, in full; of the others
    /// how many there are, and which threads if no other descriptor's can be meant.
    fn sleepers(&self) -> Result<Vec<Sleeper>, UffdError> {
        self.context.sleepers()
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.fd()
    }
}
