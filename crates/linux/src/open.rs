//! Opening: each way there is, in order, and why those that failed did.
//!
//! Who may have a userfaultfd is decided in five places (a sysctl, a capability, the mode of the
//! device node, a container's seccomp profile and device list, the kernel's configuration), which
//! answer with different numbers. Any of these answers leads on to the next way, and each is kept
//! with what its reader can do about it.
//!
//! Kernel counterpart: `userfaultfd(2)`, `/dev/userfaultfd`.

use core::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;
use userfault_abi::{OpenFlags, request};
use userfault_client::{
    Capabilities, Errno, Features, IoctlMask, KernelFaults, Options, Provider, Refusal, RegisterModes, UffdError,
};
use userfault_memory::{Mapping, Protection, page_size};

use crate::context::system;
use crate::fdinfo::FdInfo;
use crate::sys::{self, Span};

/// A way to obtain a descriptor.
///
/// Example: [`probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// The system call with `UFFD_USER_MODE_ONLY`: needs no privilege; system calls on absent pages
    /// fail with `EFAULT`.
    UserModeCall,
    /// The system call: needs `CAP_SYS_PTRACE` or `vm.unprivileged_userfaultfd=1`.
    Call,
    /// `/dev/userfaultfd` with `UFFD_USER_MODE_ONLY`: for where the call is filtered.
    UserModeDevice,
    /// `/dev/userfaultfd`: needs permission to open it, nothing else.
    Device,
    /// A descriptor that was made elsewhere.
    Given,
}

impl Way {
    /// All that can be tried, in the order of [`probe`].
    pub const ALL: [Self; 4] = [Self::UserModeCall, Self::Call, Self::UserModeDevice, Self::Device];

    /// As printed in a [`Refusal`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserModeCall => "userfaultfd(2) for user mode only",
            Self::Call => "userfaultfd(2)",
            Self::UserModeDevice => "/dev/userfaultfd for user mode only",
            Self::Device => "/dev/userfaultfd",
            Self::Given => "given descriptor",
        }
    }

    /// Whether system calls on absent pages wait for the monitor.
    const fn has_kernel_faults(self) -> bool {
        matches!(self, Self::Call | Self::Device)
    }

    const fn flags(self) -> OpenFlags {
        let always = OpenFlags::CLOEXEC.union(OpenFlags::NONBLOCK);
        if self.has_kernel_faults() { always } else { always.union(OpenFlags::USER_MODE_ONLY) }
    }

    const fn uses_device(self) -> bool {
        matches!(self, Self::Device | Self::UserModeDevice)
    }

    /// What an administrator or user can do about `errno`.
    fn remedy(self, errno: Errno) -> &'static str {
        match (self.uses_device(), errno) {
            (false, Errno::EPERM) if self == Self::Call && !would_capability_help() => {
                "run `sysctl vm.unprivileged_userfaultfd=1` on the host (CAP_SYS_PTRACE given here does not help: it \
                 counts in the initial user namespace only); in a container also `--security-opt seccomp=PROFILE` with \
                 a profile that allows userfaultfd"
            }
            (false, Errno::EPERM) if self == Self::Call => {
                "run `sysctl vm.unprivileged_userfaultfd=1`, or give the process CAP_SYS_PTRACE; in a container also \
                 `--security-opt seccomp=PROFILE` with a profile that allows userfaultfd"
            }
            (false, Errno::EPERM | Errno::EACCES) => {
                "a seccomp filter or security module forbids the call: in a container, \
                 `--security-opt seccomp=PROFILE` with a profile that allows userfaultfd (or seccomp=unconfined)"
            }
            (false, Errno::ENOSYS) => {
                "use a kernel built with CONFIG_USERFAULTFD=y; sandboxes such as gVisor have none"
            }
            (false, Errno::EINVAL) => {
                "the kernel is older than 5.11 and does not know UFFD_USER_MODE_ONLY: the call without it is tried"
            }
            (true, Errno::EACCES) => {
                "give the user's group the device: `chgrp GROUP /dev/userfaultfd && chmod 0660 /dev/userfaultfd`"
            }
            (true, Errno::ENOENT) => {
                "in a container, add `--device /dev/userfaultfd`; on the host, it needs Linux 6.1 and CONFIG_USERFAULTFD=y"
            }
            (true, Errno::EPERM) => "a device filter forbids it: in a container, add `--device /dev/userfaultfd`",
            (true, _) => {
                "this /dev/userfaultfd is not the kernel's: load or recreate it (`mknod` with the minor of /proc/misc)"
            }
            (false, _) => "see userfaultfd(2)",
        }
    }

    fn refusal(self, errno: Errno) -> Refusal {
        Refusal { way: self.name(), errno, remedy: self.remedy(errno) }
    }

    /// Whether `errno` is about this way, so that another may work.
    fn is_refused_by(self, errno: Errno) -> bool {
        match errno {
            Errno::EPERM | Errno::EACCES | Errno::ENOENT | Errno::ENOSYS => true,
            Errno::EINVAL => self == Self::UserModeCall || self.uses_device(),
            Errno::ENODEV | Errno::ENOTTY | ENXIO => self.uses_device(),
            _ => false,
        }
    }

    fn make(self) -> Result<OwnedFd, Errno> {
        if !self.uses_device() {
            return sys::create(self.flags());
        }
        // Read-only is enough (`m/open/device`).
        let device = rustix::fs::open(request::DEVICE_PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(sys::errno)?;
        sys::create_from_device(device.as_fd(), self.flags())
    }
}

