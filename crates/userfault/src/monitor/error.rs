//! What a monitor reports.
//!
//! Pages count from the start of the region.

use core::fmt;
use std::io;

use userfault_client::{Stopped, UffdError};

use crate::source::SourceError;

/// What went wrong while faults were answered.
///
/// # Examples
///
/// ```
/// use userfault::{MonitorError, RegisterModes, prelude::*};
///
/// let uffd = userfault::open()?;
/// let region = uffd.map(1, RegisterModes::MISSING)?;
/// let source = |_, _: &mut [u8]| Ok(());
/// let _monitor = uffd.serve(&region, source)?;
/// assert!(matches!(uffd.serve(&region, source), Err(MonitorError::AlreadyServed)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum MonitorError {
    /// A thread could not be started.
    Spawn(io::Error),
    /// The source has no contents for a page; who waits for it gets SIGBUS.
    Source {
        /// The page.
        page: usize,
        /// Why.
        error: SourceError,
    },
    /// The source panicked; it is not asked again, and who waits for this or a later page gets SIGBUS.
    SourcePanicked {
        /// The page.
        page: usize,
        /// What the panic said.
        message: String,
    },
    /// A monitor's thread panicked, in `on_error` or by a bug; every missing page of the region is SIGBUS
    /// from now on.
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// A page could not be installed; who waits for it gets SIGBUS.
    Install {
        /// The page.
        page: usize,
        /// Why.
        error: UffdError,
    },
    /// A page could not be installed, nor could it after repeating that for a while; who waits for it
    /// gets SIGBUS.
    Stopped {
        /// The page.
        page: usize,
        /// What stopped it, the last time.
        by: Stopped,
    },
    /// The write hook panicked; the write goes on.
    WritePanicked {
        /// The page.
        page: usize,
        /// What the panic said.
        message: String,
    },
    /// The protection of a page could not be lifted; the write is tried again.
    Lift {
        /// The page.
        page: usize,
        /// Why.
        error: UffdError,
    },
    /// The descriptor has a monitor, or had one: it reads all events, and shut the descriptor down at its
    /// end.
    AlreadyServed,
    /// The faults of the region cannot be answered inline; nothing was started.
    Inline(UffdError),
    /// A thread waits for memory of another region of the same descriptor.
    OutsideRegion {
        /// Where.
        address: u64,
    },
    /// A message of a kind that a monitor of private memory has no answer to.
    Unanswerable {
        /// Where.
        address: u64,
    },
    /// The monitor is that of the parent of this forked process; it goes on there.
    Forked,
    /// Events cannot be read any more; every missing page of the region is SIGBUS from now on.
    Read(UffdError),
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "a monitor thread cannot be started: {error}; raise the limit of threads"),
            Self::Source { page, error } => write!(f, "no contents for page {page}: {error}"),
            Self::SourcePanicked { page, message } => {
                write!(f, "no contents for page {page}: the source panicked: {message}")
            }
            Self::Panicked { message } => write!(f, "a monitor thread panicked: {message}"),
            Self::Install { page, error } => write!(f, "page {page} cannot be installed: {error}"),
            Self::Stopped { page, by } => write!(f, "page {page} cannot be installed: {}", reason(*by)),
            Self::WritePanicked { page, message } => {
                write!(f, "the hook for a write to page {page} panicked: {message}; the write went on")
            }
            Self::Lift { page, error } => write!(f, "the protection of page {page} cannot be lifted: {error}"),
            Self::AlreadyServed => {
                f.write_str("this descriptor has a monitor already: open another one for the region")
            }
            Self::OutsideRegion { address } => write!(
                f,
                "a thread waits at {address:#x}, outside the region that is served: \
                 give each region to be served a descriptor of its own"
            ),
            Self::Unanswerable { address } => {
                write!(f, "a thread waits at {address:#x} for an answer that a monitor of private memory does not have")
            }
            Self::Inline(error) => write!(f, "the region cannot be served: {error}"),
            Self::Forked => f.write_str(
                "the monitor answers in the parent of this forked process; open a descriptor here, and serve that",
            ),
            Self::Read(error) => write!(f, "events cannot be read: {error}"),
        }
    }
}

fn reason(by: Stopped) -> String {
    if let Stopped::Other(errno) = by {
        return format!("the host answers {errno} again and again; free some memory");
    }
    format!("stopped by {by:?}")
}

impl core::error::Error for MonitorError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Spawn(error) => Some(error),
            Self::Source { error, .. } => Some(error),
            Self::Install { error, .. } | Self::Lift { error, .. } => Some(error),
            Self::Inline(error) | Self::Read(error) => Some(error),
            Self::SourcePanicked { .. }
            | Self::Panicked { .. }
            | Self::Stopped { .. }
            | Self::WritePanicked { .. }
            | Self::AlreadyServed
            | Self::OutsideRegion { .. }
            | Self::Unanswerable { .. }
            | Self::Forked => None,
        }
    }
}
