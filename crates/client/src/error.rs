//! Why a request could not be tried.
//!
//! Every variant names the broken rule and leaves memory and descriptor unchanged. What happened
//! after some pages were done is not an error but a [`Progress`](crate::Progress).

use core::fmt;
use core::ops::Range;

use userfault_abi::errno::Errno;
use userfault_abi::{Features, RegisterModes};

use crate::Provider;

/// Why a request could not be tried; nothing changed.
///
/// # Examples
///
/// ```
/// use userfault_client::{Errno, Provider, Refusal, UffdError};
///
/// let refusal = Refusal { way: "/dev/userfaultfd", errno: Errno::EACCES, remedy: "give the user's group the device" };
/// let error = UffdError::Refused { provider: Provider::Linux, tried: vec![refusal] };
/// assert_eq!(
///     error.to_string(),
///     "provider `linux` is refused on this machine\n  /dev/userfaultfd: EACCES (13); give the user's group the device"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UffdError {
    /// Opening was refused, step by step.
    Refused {
        /// The provider that was asked.
        provider: Provider,
        /// Each way that was tried, in order.
        tried: Vec<Refusal>,
    },
    /// Required features are not there.
    FeaturesMissing {
        /// What was asked for and is not offered.
        missing: Features,
    },
    /// The memory cannot be registered with these modes.
    ModesUnsupported {
        /// What was asked for and is not offered.
        modes: RegisterModes,
    },
    /// This provider has no such operation (yet).
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The provider that lacks it.
        provider: Provider,
    },
    /// A page range is empty, backwards or leaves the region.
    OutsideRegion {
        /// What was asked for, in pages from the start of the region.
        asked: Range<usize>,
        /// How many pages the region has.
        pages: usize,
    },
    /// A buffer is not a whole, positive number of pages.
    NotWholePages {
        /// Length of the buffer in bytes.
        len_bytes: usize,
        /// Bytes per page.
        page_size: usize,
    },
    /// A window given to `discard` belongs to another region.
    ForeignWindow,
    /// Part of the range is lent already in a way that excludes this one.
    Lent {
        /// What was asked for, in pages from the start of the region.
        asked: Range<usize>,
    },
    /// The memory is the program's own, adopted where it stood: it is reached through the program's own
    /// references, never lent.
    Adopted,
    /// Pages of adopted memory could not be made accessible: they are registered still. The others that were
    /// asked for are the program's again.
    StillRegistered {
        /// How many pages.
        pages: usize,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The kernel refused a change of the program's memory halfway, and then refused to undo the first half.
    LeftClosed {
        /// The addresses that are inaccessible still, with their contents. The program may try `mprotect` itself.
        range: Range<usize>,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The descriptor was shut down; blocked reads end with this.
    ShutDown,
    /// The descriptor was opened by another process: this is its forked child.
    Forked,
    /// The calling thread blocks SIGSEGV: its first touch of a missing page would end the process without a
    /// word, since a fault whose signal is blocked kills.
    SignalBlocked,
    /// SIGSEGV goes to somebody who came after the host: unless they call the handler they replaced, a touch of
    /// a missing page looks like a crash.
    HandlerReplaced {
        /// What is there now, in a sentence: the handler's address, and its symbol and file where the loader
        /// knows.
        found: String,
    },
    /// Faults of this memory cannot be answered by the thread that has them.
    NotInline {
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The host answered with an error.
    System {
        /// What was being done.
        operation: &'static str,
        /// What it answered.
        errno: Errno,
    },
}

/// One way of opening that was tried, and what came of it.
///
/// Example: [`UffdError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The way: `userfaultfd(2)`, `/dev/userfaultfd`, a probe of the process provider.
    pub way: &'static str,
    /// The answer; `ENOSYS`, `EPERM`, `EACCES` and `ENOENT` are different answers.
    pub errno: Errno,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.way, self.errno, self.remedy)
    }
}

impl fmt::Display for UffdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { provider, tried } => {
                write!(f, "provider `{provider}` is refused on this machine")?;
                tried.iter().try_for_each(|refusal| write!(f, "\n  {refusal}"))
            }
            Self::FeaturesMissing { missing } => write!(f, "required features are not offered here: {missing}"),
            Self::ModesUnsupported { modes } => write!(f, "this memory cannot be registered for {modes}"),
            Self::Unsupported { operation, provider } => {
                write!(f, "provider `{provider}` has no {operation}; use another provider or leave it out")
            }
            Self::OutsideRegion { asked, pages } => {
                write!(f, "pages {}..{} asked for, but the region has pages 0..{pages}", asked.start, asked.end)
            }
            Self::NotWholePages { len_bytes, page_size } => {
                write!(f, "{len_bytes} bytes given, but a whole, positive number of {page_size}-byte pages is needed")
            }
            Self::ForeignWindow => f.write_str("the window belongs to another region; pass one lent by this region"),
            Self::Lent { asked } => {
                write!(f, "pages {}..{} are lent already; drop the other window first", asked.start, asked.end)
            }
            Self::Adopted => f.write_str(
                "adopted memory is not lent: use the program's own references, and discard_adopted to end contents",
            ),
            Self::StillRegistered { pages, errno } => {
                write!(f, "{pages} pages could not be made accessible ({errno}) and are registered still; ask again")
            }
            Self::LeftClosed { range: Range { start, end }, errno } => write!(
                f,
                "the memory at {start:#x}..{end:#x} could not be adopted, and is left inaccessible: {errno}; allow \
                 access by mprotect, once the kernel has memory for it"
            ),
            Self::ShutDown => f.write_str("the descriptor was shut down"),
            Self::Forked => {
                f.write_str("the descriptor belongs to the parent of this forked process; open a new one here")
            }
            Self::SignalBlocked => f.write_str(
                "this thread blocks SIGSEGV, so its first touch of a missing page would end the process; unblock it \
                 (pthread_sigmask, or userfault::unblock_faults) before regions are made",
            ),
            Self::HandlerReplaced { found } => write!(
                f,
                "page faults do not come to their handler first: {found}; set other handlers before the first \
                 descriptor is opened and none afterwards, or, if one calls the handler it replaced, say so \
                 (accept_handler)"
            ),
            Self::NotInline { reason } => write!(f, "faults cannot be answered inline: {reason}"),
            Self::System { operation, errno } => write!(f, "{operation} failed: {errno}"),
        }
    }
}

impl core::error::Error for UffdError {}
