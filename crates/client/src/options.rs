//! What is asked of a provider when it is opened, and what it turned out to offer.
//!
//! Features, modes and ioctls are open sets found at run time: a provider reports what it has, and
//! nothing here depends on a kernel version.

use core::fmt;
use userfault_abi::{Features, IoctlMask, RegisterModes};

/// Who makes the faults.
///
/// Example: [`UffdError`](crate::UffdError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// The Linux kernel's own userfaultfd.
    Linux,
    /// The engine, hosted in this process.
    Process,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Process => "process",
        })
    }
}

/// Whether accesses that the kernel makes for a thread (system calls on absent pages) are answered.
///
/// Example: [`Options`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelFaults {
    /// Not: such a system call fails with `EFAULT`. Needs no privilege; the default.
    #[default]
    No,
    /// Where the machine permits it; [`Capabilities::kernel_faults`] tells.
    Try,
    /// Opening fails where they cannot be had.
    Require,
}

/// What to ask for at open.
///
/// # Examples
///
/// ```
/// use userfault_client::{Features, KernelFaults, Options};
///
/// let options = Options { require: Features::POISON, wish: Features::THREAD_ID, ..Options::default() };
/// assert_eq!(options.kernel_faults, KernelFaults::No);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Features that must be enabled; opening fails if one is not there.
    pub require: Features,
    /// Features enabled where they are there.
    pub wish: Features,
    /// System calls on absent pages.
    pub kernel_faults: KernelFaults,
}

/// What an open descriptor offers.
///
/// ```
/// use userfault_client::{Capabilities, IoctlMask, RegisterModes};
///
/// /// Whether a descriptor can show writes, and say that contents are lost.
/// fn can_snapshot(offered: &Capabilities) -> bool {
///     offered.modes.contains(RegisterModes::WP) && offered.ioctls.contains(IoctlMask::POISON)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Features that are on.
    pub features: Features,
    /// Features that could have been asked for.
    pub available: Features,
    /// Modes that fresh private memory can be registered with.
    pub modes: RegisterModes,
    /// Ioctls that work on such memory.
    pub ioctls: IoctlMask,
    /// System calls on absent pages wait for the monitor instead of failing.
    pub kernel_faults: bool,
    /// Bytes per page.
    pub page_size: usize,
}