const ENXIO: Errno = Errno::from_raw(6);

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of one way of opening.
///
/// Example: [`probe`].
#[derive(Clone, Debug)]
pub struct Probe {
    /// The way.
    pub way: Way,
    /// What a descriptor opened so could do, or why there is none.
    pub outcome: Result<Capabilities, Refusal>,
}

/// Tries every way of opening and what its descriptors can do, and closes everything again.
///
/// # Examples
///
/// ```
/// for probe in userfault_linux::probe() {
///     match probe.outcome {
///         Ok(offered) => println!("{}: {}", probe.way, offered.available),
///         Err(refusal) => println!("{refusal}"),
///     }
/// }
/// ```
#[must_use]
pub fn probe() -> Vec<Probe> {
    Way::ALL
        .into_iter()
        .map(|way| {
            let outcome = way.make().and_then(|descriptor| {
                let available = sys::handshake(descriptor.as_fd(), Features::NONE)?;
                Ok(capabilities(descriptor.as_fd(), way, Features::NONE, available))
            });
            Probe { way, outcome: outcome.map_err(|errno| way.refusal(errno)) }
        })
        .collect()
}

/// The features this kernel has, if any way of asking it is open.
pub(crate) fn available() -> Option<Features> {
    Way::ALL.into_iter().find_map(|way| {
        let descriptor = way.make().ok()?;
        sys::handshake(descriptor.as_fd(), Features::NONE).ok()
    })
}

/// A descriptor ready for use.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) descriptor: OwnedFd,
    pub(crate) way: Way,
    pub(crate) capabilities: Capabilities,
    /// Ways that were refused before this one.
    pub(crate) tried: Vec<Refusal>,
}

/// Opens as `options` say.
pub(crate) fn open(options: &Options) -> Result<Opened, UffdError> {
    let ways: &[Way] = match options.kernel_faults {
        KernelFaults::No => &[Way::UserModeCall, Way::UserModeDevice],
        KernelFaults::Try => &[Way::Call, Way::Device, Way::UserModeCall],
        KernelFaults::Require => &[Way::Call, Way::Device],
    };
    let mut tried = Vec::new();
    for way in ways {
        let (found, way) = match attempt(*way, &mut tried)? {
            Some(descriptor) => (descriptor, *way),
            // Before Linux 5.11 the flag was unknown and unprivileged use the default.
            None if flag_is_unknown(*way, &tried) => match attempt(Way::Call, &mut tried)? {
                Some(descriptor) => (descriptor, Way::Call),
                None => continue,
            },
            None => continue,
        };
        return enable(found, way, || way.make(), options, tried);
    }
    Err(UffdError::Refused { provider: Provider::Linux, tried })
}

/// Opens on a device descriptor that somebody else opened, whose permission then counts.
pub(crate) fn open_on(device: BorrowedFd<'_>, options: &Options) -> Result<Opened, UffdError> {
    let way = match options.kernel_faults {
        KernelFaults::No => Way::UserModeDevice,
        KernelFaults::Try | KernelFaults::Require => Way::Device,
    };
    let make = || sys::create_from_device(device, way.flags());
    match make() {
        Ok(descriptor) => enable(descriptor, way, make, options, Vec::new()),
        Err(errno) if way.is_refused_by(errno) => {
            Err(UffdError::Refused { provider: Provider::Linux, tried: vec![way.refusal(errno)] })
        }
        Err(errno) => Err(system("USERFAULTFD_IOC_NEW", errno)),
    }
}

fn flag_is_unknown(way: Way, tried: &[Refusal]) -> bool {
    way == Way::UserModeCall && tried.last().is_some_and(|last| last.errno == Errno::EINVAL)
}

/// A descriptor, or the refusal noted. Errors that no other way would avoid end the search.
fn attempt(way: Way, tried: &mut Vec<Refusal>) -> Result<Option<OwnedFd>, UffdError> {
    match way.make() {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(errno) if way.is_refused_by(errno) => {
            tried.push(way.refusal(errno));
            Ok(None)
        }
        Err(errno) => Err(system("opening a userfaultfd", errno)),
    }
}

