//! Error numbers as the kernel returns them.
//!
//! A type of its own, so that an error number is never mistaken for another integer, and so that a
//! number without a name here is kept, not replaced.
//!
//! Kernel counterpart: `include/uapi/asm-generic/errno-base.h` and `errno.h`.

use core::fmt;

/// An error number, positive as in `errno(3)`.
///
/// # Source
///
/// `errno(3)`; numbers of the generic Linux table, which x86, arm and riscv share.
///
/// # Examples
///
/// ```
/// use userfault_abi::Errno;
///
/// assert_eq!(Errno::from_raw(17), Errno::EEXIST);
/// assert_eq!(Errno::EEXIST.to_string(), "EEXIST (17)");
/// assert_eq!(Errno::from_raw(77).to_string(), "errno 77");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The symbolic name, if the number has one here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such file, or here: no suitable mapping at the address.
    ENOENT = 2;
    /// No such process, or here: the address space is gone.
    ESRCH = 3;
    /// Interrupted by a signal.
    EINTR = 4;
    /// Input/output error.
    EIO = 5;
    /// Not an open descriptor.
    EBADF = 9;
    /// No such child to be waited for.
    ECHILD = 10;
    /// Nothing to read now; for fills: try again, part is done.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// An address of the caller cannot be accessed.
    EFAULT = 14;
    /// Busy, or here: registered with another context.
    EBUSY = 16;
    /// Already there, or here: the page is present.
    EEXIST = 17;
    /// No such device.
    ENODEV = 19;
    /// Invalid argument.
    EINVAL = 22;
    /// Too many open files in the system.
    ENFILE = 23;
    /// Too many open files in the process.
    EMFILE = 24;
    /// Not an ioctl of this descriptor.
    ENOTTY = 25;
    /// No space left.
    ENOSPC = 28;
    /// Not seekable.
    ESPIPE = 29;
    /// No such system call.
    ENOSYS = 38;
}

impl Errno {
    /// Takes any number, named here or not.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number, as given.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;
    use std::string::ToString;

    #[test]
    fn every_number_is_the_generic_linux_one() {
        for (errno, number, text) in [
            (Errno::EPERM, 1, "EPERM (1)"),
            (Errno::ENOENT, 2, "ENOENT (2)"),
            (Errno::ESRCH, 3, "ESRCH (3)"),
            (Errno::EINTR, 4, "EINTR (4)"),
            (Errno::EIO, 5, "EIO (5)"),
            (Errno::EBADF, 9, "EBADF (9)"),
            (Errno::ECHILD, 10, "ECHILD (10)"),
            (Errno::EAGAIN, 11, "EAGAIN (11)"),
            (Errno::ENOMEM, 12, "ENOMEM (12)"),
            (Errno::EACCES, 13, "EACCES (13)"),
            (Errno::EFAULT, 14, "EFAULT (14)"),
            (Errno::EBUSY, 16, "EBUSY (16)"),
            (Errno::EEXIST, 17, "EEXIST (17)"),
            (Errno::ENODEV, 19, "ENODEV (19)"),
            (Errno::EINVAL, 22, "EINVAL (22)"),
            (Errno::ENFILE, 23, "ENFILE (23)"),
            (Errno::EMFILE, 24, "EMFILE (24)"),
            (Errno::ENOTTY, 25, "ENOTTY (25)"),
            (Errno::ENOSPC, 28, "ENOSPC (28)"),
            (Errno::ESPIPE, 29, "ESPIPE (29)"),
            (Errno::ENOSYS, 38, "ENOSYS (38)"),
        ] {
            assert_eq!(errno.raw(), number);
            assert_eq!(Errno::from_raw(number), errno);
            assert_eq!(errno.to_string(), text);
        }
    }

    #[test]
    fn a_number_without_a_name_is_kept_and_printed() {
        for (number, text) in [(77, "errno 77"), (0, "errno 0"), (-11, "errno -11")] {
            let errno = Errno::from_raw(number);
            assert_eq!(errno.raw(), number);
            assert_eq!(errno.name(), None);
            assert_eq!(errno.to_string(), text);
        }
    }
}
