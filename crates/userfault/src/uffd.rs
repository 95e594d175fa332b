//! The descriptor, whoever provides it.
//!
//! Kernel counterpart: `userfaultfd(2)`.

use core::convert::Infallible;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use userfault_client::{
    self as client, Capabilities, Event, Progress, Provider, RegisterModes, Sleeper, UffdError, Wait,
};
use userfault_linux as linux;
use userfault_process::{self as process, Protocol};

use crate::either::{Either, Region, either};
use crate::monitor::{Monitor, MonitorBuilder, MonitorError};
use crate::open::Refused;
use crate::source::Source;

/// The context of a forked child. Only the linux provider makes any.
///
/// Example: [`linux::Foreign`].
pub type Forked = linux::Forked;

/// An open userfaultfd of either provider; a cheap handle.
///
/// Its operations are those of [`client::Uffd`]: `use userfault::prelude::*`.
///
/// Example: [`crate`].
#[derive(Clone, Debug)]
pub struct Uffd {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    descriptor: Either<linux::Uffd, process::Uffd>,
    refused: Vec<Refused>,
    protocol: Protocol,
    served: Arc<AtomicBool>,
}

impl Uffd {
    pub(crate) fn new(
        descriptor: Either<linux::Uffd, process::Uffd>,
        refused: Vec<Refused>,
        protocol: Protocol,
    ) -> Self {
        Self { open: Arc::new(Open { descriptor, refused, protocol, served: Arc::default() }) }
    }

    /// The providers that were tried before this one, and why each was refused.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.open.refused
    }

    /// The protocol it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.open.protocol
    }

    /// The provider's own type, for what only one of them has.
    #[must_use]
    pub fn as_either(&self) -> &Either<linux::Uffd, process::Uffd> {
        &self.open.descriptor
    }

    /// Starts a thread that answers the faults of `region` from `source`, a page at a time.
    ///
    /// A source that fails is printed to standard error, and who waits for the page gets SIGBUS; see
    /// [`MonitorBuilder::on_error`]. Each region to be served needs a descriptor of its own.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Spawn`], [`MonitorError::AlreadyServed`].
    pub fn serve<S: Source>(&self, region: &Region, source: S) -> Result<Monitor, MonitorError> {
        self.monitor(region).serve(source)
    }

    /// Prepares a monitor of `region`: how many pages at once, who is told of errors and of writes.
    ///
    /// One monitor reads all events of a descriptor, so each region to be served needs a descriptor of its
    /// own.
    #[must_use]
    pub fn monitor(&self, region: &Region) -> MonitorBuilder<Self> {
        let builder = MonitorBuilder::new(Arc::new(self.clone()), region.clone()).sharing(&self.open.served);
        match self.protocol() {
            Protocol::Original { .. } => builder.install_with(install),
            Protocol::Modern => builder,
        }
    }
}

/// Brings pages without waking anybody, for the original protocol.
fn install(region: &Region, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
    match region {
        Either::Process(region) => region.install(first, bytes),
        Either::Linux(region) => client::Region::copy_without_wake(region, first, bytes),
    }
}

impl client::Uffd for Uffd {
    type Region = Region;
    type Forked = Forked;

    fn provider(&self) -> Provider {
        either!(&self.open.descriptor, uffd => uffd.provider())
    }

    fn capabilities(&self) -> &Capabilities {
        either!(&self.open.descriptor, uffd => uffd.capabilities())
    }

    fn map(&self, pages: usize, modes: RegisterModes) -> Result<Region, UffdError> {
        match &self.open.descriptor {
            Either::Linux(uffd) => uffd.map(pages, modes).map(Either::Linux),
            Either::Process(uffd) => uffd.map(pages, modes).map(Either::Process),
        }
    }

    fn read(&self, wait: Wait, events: &mut Vec<Event<Forked>>) -> Result<usize, UffdError> {
        match &self.open.descriptor {
            // Without a vector in between: while a thread forks, malloc may have to wait for this reader.
            Either::Linux(uffd) => uffd.read(wait, events),
            Either::Process(uffd) => {
                let mut own = Vec::new();
                let added = uffd.read(wait, &mut own)?;
                events.extend(own.into_iter().map(of_process));
                Ok(added)
            }
        }
    }

    fn descriptor(&self) -> Result<BorrowedFd<'_>, UffdError> {
        either!(&self.open.descriptor, uffd => uffd.descriptor())
    }

    fn shut_down(&self) {
        either!(&self.open.descriptor, uffd => uffd.shut_down());
    }

    fn wake_all(&self) {
        either!(&self.open.descriptor, uffd => uffd.wake_all());
    }

    fn sleepers(&self) -> Result<Vec<Sleeper>, UffdError> {
        either!(&self.open.descriptor, uffd => uffd.sleepers())
    }

    fn enter_monitor(&self) {
        either!(&self.open.descriptor, uffd => uffd.enter_monitor());
    }

    fn leave_monitor(&self) {
        either!(&self.open.descriptor, uffd => uffd.leave_monitor());
    }
}

/// The same event; there are no forked contexts among these.
fn of_process(event: Event<Infallible>) -> Event<Forked> {
    match event {
        Event::Fault(fault) => Event::Fault(fault),
        Event::Fork(never) => match never {},
        Event::Remap { from, to, len } => Event::Remap { from, to, len },
        Event::Remove { start, end } => Event::Remove { start, end },
        Event::Unmap { start, end } => Event::Unmap { start, end },
        Event::Unknown(message) => Event::Unknown(message),
        // Kinds to come are shown as what they are here: nothing this version can name.
        _ => Event::Unknown([0; 32]),
    }
}
