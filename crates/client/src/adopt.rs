//! Why memory that the program mapped itself could not be registered where it stands.

use core::fmt;
use core::ops::Range;

use userfault_abi::errno::Errno;
use userfault_memory::{SurveyError, Unfit};

use crate::UffdError;

/// Why memory was not adopted. Nothing has changed, but for [`LeftClosed`](Self::LeftClosed).
///
/// # Examples
///
/// ```
/// use userfault_client::{AdoptError, Unfit};
///
/// let error = AdoptError::Unfit { range: 0x7000..0x8000, why: Unfit::Locked };
/// assert_eq!(
///     error.to_string(),
///     "the memory at 0x7000..0x8000 cannot be adopted: it is locked into memory (mlock); unlock it first"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// There is no whole page in it.
    NoWholePage {
        /// Its length in bytes.
        len_bytes: usize,
        /// Bytes per page.
        page_size: usize,
    },
    /// Some of it is not fit for that.
    Unfit {
        /// The addresses that are in the way.
        range: Range<usize>,
        /// Why.
        why: Unfit,
    },
    /// The kernel refused a change halfway, and then refused to undo the first half.
    LeftClosed {
        /// The addresses that are inaccessible still, with their contents. The program may try `mprotect` itself.
        range: Range<usize>,
        /// What the kernel answered.
        errno: Errno,
    },
    /// What can go wrong with any request.
    Uffd(UffdError),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWholePage { len_bytes, page_size } => {
                write!(f, "there is no whole {page_size}-byte page in these {len_bytes} bytes; adopt a larger piece")
            }
            Self::Unfit { range, why } => {
                write!(f, "the memory at {:#x}..{:#x} cannot be adopted: {why}", range.start, range.end)
            }
            Self::LeftClosed { range, errno } => {
                let Range { start, end } = range;
                write!(
                    f,
                    "the memory at {start:#x}..{end:#x} could not be adopted, and is left inaccessible: {errno}; "
                )?;
                f.write_str("allow access by mprotect, once the kernel has memory for it")
            }
            Self::Uffd(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl core::error::Error for AdoptError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Uffd(error) => Some(error),
            Self::NoWholePage { .. } | Self::Unfit { .. } | Self::LeftClosed { .. } => None,
        }
    }
}

impl From<UffdError> for AdoptError {
    fn from(error: UffdError) -> Self {
        Self::Uffd(error)
    }
}

impl From<SurveyError> for AdoptError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Unfit { range, why } => Self::Unfit { range, why },
            SurveyError::Unknown { what, error } => {
                // A list that says too little has no number.
                let errno = error.raw_os_error().map_or(Errno::ENOSYS, Errno::from_raw);
                Self::Uffd(UffdError::System { operation: what, errno })
            }
            _ => Self::Uffd(UffdError::System { operation: "looking at the memory", errno: Errno::ENOSYS }),
        }
    }
}
