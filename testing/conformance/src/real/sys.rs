//! The system calls of the tests, as safe functions.
//!
//! 1. Addresses handed to the kernel are plain numbers: what they name is mapped by the tests
//!    themselves, in a part of the address space that nothing else uses (`world` hands out windows
//!    from 0x2000_0000_0000 on), or by [`map`]; no Rust value ever lies there.
//! 2. Descriptors are owned by the caller as numbers; each is closed once.
//!
//! Kernel counterpart: `userfaultfd(2)`, `ioctl(2)`, `mmap(2)` and friends.

#![expect(unsafe_code, reason = "raw system calls on addresses that no Rust value occupies; invariant 1")]

use std::os::fd::RawFd;

use crate::place::Result;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn checked(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn number(result: libc::c_long) -> i32 {
    i32::try_from(result).unwrap_or(i32::MAX)
}

/// `userfaultfd(2)`.
///
/// # Errors
///
/// Its errno.
pub fn userfaultfd(flags: u32) -> Result<RawFd> {
    // SAFETY: takes a number and returns one.
    let result = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    checked(result).map(number)
}

/// `open(2)` for reading and writing, close-on-exec.
///
/// # Errors
///
/// Its errno.
pub fn open(path: &std::ffi::CStr) -> Result<RawFd> {
    // SAFETY: a C string that lives during the call.
    let result = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    checked(result.into()).map(number)
}

/// `close(2)`.
pub fn close(fd: RawFd) {
    // SAFETY: invariant 2.
    unsafe { libc::close(fd) };
}

/// `dup(2)`.
///
/// # Errors
///
/// Its errno.
pub fn dup(fd: RawFd) -> Result<RawFd> {
    // SAFETY: takes a number and returns one.
    let result = unsafe { libc::dup(fd) };
    checked(result.into()).map(number)
}

/// `ioctl(2)`; the argument is an address or a number.
///
/// # Errors
///
/// Its errno.
pub fn ioctl(fd: RawFd, request: u32, argument: u64) -> Result<i32> {
    // SAFETY: invariant 1: the argument lies in scratch memory, or nowhere.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, fd, u64::from(request), argument) };
    checked(result).map(number)
}

/// `read(2)` into memory at an address.
///
/// # Errors
///
/// Its errno.
pub fn read(fd: RawFd, address: u64, count: usize) -> Result<usize> {
    // SAFETY: invariant 1: the buffer lies in scratch memory, or nowhere.
    let result = unsafe { libc::syscall(libc::SYS_read, fd, address, count) };
    checked(result).map(|count| usize::try_from(count).unwrap_or(0))
}

/// `poll(2)` of one descriptor without waiting, for everything.
#[must_use]
pub fn poll(fd: RawFd) -> u16 {
    let mut entry = libc::pollfd { fd, events: !0, revents: 0 };
    // SAFETY: one entry that lives during the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents.cast_unsigned()
}

/// Sets or clears `O_NONBLOCK`.
pub fn set_nonblocking(fd: RawFd, nonblocking: bool) {
    let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
    // SAFETY: takes numbers.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
}

/// The descriptor's flags and those of its file.
#[must_use]
pub fn flags(fd: RawFd) -> (i32, i32) {
    // SAFETY: takes numbers.
    let of_descriptor = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    // SAFETY: takes numbers.
    let of_file = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    (of_descriptor, of_file)
}

/// Maps private anonymous pages at exactly this address, over whatever was there; or anywhere if it
/// is 0.
///
/// # Panics
///
/// If it cannot be done.
#[must_use]
pub fn map(address: u64, len: u64, protection: i32, flags: i32) -> u64 {
    let fixed = if address == 0 { 0 } else { libc::MAP_FIXED };
    let flags = flags | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: invariant 1: nothing of Rust's lies at a fixed address.
    let result = unsafe { libc::syscall(libc::SYS_mmap, address, len, protection, flags, -1, 0) };
    checked(result).unwrap_or_else(|errno| panic!("mmap {address:#x} {len:#x}: errno {errno}")).cast_unsigned()
}

/// `munmap(2)`.
pub fn unmap(address: u64, len: u64) {
    // SAFETY: invariant 1.
    unsafe { libc::syscall(libc::SYS_munmap, address, len) };
}

/// `mprotect(2)`.
pub fn protect(address: u64, len: u64, protection: i32) {
    // SAFETY: invariant 1.
    unsafe { libc::syscall(libc::SYS_mprotect, address, len, protection) };
}

/// `madvise(2)`.
///
/// # Errors
///
/// Its errno.
pub fn advise(address: u64, len: u64, advice: i32) -> Result<()> {
    // SAFETY: invariant 1.
    let result = unsafe { libc::syscall(libc::SYS_madvise, address, len, advice) };
    checked(result).map(|_| ())
}

/// `mremap(2)` to exactly this address.
///
/// # Panics
///
/// If it cannot be done.
pub fn remap(from: u64, len: u64, to: u64) {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: invariant 1, for both ranges.
    let result = unsafe { libc::syscall(libc::SYS_mremap, from, len, len, flags, to) };
    checked(result).unwrap_or_else(|errno| panic!("mremap: errno {errno}"));
}

/// The calling thread's id.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: returns a number.
    unsafe { libc::gettid() }
}

