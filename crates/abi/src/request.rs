//! The request words of the ioctls, and how a descriptor is obtained.
//!
//! A request word holds direction, argument size, type and number. The directions are written from
//! the caller's point of view: `READ` means that the callee writes the argument back.
//!
//! Kernel counterpart: `UFFDIO_*` in `userfaultfd.h`, `_IOC` in `asm-generic/ioctl.h`.

/// The ioctl type byte that all requests share (`UFFDIO`, `USERFAULTFD_IOC`).
///
/// # Source
///
/// `<linux/userfaultfd.h>`.
pub const TYPE: u8 = 0xAA;

/// The one protocol version, named in the handshake (`UFFD_API`).
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_API`.
pub const UFFD_API: u64 = 0xAA;

/// The number of the `userfaultfd` system call on x86-64.
///
/// # Source
///
/// `userfaultfd(2)`; the x86-64 system call table.
pub const SYSCALL_X86_64: i64 = 323;

/// The device that hands out descriptors by [`NEW`].
///
/// # Source
///
/// `userfaultfd(2)`.
pub const DEVICE_PATH: &str = "/dev/userfaultfd";

/// Direction of a request without an argument structure.
pub const VOID: u8 = 0;

/// Direction bit: the callee reads the argument.
pub const WRITE: u8 = 1;

/// Direction bit: the callee writes the argument back.
pub const READ: u8 = 2;

/// Puts a request word together; `size` is in bytes, and only its low 14 bits fit.
///
/// # Source
///
/// The common ioctl encoding (x86, arm, riscv, s390); powerpc, mips, sparc, alpha and parisc encode
/// the direction differently.
///
/// # Examples
///
/// ```
/// use userfault_abi::request::{self, READ, WRITE, ioc};
///
/// assert_eq!(ioc(READ | WRITE, 0x03, 40), request::COPY);
/// assert_eq!(request::name(0xC028_AA03), Some("COPY"));
/// ```
#[must_use]
pub const fn ioc(direction: u8, number: u8, size: u16) -> u32 {
    let [size_low, size_high] = size.to_le_bytes();
    u32::from_le_bytes([number, TYPE, size_low, (size_high & 0x3F) | (direction << 6)])
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $direction:expr, $number:literal, $size:literal;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Source
            ///
            /// `ioctl_userfaultfd(2)`, `<linux/userfaultfd.h>`.
            pub const $name: u32 = ioc($direction, $number, $size);
        )*

        /// The short name of a request word; `None` if it has none here.
        #[must_use]
        pub const fn name(request: u32) -> Option<&'static str> {
            match request {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

requests! {
    /// `UFFDIO_API`: the handshake. Argument: [`Api`](crate::Api).
    API = READ | WRITE, 0x3F, 24;
    /// `UFFDIO_REGISTER`. Argument: [`Register`](crate::Register).
    REGISTER = READ | WRITE, 0x00, 32;
    /// `UFFDIO_UNREGISTER`. Argument: [`Range`](crate::Range), only read by the callee although the
    /// direction says otherwise: a historical mistake that stays.
    UNREGISTER = READ, 0x01, 16;
    /// `UFFDIO_WAKE`. Argument: [`Range`](crate::Range), only read, as for [`UNREGISTER`].
    WAKE = READ, 0x02, 16;
    /// `UFFDIO_COPY`. Argument: [`Copy`](crate::Copy).
    COPY = READ | WRITE, 0x03, 40;
    /// `UFFDIO_ZEROPAGE`. Argument: [`Zeropage`](crate::Zeropage).
    ZEROPAGE = READ | WRITE, 0x04, 32;
    /// `UFFDIO_MOVE`. Argument: [`Move`](crate::Move).
    MOVE = READ | WRITE, 0x05, 40;
    /// `UFFDIO_WRITEPROTECT`. Argument: [`Writeprotect`](crate::Writeprotect), nothing comes back.
    WRITEPROTECT = READ | WRITE, 0x06, 24;
    /// `UFFDIO_CONTINUE`. Argument: [`Continue`](crate::Continue).
    CONTINUE = READ | WRITE, 0x07, 32;
    /// `UFFDIO_POISON`. Argument: [`Poison`](crate::Poison).
    POISON = READ | WRITE, 0x08, 32;
    /// `USERFAULTFD_IOC_NEW`, on [`DEVICE_PATH`] only. Argument: the
    /// [`OpenFlags`](crate::OpenFlags) by value; returns a descriptor.
    NEW = VOID, 0x00, 0;
}

#[cfg(test)]
mod tests {
    use super::{
        API, CONTINUE, COPY, DEVICE_PATH, MOVE, NEW, POISON, REGISTER, SYSCALL_X86_64, TYPE, UFFD_API, UNREGISTER,
        WAKE, WRITEPROTECT, ZEROPAGE, ioc, name,
    };
    use crate::bits::IoctlMask;
    use crate::structs::{self, Api, Continue, Move, Poison, Range, Register, Writeprotect, Zeropage};

    /// Request, its number literally, its name, its argument's length.
    const TABLE: [(u32, u32, &str, usize); 11] = [
        (API, 0xC018_AA3F, "API", Api::SIZE),
        (REGISTER, 0xC020_AA00, "REGISTER", Register::SIZE),
        (UNREGISTER, 0x8010_AA01, "UNREGISTER", Range::SIZE),
        (WAKE, 0x8010_AA02, "WAKE", Range::SIZE),
        (COPY, 0xC028_AA03, "COPY", structs::Copy::SIZE),
        (ZEROPAGE, 0xC020_AA04, "ZEROPAGE", Zeropage::SIZE),
        (MOVE, 0xC028_AA05, "MOVE", Move::SIZE),
        (WRITEPROTECT, 0xC018_AA06, "WRITEPROTECT", Writeprotect::SIZE),
        (CONTINUE, 0xC020_AA07, "CONTINUE", Continue::SIZE),
        (POISON, 0xC020_AA08, "POISON", Poison::SIZE),
        (NEW, 0x0000_AA00, "NEW", 0),
    ];

    #[test]
    fn every_request_has_its_number_and_its_name() {
        for (request, number, short_name, _) in TABLE {
            assert_eq!(request, number, "{short_name}");
            assert_eq!(name(number), Some(short_name));
        }
    }

    #[test]
    fn every_request_carries_the_length_of_its_structure() {
        for (request, _, short_name, size) in TABLE {
            assert_eq!(usize::try_from(request >> 16 & 0x3FFF), Ok(size), "{short_name}");
        }
    }

    #[test]
    fn the_bit_of_an_ioctl_is_its_number() {
        let mut bits = 0;
        for (request, ..) in TABLE.into_iter().filter(|(request, ..)| *request != NEW) {
            bits |= 1_u64 << (request & 0xFF);
        }
        assert_eq!(bits, IoctlMask::ALL.bits());
    }

    #[test]
    fn a_request_with_another_length_or_direction_has_no_name() {
        for request in [0xC018_AA3E, 0xC010_AA3F, 0x8018_AA3F, 0xC018_AB3F, 0, u32::MAX] {
            assert_eq!(name(request), None, "{request:#x}");
        }
    }

    #[test]
    fn a_request_word_is_direction_length_type_and_number() {
        for (direction, number, size, request) in [
            (0, 0x00, 0, 0x0000_AA00),
            (1, 0x01, 1, 0x4001_AA01),
            (2, 0x7F, 0x100, 0x8100_AA7F),
            (3, 0xFF, 0x3FFF, 0xFFFF_AAFF),
            (0, 0x00, 0x4000, 0x0000_AA00), // the first length that does not fit
        ] {
            assert_eq!(ioc(direction, number, size), request);
        }
    }

    #[test]
    fn what_opens_a_descriptor_has_its_number() {
        assert_eq!(TYPE, 0xAA);
        assert_eq!(UFFD_API, 0xAA);
        assert_eq!(SYSCALL_X86_64, 323);
        assert_eq!(DEVICE_PATH, "/dev/userfaultfd");
    }
}
