//! What can go wrong, one enum per operation; variants name the broken rule.

use std::error::Error;
use std::fmt::{Display, Formatter, Result as Written};
use std::io;

/// Why memory could not be mapped. Nothing is mapped after it.
///
/// Example: [`Mapping`](crate::Mapping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// No bytes were asked for.
    Empty,
    /// More bytes were asked for than one Rust object may have (`isize::MAX`).
    TooLarge {
        /// What was asked for, saturated where the product overflows.
        len_bytes: usize,
    },
    /// The alignment is not a power of two, or is larger than the page where only that is offered.
    Alignment {
        /// What was asked for.
        align_bytes: usize,
    },
    /// The kernel refused.
    Os {
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

impl Display for MapError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Empty => f.write_str("a mapping needs at least one byte"),
            Self::TooLarge { len_bytes } => {
                write!(f, "{len_bytes} bytes are more than one mapping may have ({} bytes)", isize::MAX)
            }
            Self::Alignment { align_bytes } => {
                write!(f, "an alignment of {align_bytes} bytes is not a power of two that a mapping can have")
            }
            Self::Os { call, errno } => {
                write!(f, "{call} failed: {}", io::Error::from_raw_os_error(errno))?;
                if errno == libc::ENOMEM {
                    f.write_str("; see vm.max_map_count, vm.overcommit_memory and RLIMIT_AS")?;
                }
                Ok(())
            }
        }
    }
}

impl Error for MapError {}

/// Why a byte range does not name pages of a mapping.
///
/// Example: [`Advice`](crate::Advice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// The end does not come after the start.
    Empty {
        /// First byte.
        start: usize,
        /// End, exclusive.
        end: usize,
    },
    /// A bound is not a multiple of the page size.
    Unaligned {
        /// The first bound that is not.
        offset: usize,
    },
    /// The range ends behind the end of what it is taken from.
    OutOfBounds {
        /// End asked for, exclusive.
        end: usize,
        /// Bytes there are.
        len_bytes: usize,
    },
}

impl Display for RangeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Empty { start, end } => write!(f, "the range [{start:#x}, {end:#x}) is empty"),
            Self::Unaligned { offset } => {
                write!(f, "{offset:#x} is not a multiple of the page size")
            }
            Self::OutOfBounds { end, len_bytes } => {
                write!(f, "the range ends at {end:#x}, but there are {len_bytes:#x} bytes")
            }
        }
    }
}

impl Error for RangeError {}

/// Why a part of a mapping could not be lent. The claims are unchanged after it.
///
/// Example: [`Mapping`](crate::Mapping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LendError {
    /// The range does not name pages of the mapping.
    Range(RangeError),
    /// A [`Window`](crate::Window) holds some of it.
    HeldByWindow {
        /// First byte of that window in the mapping.
        start: usize,
        /// Its end, exclusive.
        end: usize,
    },
    /// A [`Shared`](crate::Shared) holds some of it.
    HeldByShared {
        /// First byte of that loan in the mapping.
        start: usize,
        /// Its end, exclusive.
        end: usize,
    },
}

impl Display for LendError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Range(ref cause) => cause.fmt(f),
            Self::HeldByWindow { start, end } => {
                write!(f, "a window holds [{start:#x}, {end:#x}) exclusively; drop it first")
            }
            Self::HeldByShared { start, end } => {
                write!(f, "[{start:#x}, {end:#x}) is lent as shared; drop every clone of that first")
            }
        }
    }
}

impl Error for LendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Range(cause) => Some(cause),
            Self::HeldByWindow { .. } | Self::HeldByShared { .. } => None,
        }
    }
}

impl From<RangeError> for LendError {
    fn from(cause: RangeError) -> Self {
        Self::Range(cause)
    }
}

/// Why an access to shared memory did not happen. No byte is copied.
///
/// Example: [`Shared`](crate::Shared).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessError {
    /// The access would reach behind the end.
    OutOfBounds {
        /// First byte asked for.
        offset: usize,
        /// Bytes asked for.
        len_bytes: usize,
        /// Bytes there are.
        limit_bytes: usize,
    },
}

impl Display for AccessError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::OutOfBounds { offset, len_bytes, limit_bytes } => write!(
                f,
                "{len_bytes} bytes at {offset:#x} reach behind the end of shared memory of {limit_bytes:#x} bytes"
            ),
        }
    }
}

impl Error for AccessError {}

/// Why the kernel did not take a piece of advice.
///
/// Example: [`Advice`](crate::Advice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdviseError {
    /// The range does not name pages of the mapping. Nothing was advised.
    Range(RangeError),
    /// The advice ends contents that a [`Window`](crate::Window) lends as slices. Nothing was advised.
    HeldByWindow {
        /// First byte of that window in the mapping.
        start: usize,
        /// Its end, exclusive.
        end: usize,
    },
    /// The kernel refused; it may have taken the advice for a part of the range.
    Os {
        /// The error number of `madvise`.
        errno: i32,
    },
}

impl Display for AdviseError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Range(ref cause) => cause.fmt(f),
            Self::HeldByWindow { start, end } => {
                write!(f, "a window holds [{start:#x}, {end:#x}); discard through it, or drop it first")
            }
            Self::Os { errno } => {
                write!(f, "madvise failed: {}", io::Error::from_raw_os_error(errno))
            }
        }
    }
}

impl Error for AdviseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Range(cause) => Some(cause),
            Self::HeldByWindow { .. } | Self::Os { .. } => None,
        }
    }
}

impl From<RangeError> for AdviseError {
    fn from(cause: RangeError) -> Self {
        Self::Range(cause)
    }
}

/// Why contents were not discarded.
///
/// Example: [`Window`](crate::Window).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscardError {
    /// The range does not name pages of what was lent. Nothing was discarded.
    Range(RangeError),
    /// The kernel refused; a part of the range may have been discarded.
    Os {
        /// The error number of `madvise`.
        errno: i32,
    },
}

impl Display for DiscardError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Range(ref cause) => cause.fmt(f),
            Self::Os { errno } => {
                write!(f, "madvise(MADV_DONTNEED) failed: {}", io::Error::from_raw_os_error(errno))
            }
        }
    }
}

impl Error for DiscardError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Range(cause) => Some(cause),
            Self::Os { .. } => None,
        }
    }
}

impl From<RangeError> for DiscardError {
    fn from(cause: RangeError) -> Self {
        Self::Range(cause)
    }
}
