//! The argument structures of the ioctls.
//!
//! All fields are raw words: a mode with an unknown bit decodes, is judged by the callee, and encodes
//! unchanged. `INPUT` says how much the callee reads, `ANSWER` what it writes back on success; the
//! two tell which bytes a caller may leave undetermined and which it must not rely on.
//!
//! Kernel counterpart: `struct uffdio_*`.

use crate::words::{self, Word};

/// Gives a structure its layout. The pattern `Name { … }` and the list of words name the same fields;
/// the list is the order in memory.
macro_rules! layout {
    ($name:ident $fields:tt = [$($word:ident),*], size $size:literal, input $input:literal, answer $answer:expr) => {
        impl $name {
            /// Length of the structure, in bytes.
            pub const SIZE: usize = $size;

            /// How many bytes the callee copies in (modern protocol).
            pub const INPUT: usize = $input;

            /// Which bytes the callee writes back on success; empty if none.
            pub const ANSWER: core::ops::Range<usize> = $answer;

            /// Reads the structure from native-endian bytes; `None` if fewer than
            /// [`INPUT`](Self::INPUT) are given.
            ///
            /// A field after those that is not given in full reads as 0; bytes after
            /// [`SIZE`](Self::SIZE) are ignored.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                if bytes.len() < Self::INPUT {
                    return None;
                }
                let [$($word),*] = words::from_bytes::<{ Self::SIZE / size_of::<u64>() }>(bytes);
                $(let $word = Word::from_word($word);)*
                Some($name $fields)
            }

            /// Writes the whole structure as native-endian bytes.
            #[must_use]
            pub fn encode(&self) -> [u8; Self::SIZE] {
                let $name $fields = *self;
                words::to_bytes([$(Word::to_word($word)),*])
            }
        }
    };
}

/// `struct uffdio_api`: the handshake.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_API`. On most errors the callee writes it back too, as zeros.
///
/// # Examples
///
/// ```
/// use userfault_abi::{Api, Features, request};
///
/// let asked = Api { api: request::UFFD_API, features: Features::THREAD_ID.bits(), ioctls: 0 };
/// let bytes = asked.encode();
/// assert_eq!(bytes.len(), Api::SIZE);
/// assert_eq!(Api::decode(&bytes), Some(asked));
/// assert_eq!(Api::decode(&bytes[1..]), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Api {
    /// The version asked for, and answered: [`UFFD_API`](crate::request::UFFD_API).
    pub api: u64,
    /// [`Features`](crate::Features) asked for; answered: all the callee knows. In the original
    /// protocol this word is `bits`, which only the callee writes.
    pub features: u64,
    /// Answered: [`IoctlMask`](crate::IoctlMask) of the descriptor.
    pub ioctls: u64,
}

layout!(Api { api, features, ioctls } = [api, features, ioctls], size 24, input 24, answer 0..24);

/// `struct uffdio_range`: the argument of `UFFDIO_UNREGISTER` and `UFFDIO_WAKE`, and part of others.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_UNREGISTER`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

layout!(Range { start, len } = [start, len], size 16, input 16, answer 16..16);

/// `struct uffdio_register`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_REGISTER`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Register {
    /// What to register.
    pub range: Range,
    /// [`RegisterModes`](crate::RegisterModes).
    pub mode: u64,
    /// Answered: [`IoctlMask`](crate::IoctlMask) of the range.
    pub ioctls: u64,
}

layout!(
    Register { range: Range { start, len }, mode, ioctls } = [start, len, mode, ioctls],
    size 32, input 24, answer 24..32
);

/// `struct uffdio_copy`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_COPY`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Copy {
    /// Where the pages appear.
    pub dst: u64,
    /// Where their contents are; need not be aligned.
    pub src: u64,
    /// Length in bytes.
    pub len: u64,
    /// [`CopyModes`](crate::CopyModes).
    pub mode: u64,
    /// Answered: bytes done, or a negative error number.
    pub copy: i64,
}

layout!(
    Copy { dst, src, len, mode, copy } = [dst, src, len, mode, copy],
    size 40, input 32, answer 32..40
);

/// `struct uffdio_zeropage`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_ZEROPAGE`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Zeropage {
    /// Where the pages appear.
    pub range: Range,
    /// [`ZeropageModes`](crate::ZeropageModes).
    pub mode: u64,
    /// Answered: bytes done, or a negative error number.
    pub zeropage: i64,
}

layout!(
    Zeropage { range: Range { start, len }, mode, zeropage } = [start, len, mode, zeropage],
    size 32, input 24, answer 24..32
);

/// `struct uffdio_writeprotect`; there is no result word.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_WRITEPROTECT`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Writeprotect {
    /// What to protect, or to make writable again.
    pub range: Range,
    /// [`WriteprotectModes`](crate::WriteprotectModes).
    pub mode: u64,
}

layout!(
    Writeprotect { range: Range { start, len }, mode } = [start, len, mode],
    size 24, input 24, answer 24..24
);

/// `struct uffdio_continue`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_CONTINUE`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Continue {
    /// Where the cached pages are to be mapped.
    pub range: Range,
    /// [`ContinueModes`](crate::ContinueModes).
    pub mode: u64,
    /// Answered: bytes done, or a negative error number.
    pub mapped: i64,
}

layout!(
    Continue { range: Range { start, len }, mode, mapped } = [start, len, mode, mapped],
    size 32, input 24, answer 24..32
);

/// `struct uffdio_poison`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_POISON`.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Poison {
    /// What to make unreadable.
    pub range: Range,
    /// [`PoisonModes`](crate::PoisonModes).
    pub mode: u64,
    /// Answered: bytes done, or a negative error number.
    pub updated: i64,
}

layout!(
    Poison { range: Range { start, len }, mode, updated } = [start, len, mode, updated],
    size 32, input 24, answer 24..32
);

/// `struct uffdio_move`.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_MOVE`. The last field is called `move` there, a keyword here.
///
/// Example: [`Api`], which is read and written in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Move {
    /// Where the pages go.
    pub dst: u64,
    /// Where they are.
    pub src: u64,
    /// Length in bytes.
    pub len: u64,
    /// [`MoveModes`](crate::MoveModes).
    pub mode: u64,
    /// Answered: bytes done, or a negative error number.
    pub moved: i64,
}

layout!(
    Move { dst, src, len, mode, moved } = [dst, src, len, mode, moved],
    size 40, input 32, answer 32..40
);

#[cfg(test)]
mod tests;
