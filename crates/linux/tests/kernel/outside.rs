//! What only unsafe code can do: fork, change credentials, and memory that is nobody's region.
//!
//! Invariants:
//!
//! 1. [`fork`] is called in processes where the child's closure calls nothing but system calls and
//!    memory accesses, and never returns into the parent's code.
//! 2. A [`Raw`] mapping is only looked at through its methods, byte by byte.
#![expect(unsafe_code, reason = "fork, credentials and raw mappings for tests; the two invariants above are the proof")]

use std::os::fd::AsFd;
use std::ptr;

use userfault_abi::{Errno, Range, Register, RegisterModes, request};
use userfault_linux::raw;

/// Forks; the child runs `child` and exits with what it returns. Returns the child's process id.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child keeps to invariant 1.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = child();
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// The exit code of a child, or 128 plus the signal that ended it.
pub(crate) fn wait(pid: i32) -> i32 {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

/// Ends a child, and waits for that.
pub(crate) fn end(pid: i32) {
    // SAFETY: takes numbers; the child was not waited for, so the number is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    assert_eq!(wait(pid), 128 + libc::SIGKILL);
}

/// Closes all descriptors but the standard ones, as daemons do; in a child that uses none of them any more.
pub(crate) fn close_all() {
    // SAFETY: takes numbers; nobody here relies on what is closed.
    assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
}

/// Gives up every privilege, for ever; nobody has none to give up.
pub(crate) fn become_nobody() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    // SAFETY: no pointer is read for zero groups.
    assert_eq!(unsafe { libc::setgroups(0, ptr::null()) }, 0);
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
}

/// Limits how many descriptors the process may have.
pub(crate) fn limit_descriptors(most: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one structure, which is ours.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let old = std::mem::replace(&mut limit.rlim_cur, most);
    // SAFETY: reads one structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    old
}

/// Private memory that is no region, so that it can be unmapped and moved under its registration.
pub(crate) struct Raw {
    base: *mut u8,
    len: usize,
}

// SAFETY: a mapping belongs to the process.
unsafe impl Send for Raw {}
// SAFETY: accesses are volatile and of bytes (invariant 2).
unsafe impl Sync for Raw {}

impl Raw {
    pub(crate) fn map(len: usize) -> Self {
        let (bits, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses unused addresses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, bits, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Self { base: base.cast(), len }
    }

    pub(crate) fn start(&self) -> u64 {
        self.base.expose_provenance() as u64
    }

    pub(crate) fn end(&self) -> u64 {
        self.start() + self.len as u64
    }

    pub(crate) fn register(&self, uffd: &impl AsFd, modes: RegisterModes) -> Result<i32, Errno> {
        let range = Range { start: self.start(), len: self.len as u64 };
        let mut bytes = Register { range, mode: modes.bits(), ioctls: 0 }.encode();
        // SAFETY: the structure is as long as REGISTER says; the range is ours, nothing refers to it.
        unsafe { raw::ioctl(uffd.as_fd(), request::REGISTER, bytes.as_mut_ptr()) }
    }

    pub(crate) fn read(&self, offset: usize) -> u8 {
        assert!(offset < self.len);
        // SAFETY: inside the mapping.
        let byte = unsafe { self.base.add(offset) };
        // SAFETY: mapped and initialised by the kernel.
        unsafe { byte.read_volatile() }
    }

    /// Unmaps; with `EVENT_UNMAP`, sleeps until that was read.
    pub(crate) fn unmap(self) {
        // SAFETY: ours, and gone after this.
        assert_eq!(unsafe { libc::munmap(self.base.cast(), self.len) }, 0);
    }

    /// Moves somewhere else; with `EVENT_REMAP`, sleeps until that was read.
    pub(crate) fn remap(self) -> Self {
        let target = Self::map(self.len);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: source and target are ours.
        let base = unsafe { libc::mremap(self.base.cast(), self.len, self.len, flags, target.base) };
        assert_eq!(base, target.base.cast());
        target
    }
}

/// Fills one page with zeros, wherever it is.
pub(crate) fn zeropage(uffd: &impl AsFd, address: u64) {
    let range = Range { start: address, len: rustix::param::page_size() as u64 };
    let mut bytes = userfault_abi::Zeropage { range, mode: 0, zeropage: 0 }.encode();
    // SAFETY: the structure is as long as ZEROPAGE says; only a missing page, on which somebody waits, is filled.
    unsafe { raw::ioctl(uffd.as_fd(), request::ZEROPAGE, bytes.as_mut_ptr()) }.unwrap();
}

/// Lets userfaultfd(2) with any of these flags fail with `errno` in this thread, as a container's
/// seccomp profile does; false if the kernel has no such filters.
pub(crate) fn filter_userfaultfd(flags: u32, errno: Errno) -> bool {
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        // The codes are 16 bits wide; libc has them as u32.
        let [low, high, ..] = code.to_le_bytes();
        libc::sock_filter { code: u16::from_le_bytes([low, high]), jt, jf, k }
    }
    let number = u32::try_from(libc::SYS_userfaultfd).unwrap();
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(errno.raw()).unwrap();
    let low_half_of_first_argument = if cfg!(target_endian = "little") { 16 } else { 20 };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, number),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, low_half_of_first_argument),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, flags),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: steps.as_mut_ptr() };
    // SAFETY: takes numbers.
    let confined = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: reads the program and its six steps, which live on.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    (confined, filtered) == (0, 0)
}

/// Sets a handler that may run on an alternate stack; it does what is async-signal-safe.
pub(crate) fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler as *const () as usize;
    new.sa_flags = libc::SA_ONSTACK;
    // SAFETY: the structure is live.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) }, 0);
}

/// The calling thread, for [`send`].
pub(crate) fn thread_id() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::gettid() }
}

/// Sends `signal` to a thread of this process.
pub(crate) fn send(thread: i32, signal: i32) {
    let process = std::process::id();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) }, 0);
}

/// Touches the byte at `address`, which is in a mapping that lives; safe in handlers.
pub(crate) fn load(address: usize) -> u8 {
    // SAFETY: mapped, and only bytes.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

/// Touches a page of a mapping of a file that is empty.
pub(crate) fn touch_behind_the_end_of_a_file() -> u8 {
    // SAFETY: a literal name.
    let file = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
    // SAFETY: a fresh mapping, never unmapped.
    let at = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    load(at.expose_provenance())
}

/// Blocks a signal in the calling thread, or lets it in again.
pub(crate) fn set_blocked(signal: i32, blocked: bool) {
    // SAFETY: integers: zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set is live.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}
