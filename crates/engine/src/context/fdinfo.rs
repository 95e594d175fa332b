//! What `/proc/PID/fdinfo` says about a descriptor.
//!
//! Kernel counterpart: the `pending`, `total` and `API` lines.

use core::fmt;

use userfault_abi::original;
use userfault_abi::request::UFFD_API;

use crate::context::{ContextId, FEATURES, Protocol};
use crate::host::{Embedder, Lock};
use crate::space::AddressSpace;

/// The three lines, as values; `Display` prints them as the kernel does, final newline included.
///
/// # Examples
///
/// ```
/// use userfault_engine::FdInfo;
///
/// let info = FdInfo { pending: 1, total: 3, features: 0x100, ioctls: 0x1f };
/// assert_eq!(info.to_string(), "pending:\t1\ntotal:\t3\nAPI:\taa:100:1f\n");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdInfo {
    /// Unread messages.
    pub pending: u64,
    /// Announced sleepers, read or not.
    pub total: u64,
    /// Second field of the API line.
    pub features: u64,
    /// Third field of the API line.
    pub ioctls: u64,
}

/// Bit 31 of the features in force says "handshake done" (`m/fdinfo`).
const INITIALISED: u64 = 1 << 31;

impl<E: Embedder> AddressSpace<E> {
    /// The counts and the API line, taken together.
    pub fn fdinfo(&self, context: ContextId) -> Option<FdInfo> {
        self.state.with(|state| {
            let context = state.contexts.get(context.0)?;
            let (features, ioctls) = match context.rules.protocol {
                Protocol::Original { .. } => {
                    (original::API_BITS, original::API_IOCTLS | context.rules.range_ioctls(context.rules.modes))
                }
                Protocol::Modern => {
                    let features = if context.is_running() { INITIALISED | context.features.bits() } else { 0 };
                    (features, original::API_IOCTLS | context.rules.range_ioctls(context.rules.modes))
                }
            };
            Some(FdInfo { pending: context.unread.len, total: context.sleepers(), features, ioctls: ioctls.bits() })
        })
    }

    /// Everything that a modern handshake can ask of the engine.
    #[must_use]
    pub const fn available_features() -> userfault_abi::Features {
        FEATURES
    }
}

impl fmt::Display for FdInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pending, total, features, ioctls } = self;
        writeln!(f, "pending:\t{pending}\ntotal:\t{total}\nAPI:\t{UFFD_API:x}:{features:x}:{ioctls:x}")
    }
}