/// Sends a signal to a thread of this process.
pub fn signal(thread: i32, signal: i32) {
    let process = std::process::id();
    // SAFETY: takes numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Takes the calling thread's alternate signal stack away: handlers run on its ordinary one.
pub fn without_alternate_stack() {
    let stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the thread is not in a handler.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
}

/// `poll(2)` of one descriptor for input, without end; answers the events.
///
/// # Errors
///
/// Its errno.
pub fn wait_for_input(fd: RawFd) -> Result<u64> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry that lives during the call.
    let result = unsafe { libc::poll(&raw mut entry, 1, -1) };
    checked(result.into()).map(|_| entry.revents.cast_unsigned().into())
}

/// A system call on a descriptor that moves no memory of Rust's: its other arguments are numbers, or
/// addresses by invariant 1.
///
/// # Errors
///
/// Its errno.
pub fn on_descriptor(call: libc::c_long, fd: RawFd, arguments: [u64; 3]) -> Result<i64> {
    let [one, two, three] = arguments;
    // SAFETY: invariant 1.
    let result = unsafe { libc::syscall(call, fd, one, two, three) };
    checked(result)
}

/// Takes a copy of another process's descriptor.
///
/// # Errors
///
/// The errno of `pidfd_open(2)` or `pidfd_getfd(2)`.
pub fn take_descriptor(process: u32, fd: RawFd) -> Result<RawFd> {
    // SAFETY: takes numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let process = checked(opened).map(number)?;
    let taken = on_descriptor(libc::SYS_pidfd_getfd, process, [u64::try_from(fd).unwrap_or(0), 0, 0]);
    close(process);
    taken.map(number)
}

/// Sends a signal to a process.
pub fn kill(process: u32, signal: i32) {
    // SAFETY: takes numbers.
    unsafe { libc::kill(process.cast_signed(), signal) };
}

/// An epoll set with one descriptor in it, edge-triggered.
///
/// # Panics
///
/// If it cannot be made.
#[must_use]
pub fn edges_of(fd: RawFd) -> RawFd {
    // SAFETY: takes a number.
    let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET).cast_unsigned(), u64: 0 };
    // SAFETY: one event that lives during the call.
    let added = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    assert_eq!(added, 0, "epoll_ctl");
    set
}

/// How many edges there are now.
#[must_use]
pub fn edges(set: RawFd) -> i32 {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for the one event asked for.
    unsafe { libc::epoll_wait(set, &raw mut event, 1, 0) }
}
