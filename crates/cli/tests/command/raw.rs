//! What the kernel answers to the system calls themselves: what others say is compared with that.
//!
//! Invariant:
//!
//! 1. Structures handed to the kernel are live locals; memory named by address is mapped here, and leaked.
#![expect(unsafe_code, reason = "system calls; the invariant above is this file's proof")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

type Answer<T> = Result<T, i32>;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn check(answer: i64) -> Answer<i64> {
    if answer < 0 { Err(errno()) } else { Ok(answer) }
}

fn owned(answer: i64) -> Answer<OwnedFd> {
    let descriptor = i32::try_from(check(answer)?).unwrap();
    // SAFETY: just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

const USER_MODE_ONLY: i32 = 1;

fn flags(user_mode_only: bool) -> i32 {
    libc::O_CLOEXEC | libc::O_NONBLOCK | if user_mode_only { USER_MODE_ONLY } else { 0 }
}

/// `userfaultfd(2)`.
pub(crate) fn call(user_mode_only: bool) -> Answer<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags(user_mode_only)) })
}

/// `USERFAULTFD_IOC_NEW` on the device.
pub(crate) fn device(user_mode_only: bool) -> Answer<OwnedFd> {
    let device = File::open("/dev/userfaultfd").map_err(|error| error.raw_os_error().unwrap())?;
    // SAFETY: no pointers.
    owned(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), 0xaa00, flags(user_mode_only)) }))
}

/// The features that a handshake which asks for `features` answers.
pub(crate) fn handshake(descriptor: &OwnedFd, features: u64) -> Answer<u64> {
    let mut api = [0xaa_u64, features, 0];
    // SAFETY: three words, as `UFFDIO_API` says (invariant 1).
    check(i64::from(unsafe { libc::ioctl(descriptor.as_raw_fd(), 0xc018_aa3f, api.as_mut_ptr()) }))?;
    Ok(api[1])
}

fn page(protection: i32) -> Answer<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: at an address of the kernel's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(errno()) } else { Ok(page) }
}

/// `pwrite(2)` on `/proc/self/mem`, at a page that allows nothing.
pub(crate) fn forced_write() -> Answer<()> {
    let page = page(libc::PROT_NONE)?;
    let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem");
    let written = memory.and_then(|memory| memory.write_at(&[1], page.expose_provenance() as u64));
    written.map(drop).map_err(|error| error.raw_os_error().unwrap())
}

/// `MADV_GUARD_INSTALL`.
pub(crate) fn guard() -> Answer<()> {
    let page = page(libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: mapped here (invariant 1).
    check(i64::from(unsafe { libc::madvise(page, 4096, 102) })).map(drop)
}

/// A second mapping by `mremap(2)` with flags that move.
pub(crate) fn mremap() -> Answer<()> {
    let page = page(libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: mapped here (invariant 1).
    let moved = unsafe { libc::mremap(page, 4096, 8192, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED { Err(errno()) } else { Ok(()) }
}
