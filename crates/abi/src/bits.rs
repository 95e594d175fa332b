//! Sets of bits: features, modes, flags and the masks of available ioctls.
//!
//! One type per word of the protocol, so that a COPY mode cannot be passed where a WRITEPROTECT mode
//! is meant (their bits are swapped). Every type is an open set: unknown bits are kept and shown.
//!
//! Kernel counterpart: `UFFD_FEATURE_*`, `UFFDIO_*_MODE_*`, `UFFD_PAGEFAULT_FLAG_*`, `_UFFDIO_*`.

use core::fmt;

/// Makes one bit-set type. Bits without a name are legal and survive every operation.
macro_rules! bit_set {
    (
        $(#[$doc:meta])*
        pub struct $set:ident($raw:ty) {
            $($(#[$bit_doc:meta])* $name:ident = $value:expr;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set($raw);

        impl $set {
            $($(#[$bit_doc])* pub const $name: Self = Self($value);)*

            /// No bit.
            pub const NONE: Self = Self(0);

            /// All bits that have a name here.
            pub const ALL: Self = Self(0 $(| $value)*);

            const NAMES: &'static [(&'static str, $raw)] = &[$((stringify!($name), $value)),*];

            /// Takes any bits, named here or not.
            #[must_use]
            pub const fn from_bits(bits: $raw) -> Self {
                Self(bits)
            }

            /// The bits as they travel.
            #[must_use]
            pub const fn bits(self) -> $raw {
                self.0
            }

            /// Whether every bit of `other` is set; true if `other` is empty.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether a bit of `other` is set.
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of either.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits of `self` that are not in `other`.
            #[must_use]
            pub const fn difference(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether no bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The bits that have no name here.
            #[must_use]
            pub const fn unknown(self) -> Self {
                self.difference(Self::ALL)
            }
        }

        impl core::ops::BitOr for $set {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl core::ops::BitOrAssign for $set {
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl core::ops::BitAnd for $set {
            type Output = Self;

            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl core::ops::Sub for $set {
            type Output = Self;

            fn sub(self, other: Self) -> Self {
                self.difference(other)
            }
        }

        impl core::fmt::Display for $set {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let names = Self::NAMES
                    .iter()
                    .filter(|(_, bit)| self.contains(Self(*bit)))
                    .map(|(name, _)| *name);
                crate::bits::print(f, names, u64::from(self.unknown().0))
            }
        }

        impl core::fmt::Debug for $set {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use bit_set;

/// Prints names joined by `|`, then the unknown bits in hexadecimal; `NONE` for the empty set.
pub(crate) fn print(
    f: &mut fmt::Formatter<'_>,
    names: impl Iterator<Item = &'static str>,
    unknown: u64,
) -> fmt::Result {
    let mut separator = "";
    for name in names {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    if unknown != 0 {
        write!(f, "{separator}{unknown:#x}")
    } else if separator.is_empty() {
        f.write_str("NONE")
    } else {
        Ok(())
    }
}

bit_set! {
    /// Flags of `userfaultfd(2)` and of the device's [`NEW`](crate::request::NEW).
    ///
    /// # Source
    ///
    /// `userfaultfd(2)`; `O_NONBLOCK` and `O_CLOEXEC` as on x86, arm and riscv.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct OpenFlags(u32) {
        /// Faults taken inside the kernel are not handled.
        USER_MODE_ONLY = 0x1;
        /// `read` does not sleep.
        NONBLOCK = 0x800;
        /// The descriptor is closed by `execve`.
        CLOEXEC = 0x8_0000;
    }
}

bit_set! {
    /// Features, asked for and answered by `UFFDIO_API`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_API`; bits as answered by Linux 6.18.
    ///
    /// # Examples
    ///
    /// ```
    /// use userfault_abi::Features;
    ///
    /// let offered = Features::from_bits(0x1_0000_0100); // with a bit that has no name here
    /// assert!(offered.contains(Features::THREAD_ID));
    /// assert_eq!((offered - Features::THREAD_ID).unknown().bits(), 0x1_0000_0000);
    /// assert_eq!((Features::POISON | Features::MOVE).to_string(), "POISON|MOVE");
    /// ```
    pub struct Features(u64) {
        /// Write-protect faults are told apart by a flag.
        PAGEFAULT_FLAG_WP = 1 << 0;
        /// FORK messages; the child inherits the registrations.
        EVENT_FORK = 1 << 1;
        /// REMAP messages; `mremap` carries the registration along.
        EVENT_REMAP = 1 << 2;
        /// REMOVE messages, for `madvise`.
        EVENT_REMOVE = 1 << 3;
        /// Missing faults in hugetlb memory.
        MISSING_HUGETLBFS = 1 << 4;
        /// Missing faults in shared memory.
        MISSING_SHMEM = 1 << 5;
        /// UNMAP messages, for `munmap`.
        EVENT_UNMAP = 1 << 6;
        /// A fault raises SIGBUS instead of sending a message.
        SIGBUS = 1 << 7;
        /// Pagefault messages name the faulting thread.
        THREAD_ID = 1 << 8;
        /// Minor faults in hugetlb memory.
        MINOR_HUGETLBFS = 1 << 9;
        /// Minor faults in shared memory.
        MINOR_SHMEM = 1 << 10;
        /// Addresses are not rounded down to the page.
        EXACT_ADDRESS = 1 << 11;
        /// Write protection of shared and hugetlb memory.
        WP_HUGETLBFS_SHMEM = 1 << 12;
        /// Write protection also marks missing pages of anonymous memory.
        WP_UNPOPULATED = 1 << 13;
        /// `UFFDIO_POISON` exists.
        POISON = 1 << 14;
        /// Write-protect faults are resolved by the kernel and seen in the page map.
        WP_ASYNC = 1 << 15;
        /// `UFFDIO_MOVE` exists.
        MOVE = 1 << 16;
    }
}

bit_set! {
    /// What a registration asks for: the mode of `UFFDIO_REGISTER`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_REGISTER`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct RegisterModes(u64) {
        /// Accesses to pages that are missing.
        MISSING = 1 << 0;
        /// Writes to pages that are write-protected.
        WP = 1 << 1;
        /// Accesses to pages that are in the page cache but not mapped.
        MINOR = 1 << 2;
    }
}

bit_set! {
    /// The mode of `UFFDIO_COPY`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_COPY`.
    ///
    /// # Examples
    ///
    /// ```
    /// use userfault_abi::{CopyModes, WriteprotectModes};
    ///
    /// // The same two names and the same two bits, the other way round: hence two types.
    /// assert_eq!(CopyModes::WP.bits(), WriteprotectModes::DONTWAKE.bits());
    /// assert_eq!(CopyModes::DONTWAKE.bits(), WriteprotectModes::WP.bits());
    /// ```
    pub struct CopyModes(u64) {
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 0;
        /// The page is installed write-protected.
        WP = 1 << 1;
    }
}

bit_set! {
    /// The mode of `UFFDIO_ZEROPAGE`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_ZEROPAGE`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct ZeropageModes(u64) {
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 0;
    }
}

bit_set! {
    /// The mode of `UFFDIO_WRITEPROTECT`; the bits are the other way round than in [`CopyModes`].
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_WRITEPROTECT`.
    ///
    /// Example: [`CopyModes`].
    pub struct WriteprotectModes(u64) {
        /// Protect; without it, lift the protection.
        WP = 1 << 0;
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 1;
    }
}

bit_set! {
    /// The mode of `UFFDIO_CONTINUE`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_CONTINUE`; `WP` as accepted by Linux 6.18.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct ContinueModes(u64) {
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 0;
        /// The page is mapped write-protected.
        WP = 1 << 1;
    }
}

bit_set! {
    /// The mode of `UFFDIO_POISON`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_POISON`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct PoisonModes(u64) {
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 0;
    }
}

bit_set! {
    /// The mode of `UFFDIO_MOVE`.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_MOVE`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct MoveModes(u64) {
        /// Sleepers are left asleep.
        DONTWAKE = 1 << 0;
        /// A missing source page counts as moved instead of as an error.
        ALLOW_SRC_HOLES = 1 << 1;
    }
}

bit_set! {
    /// What kind of fault a pagefault message announces; no bit: a read of a missing page.
    ///
    /// # Source
    ///
    /// `userfaultfd(2)`, `struct uffd_msg`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct PagefaultFlags(u64) {
        /// The access was a write.
        WRITE = 1 << 0;
        /// The page is write-protected.
        WP = 1 << 1;
        /// The page is in the page cache but not mapped.
        MINOR = 1 << 2;
    }
}

bit_set! {
    /// Which ioctls are available, one bit per ioctl number.
    ///
    /// Answered by `UFFDIO_API` for the descriptor and by `UFFDIO_REGISTER` for the range.
    ///
    /// # Source
    ///
    /// `ioctl_userfaultfd(2)`, `UFFDIO_API` and `UFFDIO_REGISTER`.
    ///
    /// Example: [`Features`], which has the same operations.
    pub struct IoctlMask(u64) {
        /// `UFFDIO_REGISTER`.
        REGISTER = 1 << 0;
        /// `UFFDIO_UNREGISTER`.
        UNREGISTER = 1 << 1;
        /// `UFFDIO_WAKE`.
        WAKE = 1 << 2;
        /// `UFFDIO_COPY`.
        COPY = 1 << 3;
        /// `UFFDIO_ZEROPAGE`.
        ZEROPAGE = 1 << 4;
        /// `UFFDIO_MOVE`.
        MOVE = 1 << 5;
        /// `UFFDIO_WRITEPROTECT`.
        WRITEPROTECT = 1 << 6;
        /// `UFFDIO_CONTINUE`.
        CONTINUE = 1 << 7;
        /// `UFFDIO_POISON`.
        POISON = 1 << 8;
        /// `UFFDIO_API`.
        API = 1 << 63;
    }
}

#[cfg(test)]
mod tests;