/// Does the handshake on `throw_away`, which only tells what there is, then on a fresh descriptor:
/// the kernel answers this question once per descriptor.
fn enable(
    throw_away: OwnedFd,
    way: Way,
    make: impl Fn() -> Result<OwnedFd, Errno>,
    options: &Options,
    tried: Vec<Refusal>,
) -> Result<Opened, UffdError> {
    let available = sys::handshake(throw_away.as_fd(), Features::NONE).map_err(|errno| system("UFFDIO_API", errno))?;
    let mut capabilities = capabilities(throw_away.as_fd(), way, Features::NONE, available);
    drop(throw_away);
    let descriptor = make().map_err(|errno| system("opening a userfaultfd", errno))?;
    capabilities.features = negotiate(descriptor.as_fd(), options, available)?;
    Ok(Opened { descriptor, way, capabilities, tried })
}

/// Does the handshake; returns the features that are on then.
pub(crate) fn negotiate(
    descriptor: BorrowedFd<'_>,
    options: &Options,
    available: Features,
) -> Result<Features, UffdError> {
    let missing = options.require - available;
    if !missing.is_empty() {
        return Err(UffdError::FeaturesMissing { missing });
    }
    let wanted = options.require | (options.wish & available);
    let is_fork_required = options.require.contains(Features::EVENT_FORK);
    let asked = match sys::handshake(descriptor, wanted) {
        Ok(_) => wanted,
        // A failed handshake may be repeated with other values (`m/api/state`).
        Err(Errno::EPERM) if wanted.contains(Features::EVENT_FORK) && !is_fork_required => {
            let rest = wanted - Features::EVENT_FORK;
            sys::handshake(descriptor, rest).map_err(|errno| system("UFFDIO_API", errno))?;
            rest
        }
        Err(Errno::EPERM) => {
            let remedy = if would_capability_help() {
                "EVENT_FORK needs CAP_SYS_PTRACE: give it, or leave the feature out"
            } else {
                "EVENT_FORK needs CAP_SYS_PTRACE in the initial user namespace, and given here it does not help: run \
                 outside of the container, or leave the feature out"
            };
            let refusal = Refusal { way: "UFFDIO_API", errno: Errno::EPERM, remedy };
            return Err(UffdError::Refused { provider: Provider::Linux, tried: vec![refusal] });
        }
        Err(errno) => return Err(system("UFFDIO_API", errno)),
    };
    // Some features imply others (`m/api/implied`); without /proc, what was asked for is known.
    Ok(FdInfo::of(descriptor).map_or(asked, |info| info.features))
}

/// Whether who is refused for want of CAP_SYS_PTRACE can be given it: one that has it already cannot, nor one in a
/// user namespace of its own. The kernel asks for that of the initial one.
fn would_capability_help() -> bool {
    let sets = rustix::thread::capabilities(None);
    let has_it = sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    // Without /proc, as on most machines.
    let is_initial = std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| are_all_ids(&map));
    !has_it && is_initial
}

/// Whether each user id is itself, as in the initial user namespace.
fn are_all_ids(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Finds by doing what fresh private memory can be registered for.
pub(crate) fn capabilities(
    descriptor: BorrowedFd<'_>,
    way: Way,
    features: Features,
    available: Features,
) -> Capabilities {
    let (modes, ioctls) = register_scratch(descriptor).unwrap_or_default();
    Capabilities { features, available, modes, ioctls, kernel_faults: way.has_kernel_faults(), page_size: page_size() }
}

/// Registers a page of this process with all modes it may have, and takes that back.
pub(crate) fn register_scratch(descriptor: BorrowedFd<'_>) -> Option<(RegisterModes, IoctlMask)> {
    let scratch = Mapping::reserve(page_size(), Protection::ReadWrite).ok()?;
    let span = Span::of(&scratch, &(0..1))?;
    [RegisterModes::MISSING | RegisterModes::WP, RegisterModes::MISSING].into_iter().find_map(|modes| {
        let ioctls = sys::register(descriptor, span, modes).ok()?;
        // Before the page is unmapped, or EVENT_UNMAP would make that wait for a reader.
        let _ = sys::unregister(descriptor, span);
        Some((modes, ioctls))
    })
}

#[cfg(test)]
mod tests {
    use super::are_all_ids;

    #[test]
    fn only_the_initial_user_namespace_has_each_id_as_itself() {
        for (map, expected) in [
            ("         0          0 4294967295\n", true),
            // A root of its own; a container's range; two ranges.
            ("         0       1000          1\n", false),
            ("         0     100000      65536\n", false),
            ("         0          0       1000\n      1000       1001 4294966294\n", false),
            ("", false),
        ] {
            assert_eq!(are_all_ids(map), expected, "{map}");
        }
    }
}
