//! How far a fill came, and what stopped it.
//!
//! Partial progress is an ordinary value: a monitor that races another fills some pages and finds
//! others present. Only a request that could not be tried at all is an error.

use core::fmt;
use userfault_abi::errno::Errno;

/// The result of a request over consecutive pages.
///
/// # Examples
///
/// ```
/// use userfault_client::{Progress, Stopped};
///
/// let progress = Progress::stopped(3, Stopped::AlreadyPresent);
/// assert_eq!(progress.pages_done, 3);
/// assert!(progress.complete().unwrap_err().to_string().starts_with("3 pages done; the next is present already"));
/// assert_eq!(Progress::all(4).complete(), Ok(4));
/// ```
#[must_use = "a fill may have stopped early; look at `stopped_by` or call `complete`"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages done, counted from the first.
    pub pages_done: usize,
    /// Why the page after those was not done; `None` when all were.
    pub stopped_by: Option<Stopped>,
}

/// Why a request stopped before its end.
///
/// Example: [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The page is there already (`EEXIST`). Nobody was woken: call `wake` if somebody may wait.
    AlreadyPresent,
    /// An event other than a fault waits on the descriptor (`EAGAIN`): read it, then go on.
    EventPending,
    /// The source of a copy could not be read (`EFAULT`).
    SourceUnreadable,
    /// The range is no longer mapped and registered as one piece (`ENOENT`).
    NotRegistered,
    /// The address space is gone (`ESRCH`).
    Gone,
    /// Anything else the host answered.
    Other(Errno),
}

impl Progress {
    /// All of `pages` were done.
    pub const fn all(pages: usize) -> Self {
        Self { pages_done: pages, stopped_by: None }
    }

    /// `pages_done` were done, then `stopped_by` happened.
    pub const fn stopped(pages_done: usize, stopped_by: Stopped) -> Self {
        Self { pages_done, stopped_by: Some(stopped_by) }
    }

    /// Turns an early stop into an error, for callers that expect everything to be done.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] with the same contents when `stopped_by` is set.
    pub fn complete(self) -> Result<usize, Incomplete> {
        match self.stopped_by {
            None => Ok(self.pages_done),
            Some(stopped_by) => Err(Incomplete { pages_done: self.pages_done, stopped_by }),
        }
    }
}

impl Stopped {
    /// Maps what a host answered for the first page that was not done.
    #[must_use]
    pub fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::AlreadyPresent,
            Errno::EAGAIN => Self::EventPending,
            Errno::EFAULT => Self::SourceUnreadable,
            Errno::ENOENT => Self::NotRegistered,
            Errno::ESRCH => Self::Gone,
            other => Self::Other(other),
        }
    }
}

/// A request that was expected to finish and did not.
///
/// Example: [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Pages done, counted from the first.
    pub pages_done: usize,
    /// Why the next one was not.
    pub stopped_by: Stopped,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.pages_done;
        match self.stopped_by {
            Stopped::AlreadyPresent => {
                write!(f, "{done} pages done; the next is present already: wake its range if a thread may wait")
            }
            Stopped::EventPending => write!(f, "{done} pages done; an event waits: read it, then repeat the rest"),
            Stopped::SourceUnreadable => write!(f, "{done} pages done; the source of the next cannot be read"),
            Stopped::NotRegistered => write!(f, "{done} pages done; the rest is not one registered mapping"),
            Stopped::Gone => write!(f, "{done} pages done; the address space is gone"),
            Stopped::Other(errno) => write!(f, "{done} pages done; the next was refused: {errno}"),
        }
    }
}

impl core::error::Error for Incomplete {}
