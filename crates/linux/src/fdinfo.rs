//! What `/proc/self/fdinfo` says about a descriptor: who waits, and which features are on.
//!
//! The handshake cannot be asked twice and answers what exists, not what is on (SPEC trap 18); this
//! is the only way to learn the latter of a descriptor that somebody else enabled.
//!
//! Kernel counterpart: `/proc/PID/fdinfo` of `userfaultfd(2)`.

use std::os::fd::{AsFd, AsRawFd};

use userfault_abi::Features;
use userfault_client::{Errno, UffdError};

use crate::context::system;

/// Set beside the features once the handshake is done, on kernels that show it.
const ENABLED: u64 = 1 << 31;

/// The lines of `fdinfo` that are about userfaultfd.
///
/// # Examples
///
/// ```
/// use userfault_linux::{FdInfo, Uffd};
///
/// assert!(FdInfo::of(std::fs::File::open("/dev/null")?).is_err());
/// if let Ok(uffd) = Uffd::open(&Default::default()) {
///     let info = uffd.info()?;
///     assert_eq!((info.pending, info.total), (0, 0));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdInfo {
    /// Faults that nobody has read.
    pub pending: u64,
    /// Sleeping threads, their message read or not.
    pub total: u64,
    /// The features that are on.
    pub features: Features,
    /// Whether the handshake is done. Kernels that do not show it are believed to have done it if
    /// any feature is on.
    pub is_enabled: bool,
}

impl FdInfo {
    /// Asks the kernel about `descriptor`.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`] if `/proc` is not there, or if this is no userfaultfd (`EINVAL`).
    ///
    /// # Source
    ///
    /// `m/fdinfo`, observed on 6.18.
    pub fn of(descriptor: impl AsFd) -> Result<Self, UffdError> {
        let number = descriptor.as_fd().as_raw_fd();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            system("reading /proc/self/fdinfo", errno)
        })?;
        Self::parse(&text).ok_or(system("reading a descriptor that is no userfaultfd", Errno::EINVAL))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (_, words) = field("API:")?.split_once(':')?;
        let (features, _) = words.split_once(':')?;
        let bits = u64::from_str_radix(features, 16).ok()?;
        Some(Self {
            pending: field("pending:")?.parse().ok()?,
            total: field("total:")?.parse().ok()?,
            features: Features::from_bits(bits & !ENABLED),
            is_enabled: bits != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: m/fdinfo
    #[test]
    fn the_features_in_force_are_told_apart_from_the_mark_of_the_handshake() {
        for (word, features, is_enabled) in [
            ("0", 0, false),
            ("80000000", 0, true),
            ("80000009", 9, true),
            ("8001ffff", 0x1_FFFF, true),
            ("9", 9, true),
        ] {
            let text = format!(
                "pos:\t0\nflags:\t02004002\nmnt_id:\t15\nino:\t1057\npending:\t2\ntotal:\t3\nAPI:\taa:{word}:80000000000001ff\n"
            );
            let expected = FdInfo { pending: 2, total: 3, features: Features::from_bits(features), is_enabled };
            assert_eq!(FdInfo::parse(&text), Some(expected), "{word}");
        }
    }

    #[test]
    fn anything_else_is_no_userfaultfd() {
        for text in [
            "",
            "pos:\t0\nflags:\t02\n",
            "pending:\t1\ntotal:\t1\nAPI:\taa\n",
            "pending:\tx\ntotal:\t1\nAPI:\taa:0:0\n",
        ] {
            assert_eq!(FdInfo::parse(text), None, "{text:?}");
        }
    }
}
