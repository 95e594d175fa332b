//! System calls with the kernel's own layouts. Every function is async-signal-safe unless it says not.
//!
//! Invariants:
//!
//! 1. Pointers handed to the kernel come from live Rust references, or are null where it allows null.
//! 2. The kernel's signal set is 8 bytes; `libc::sigset_t` is larger and begins with them.
//! 3. A handler is set only by `set_handler` and `set_handler_of`, whose callers answer for it.
//!
//! Raw calls rather than the library's: its `sigfillset` and `pthread_sigmask` leave out the two signals
//! it uses itself (32 cancels a thread, 33 changes its ids), and a cancelled thread must not hold our locks.
#![expect(unsafe_code, reason = "system calls; the three invariants above are this file's proof")]

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::handler::Signal;
use crate::mask::SignalSet;

const KERNEL_SET_BYTES: usize = size_of::<u64>();
const _: () = assert!(size_of::<libc::sigset_t>() >= KERNEL_SET_BYTES, "invariant 2");

/// What `sigaction` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    /// SIG_DFL, SIG_IGN or an address.
    pub(crate) handler: usize,
    pub(crate) mask: SignalSet,
    pub(crate) flags: c_int,
}

pub(crate) type Entry = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

pub(crate) fn action(signal: Signal) -> Result<Action, i32> {
    exchange(signal.number(), None)
}

/// As [`action`], for any signal.
pub(crate) fn action_of(number: c_int) -> Result<Action, i32> {
    exchange(number, None)
}

/// Sets an action that is no handler.
pub(crate) fn give_back(number: c_int, action: Action) -> Result<Action, i32> {
    let is_handler = action.handler != libc::SIG_DFL && action.handler != libc::SIG_IGN;
    if is_handler { Err(libc::EINVAL) } else { exchange(number, Some(action)) }
}

/// Sets `entry` as the handler of any signal, with SA_SIGINFO.
///
/// # Safety
///
/// As [`set_handler`].
pub(crate) unsafe fn set_handler_of(number: c_int, entry: Entry, flags: c_int) -> Result<Action, i32> {
    let flags = flags | libc::SA_SIGINFO | libc::SA_ONSTACK;
    exchange(number, Some(Action { handler: entry as usize, mask: SignalSet::EMPTY, flags }))
}

/// Whether nobody handles or ignores the signal with this number.
pub(crate) fn is_default(number: c_int) -> bool {
    action_of(number).is_ok_and(|action| action.handler == libc::SIG_DFL)
}

pub(crate) fn set_default(signal: Signal) -> Result<Action, i32> {
    exchange(signal.number(), Some(Action { handler: libc::SIG_DFL, mask: SignalSet::EMPTY, flags: 0 }))
}

/// Sets `entry` as the handler, with SA_SIGINFO, and returns what was there.
///
/// # Safety
///
/// `entry` may run at any instruction of any thread: all it does is async-signal-safe.
pub(crate) unsafe fn set_handler(signal: Signal, entry: Entry, mask: SignalSet, flags: c_int) -> Result<Action, i32> {
    exchange(signal.number(), Some(Action { handler: entry as usize, mask, flags: flags | libc::SA_SIGINFO }))
}

/// Private: callers set only SIG_DFL or SIG_IGN, or what the setters of handlers were promised (invariant 3).
fn exchange(number: c_int, new: Option<Action>) -> Result<Action, i32> {
    let new = new.map(|action| {
        let mut raw = zeroed_action();
        raw.sa_sigaction = action.handler;
        raw.sa_flags = action.flags;
        write_set(&mut raw.sa_mask, action.mask);
        raw
    });
    let mut old = zeroed_action();
    let new = new.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both pointers are live or null (invariant 1), and a handler keeps its promise (3).
    let answer = unsafe { libc::sigaction(number, new, &raw mut old) };
    if answer != 0 {
        return Err(errno());
    }
    Ok(Action { handler: old.sa_sigaction, mask: read_set(&old.sa_mask), flags: old.sa_flags })
}

fn zeroed_action() -> libc::sigaction {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    unsafe { mem::zeroed() }
}

pub(crate) fn write_set(target: &mut libc::sigset_t, set: SignalSet) {
    // SAFETY: the set begins with the kernel's 8 bytes (invariant 2), and is aligned at least as they are.
    unsafe { ptr::from_mut(target).cast::<u64>().write_unaligned(set.bits()) };
}

/// The kernel's part of `set`.
pub(crate) fn read_set(set: &libc::sigset_t) -> SignalSet {
    // SAFETY: the set begins with the kernel's 8 bytes (invariant 2).
    SignalSet::from_bits(unsafe { ptr::from_ref(set).cast::<u64>().read_unaligned() })
}

/// Changes the mask of the calling thread and returns the one before.
fn change_mask(how: c_int, set: Option<SignalSet>) -> SignalSet {
    let new = set.map(SignalSet::bits);
    let mut old = 0_u64;
    let new = new.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both sets are 8 live bytes, or null (invariants 1, 2).
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, &raw mut old, KERNEL_SET_BYTES) };
    debug_assert_eq!(answer, 0, "rt_sigprocmask fails only for bad arguments");
    SignalSet::from_bits(old)
}

pub(crate) fn mask() -> SignalSet {
    change_mask(libc::SIG_BLOCK, None)
}

