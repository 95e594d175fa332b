//! A number that tells a forked child from its parent.
//!
//! Not the process id: a child in a namespace of its own may have its parent's, a later process may get that of
//! a dead one, and a vfork child has another although it shares the memory, and whatever is held in it.
//!
//! The word that holds the number is one that the kernel empties in a copy of the address space. Who finds it
//! empty takes the next number, which is none that any of its ancestors had: they counted in the same memory.
//!
//! Invariants:
//!
//! 1. `WORD` is null, or points to a word in a mapping that stays until the process ends.
//! 2. Nobody else knows of a mapping made here before it is in `WORD`.
//!
//! Kernel counterpart: `MADV_WIPEONFORK`.
#![expect(unsafe_code, reason = "a page of its own, found by pointer; the two invariants above are this file's proof")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::sys;

/// At least the word; the kernel rounds it up to a page.
const LEN: usize = size_of::<AtomicU32>();

static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// The highest number that this process or one of its ancestors took.
static LAST: AtomicU32 = AtomicU32::new(0);

/// The number of this address space: never 0, and another one than any of its ancestors had.
///
/// Async-signal-safe. The first call makes a mapping; later ones, in forked children too, are a few loads.
///
/// # Errors
///
/// The error number of `mmap` or `madvise`: `EINVAL` before Linux 4.14.
///
/// # Examples
///
/// ```
/// let here = userfault_signal::fork_generation()?;
/// assert_eq!(userfault_signal::fork_generation(), Ok(here));
/// # Ok::<(), i32>(())
/// ```
pub fn fork_generation() -> Result<u32, i32> {
    let word = word()?;
    let here = word.load(Ordering::Relaxed);
    if here != 0 {
        return Ok(here);
    }
    let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    // Where two threads of a child are the first, one number is lost.
    Ok(word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|other| other, |_| fresh))
}

fn word() -> Result<&'static AtomicU32, i32> {
    let known = WORD.load(Ordering::Acquire);
    let known = if known.is_null() { publish(map()?) } else { known };
    // SAFETY: not null, and there for ever (invariant 1).
    Ok(unsafe { &*known })
}

/// A word that is zero, and will be in a forked child.
fn map() -> Result<*mut AtomicU32, i32> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), LEN, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(sys::errno());
    }
    // SAFETY: just mapped, and empty.
    let answer = unsafe { libc::madvise(start, LEN, libc::MADV_WIPEONFORK) };
    if answer != 0 {
        let errno = sys::errno();
        unmap(start.cast());
        return Err(errno);
    }
    Ok(start.cast())
}

/// Makes `fresh` the word, unless another thread was faster; the word.
fn publish(fresh: *mut AtomicU32) -> *mut AtomicU32 {
    match WORD.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            unmap(fresh);
            other
        }
    }
}

fn unmap(nobodys: *mut AtomicU32) {
    // SAFETY: a mapping made here that nobody knows of (invariant 2).
    unsafe { libc::munmap(nobodys.cast(), LEN) };
}
