//! What the original protocol (May 2015) has instead of messages and features.
//!
//! A fault is announced as one 64-bit word: a page address whose low bits, always 0 in a page
//! address, carry the kind of access.
//!
//! Kernel counterpart: `<linux/userfaultfd.h>` as posted in May 2015 (patch 03 of 23).

use crate::bits::IoctlMask;

/// How many bytes of `struct uffdio_api` the handshake reads: the version only.
///
/// # Source
///
/// The patch series of May 2015, 10 of 23.
pub const API_INPUT: usize = 8;

/// The `bits` word that the handshake answers: only the write bit has a meaning.
///
/// # Source
///
/// The patch series of May 2015, 03 of 23.
pub const API_BITS: u64 = 0x1;

/// The ioctls that the handshake answers.
///
/// # Source
///
/// The patch series of May 2015, 03 of 23.
pub const API_IOCTLS: IoctlMask = IoctlMask::REGISTER.union(IoctlMask::UNREGISTER).union(IoctlMask::API);

/// The ioctls that REGISTER answers for a range.
///
/// # Source
///
/// The patch series of May 2015, 03 of 23.
pub const RANGE_IOCTLS: IoctlMask = IoctlMask::WAKE;

/// The ioctls that REGISTER answers for a range once COPY and ZEROPAGE exist.
///
/// # Source
///
/// The patch series of May 2015, 20 to 23 of 23.
pub const RANGE_IOCTLS_WITH_FILLS: IoctlMask = IoctlMask::WAKE.union(IoctlMask::COPY).union(IoctlMask::ZEROPAGE);

/// One fault, as it travels.
///
/// # Source
///
/// The patch series of May 2015, 03 of 23.
///
/// # Examples
///
/// ```
/// use userfault_abi::original::Word;
///
/// let word = Word::new(0x7000, true, false);
/// assert_eq!(word.to_bytes(), 0x7001_u64.to_ne_bytes());
/// assert_eq!((word.address(4096), word.is_write()), (0x7000, true));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Word(u64);

impl Word {
    /// Length of a word, in bytes.
    pub const SIZE: usize = 8;

    /// Set if the access was a write (`UFFD_BIT_WRITE`).
    pub const BIT_WRITE: u64 = 1 << 0;

    /// Set if the page is write-protected (`UFFD_BIT_WP`).
    pub const BIT_WP: u64 = 1 << 1;

    /// How many low bits of the address are used (`UFFD_BITS`).
    pub const BITS: u32 = 2;

    /// Announces an access to the page at `page_address`, whose low [`BITS`](Self::BITS) bits are
    /// replaced.
    #[must_use]
    pub const fn new(page_address: u64, write: bool, write_protect: bool) -> Self {
        let mut word = page_address & !(Self::BIT_WRITE | Self::BIT_WP);
        if write {
            word |= Self::BIT_WRITE;
        }
        if write_protect {
            word |= Self::BIT_WP;
        }
        Self(word)
    }

    /// The address of the page; `page_size` in bytes, a power of two.
    #[must_use]
    pub const fn address(self, page_size: u64) -> u64 {
        self.0 & !page_size.wrapping_sub(1)
    }

    /// Whether the access was a write.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 & Self::BIT_WRITE != 0
    }

    /// Whether the page is write-protected.
    #[must_use]
    pub const fn is_write_protect(self) -> bool {
        self.0 & Self::BIT_WP != 0
    }

    /// Takes the native-endian bytes as read from the descriptor.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }

    /// The word as native-endian bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        self.0.to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::{API_BITS, API_INPUT, API_IOCTLS, RANGE_IOCTLS, RANGE_IOCTLS_WITH_FILLS, Word};
    use crate::testing::Words;

    #[test]
    fn every_constant_has_its_number() {
        assert_eq!(API_INPUT, 8);
        assert_eq!(API_BITS, 0x1);
        assert_eq!(API_IOCTLS.bits(), 0x8000_0000_0000_0003);
        assert_eq!(RANGE_IOCTLS.bits(), 0x4);
        assert_eq!(RANGE_IOCTLS_WITH_FILLS.bits(), 0x1C);
        assert_eq!((Word::BIT_WRITE, Word::BIT_WP, Word::BITS, Word::SIZE), (1, 2, 2, 8));
    }

    #[test]
    fn a_word_is_the_page_address_and_two_bits() {
        for (address, write, write_protect, word) in [
            (0x7000, false, false, 0x7000_u64),
            (0x7000, true, false, 0x7001),
            (0x7000, false, true, 0x7002),
            (0x7000, true, true, 0x7003),
            (0, true, false, 1),
            (0xFFFF_FFFF_FFFF_F000, true, true, 0xFFFF_FFFF_FFFF_F003),
        ] {
            let built = Word::new(address, write, write_protect);
            assert_eq!(built.to_bytes(), word.to_ne_bytes());
            assert_eq!(built.address(4096), address);
            assert_eq!(built.is_write(), write);
            assert_eq!(built.is_write_protect(), write_protect);
        }
    }

    #[test]
    fn the_low_bits_of_the_address_given_do_not_pose_as_flags() {
        assert_eq!(Word::new(0x7003, false, false), Word::new(0x7000, false, false));
        assert_eq!(Word::new(0x7007, false, false).to_bytes(), 0x7004_u64.to_ne_bytes());
    }

    #[test]
    fn the_address_is_rounded_down_to_the_page_size_given() {
        let word = Word::from_bytes(0x0020_1FFF_u64.to_ne_bytes());
        for (page_size, address) in [
            (1, 0x0020_1FFF),
            (4, 0x0020_1FFC),
            (0x1000, 0x0020_1000),
            (0x20_0000, 0x20_0000),
            (1 << 63, 0),
            (0, 0), // not a page size, but not a panic either
        ] {
            assert_eq!(word.address(page_size), address, "pages of {page_size:#x}");
        }
    }

    #[test]
    fn any_bytes_survive() {
        let mut words = Words::from_seed(0x5EED_0005);
        for _ in 0..crate::testing::rounds(1_000) {
            let bytes = words.bytes();
            assert_eq!(Word::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}