pub(crate) fn block(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_BLOCK, Some(set))
}

pub(crate) fn set_mask(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_SETMASK, Some(set))
}

/// Blocked signals that wait for the calling thread or its process.
pub(crate) fn pending() -> SignalSet {
    let mut set = 0_u64;
    // SAFETY: the set is 8 live bytes (invariants 1, 2).
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, KERNEL_SET_BYTES) };
    debug_assert_eq!(answer, 0, "rt_sigpending fails only for bad arguments");
    SignalSet::from_bits(set)
}

/// Queues `info` for the calling thread. The kernel takes every field as it is.
pub(crate) fn queue_to_self(signal: Signal, info: &libc::siginfo_t) -> Result<(), i32> {
    let (process, thread) = self_ids();
    let number = c_long::from(signal.number());
    // SAFETY: `info` is live (invariant 1); the call reads it.
    let answer = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, number, ptr::from_ref(info)) };
    if answer == 0 { Ok(()) } else { Err(errno()) }
}

/// Sends `signal` to the calling thread, with nothing said.
pub(crate) fn send_to_self(signal: Signal) {
    let (process, thread) = self_ids();
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, c_long::from(signal.number())) };
}

fn self_ids() -> (c_long, c_long) {
    // SAFETY: no pointers.
    let process = unsafe { libc::syscall(libc::SYS_getpid) };
    // SAFETY: no pointers.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    (process, thread)
}

/// Sleeps while `word` holds `expected`. Returns 0 or the error number.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> i32 {
    let timeout = timeout.map(|relative| libc::timespec {
        tv_sec: libc::time_t::try_from(relative.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: c_long::from(relative.subsec_nanos().cast_signed()),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the timeout are live (invariant 1); the kernel only compares the word.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, timeout) };
    if answer == 0 { 0 } else { errno() }
}

/// Wakes up to `count` sleepers and returns how many.
pub(crate) fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let count = count.min(i32::MAX.cast_unsigned());
    // SAFETY: the address is a live word (invariant 1); the kernel does not touch it.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
    usize::try_from(answer).unwrap_or(0)
}

/// Reads at an offset; how many bytes, or the error number. Unlike the library's `pread` it is no cancellation
/// point.
pub(crate) fn read_at(file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Result<usize, i32> {
    let offset = offset.cast_signed();
    // SAFETY: the kernel writes at most `into.len()` bytes to a live slice (invariant 1).
    let answer = unsafe { libc::syscall(libc::SYS_pread64, file.as_raw_fd(), into.as_mut_ptr(), into.len(), offset) };
    usize::try_from(answer).map_err(|_| errno())
}

/// The alternate stack of the calling thread.
pub(crate) fn alternate_stack() -> Result<libc::stack_t, i32> {
    let mut old = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: null asks only; `old` is live (invariant 1).
    let answer = unsafe { libc::sigaltstack(ptr::null(), old.as_mut_ptr()) };
    if answer != 0 {
        return Err(errno());
    }
    // SAFETY: a pointer and two integers: zero is a value of each, and the kernel wrote them.
    Ok(unsafe { old.assume_init() })
}

/// Sets the alternate stack of the calling thread.
///
/// # Safety
///
/// The stack is disabled, or its memory is writable, used by nothing else, and stays so until another is set.
pub(crate) unsafe fn set_alternate_stack(stack: &libc::stack_t) -> Result<(), i32> {
    // SAFETY: `stack` is live (invariant 1); the caller answers for its memory.
    let answer = unsafe { libc::sigaltstack(stack, ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(errno()) }
}

/// As [`set_alternate_stack`]; returns what there was.
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn exchange_alternate_stack(stack: &libc::stack_t) -> Result<libc::stack_t, i32> {
    let mut old = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: both are live (invariant 1); the caller answers for the memory of the new one.
    let answer = unsafe { libc::sigaltstack(stack, &raw mut old) };
    if answer == 0 { Ok(old) } else { Err(errno()) }
}

/// Writes to standard error, past every buffer.
pub(crate) fn write_error(bytes: &[u8]) {
    // SAFETY: a live slice of that length (invariant 1). Nobody can be told that nobody reads.
    let _written = unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, bytes.as_ptr(), bytes.len()) };
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the address of this thread's errno; no lazy initialisation, it is libc's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: always a live integer of this thread.
    unsafe { place.read() }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as above.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { place.write(value) };
}

/// The file and symbol of a code address, where the loader knows. Not async-signal-safe.
pub(crate) fn origin(address: usize) -> Option<String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; `found` is live (invariant 1).
    let answer = unsafe { libc::dladdr(ptr::without_provenance(address), found.as_mut_ptr()) };
    if answer == 0 {
        return None;
    }
    // SAFETY: pointers only, zeroed before and written by the call.
    let found = unsafe { found.assume_init() };
    let text = |start: *const c_char| {
        if start.is_null() {
            return None;
        }
        // SAFETY: the loader's strings are terminated and live as long as the object is loaded.
        let text = unsafe { CStr::from_ptr(start) };
        Some(text.to_string_lossy().into_owned())
    };
    let file = text(found.dli_fname)?;
    Some(match text(found.dli_sname) {
        Some(symbol) => format!("{symbol} in {file}"),
        None => file,
    })
}
