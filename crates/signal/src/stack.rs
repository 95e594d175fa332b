//! Alternate signal stacks large enough for nested faults.
//!
//! Invariants:
//!
//! 1. `[base, base + len)` was mapped here: a page without access, then the stack.
//! 2. It is unmapped only when the kernel no longer has it as the alternate stack of the thread and nobody took
//!    it for the previous one of theirs, and the owner never leaves its thread.
//!
//! Kernel counterpart: `sigaltstack(2)`.
#![expect(unsafe_code, reason = "maps a stack; the two invariants above are this file's proof")]

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use libc::{c_void, stack_t};

use crate::error::StackError;
use crate::known::Known;
use crate::sys;

/// From this size on, a parked fault, a signal in it and a fault in its handler fit: three frames of
/// 3.4 KiB, and what the program's handler needs.
pub const LARGE_STACK_BYTES: usize = 64 * 1024;

/// A large alternate stack of the calling thread, for as long as this lives.
///
/// # Examples
///
/// ```
/// use userfault_signal::{AlternateStack, LARGE_STACK_BYTES, alternate_stack_in};
///
/// let thread = std::thread::spawn(|| {
///     let stack = AlternateStack::ensure(LARGE_STACK_BYTES)?;
///     assert!(stack.is_new(), "the standard library gives a thread 8 KiB or so");
///     assert!(alternate_stack_in(&(0..usize::MAX)).is_some());
///     Ok::<(), userfault_signal::StackError>(())
/// });
/// thread.join().unwrap()?;
/// # Ok::<(), userfault_signal::StackError>(())
/// ```
#[derive(Debug)]
#[must_use = "the old alternate stack comes back when this is dropped"]
pub struct AlternateStack {
    /// `None` if the thread had a large one already.
    own: Option<Own>,
    belongs_to_its_thread: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Own {
    base: NonNull<c_void>,
    len: usize,
    start: *mut c_void,
    previous: stack_t,
    /// In the table of our stacks; gone before the mapping is.
    known: Option<Known>,
}

impl AlternateStack {
    /// Gives the calling thread an alternate stack of at least `min_bytes` and [`LARGE_STACK_BYTES`],
    /// behind a page without access; nothing changes if it has one.
    ///
    /// # Errors
    ///
    /// [`StackError`]; the old stack stays. Among them: inside a handler on the alternate stack it cannot
    /// be changed.
    pub fn ensure(min_bytes: usize) -> Result<Self, StackError> {
        let wanted = min_bytes.max(LARGE_STACK_BYTES);
        let previous = sys::alternate_stack().map_err(|errno| StackError::Os { call: "sigaltstack", errno })?;
        if previous.ss_flags & libc::SS_DISABLE == 0 && previous.ss_size >= wanted {
            return Ok(Self { own: None, belongs_to_its_thread: PhantomData });
        }
        let own = Own::map(wanted, previous)?;
        let new = stack_t { ss_sp: own.start, ss_flags: 0, ss_size: wanted };
        // SAFETY: mapped just now and given to nobody else; unmapped only after another is set (invariant 2).
        let answer = unsafe { sys::set_alternate_stack(&new) };
        // On an error, dropping `own` unmaps it: the kernel never had it.
        answer.map_err(|errno| StackError::Os { call: "sigaltstack", errno })?;
        Ok(Self { own: Some(own), belongs_to_its_thread: PhantomData })
    }

    /// Whether the thread had no large alternate stack, and got one.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.own.is_some()
    }
}

impl Own {
    fn map(wanted: usize, previous: stack_t) -> Result<Self, StackError> {
        let too_large = StackError::TooLarge { min_bytes: wanted };
        // SAFETY: no pointers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let rounded = wanted.checked_next_multiple_of(page).ok_or(too_large)?;
        let len = rounded.checked_add(page).filter(|len| isize::try_from(*len).is_ok()).ok_or(too_large)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: without MAP_FIXED the kernel chooses unused addresses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(StackError::Os { call: "mmap", errno: sys::errno() });
        }
        let base = NonNull::new(base).ok_or(StackError::Os { call: "mmap", errno: libc::EFAULT })?;
        // SAFETY: one page into a mapping of more than one page (invariant 1).
        let start = unsafe { base.as_ptr().byte_add(page) };
        let known = Known::enter(base.as_ptr().addr()..base.as_ptr().addr() + len);
        let own = Self { base, len, start, previous, known };
        // SAFETY: the first page of the mapping, which nobody uses yet (invariant 1).
        let answer = unsafe { libc::mprotect(base.as_ptr(), page, libc::PROT_NONE) };
        if answer != 0 {
            return Err(StackError::Os { call: "mprotect", errno: sys::errno() });
        }
        Ok(own)
    }

    /// Sets the previous stack again if ours is still set; whether nobody will set ours any more.
    fn is_given_back(&self) -> bool {
        let Ok(current) = sys::alternate_stack() else {
            return false;
        };
        if current.ss_flags & libc::SS_DISABLE != 0 {
            return true;
        }
        if current.ss_sp != self.start {
            // Whoever set it may keep ours, to set it again.
            return false;
        }
        let mut previous = self.previous;
        // The kernel says SS_ONSTACK, but does not take it.
        previous.ss_flags &= !libc::SS_ONSTACK;
        // SAFETY: what the thread had; whoever set it keeps it until it sets another.
        unsafe { sys::set_alternate_stack(&previous) }.is_ok()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Running on it, inside a handler, or not the last one: leaked rather than pulled away.
        if self.is_given_back() {
            self.known = None;
            // SAFETY: ours (invariant 1), and the kernel no longer has it (2).
            let answer = unsafe { libc::munmap(self.base.as_ptr(), self.len) };
            debug_assert_eq!(answer, 0, "munmap of a whole mapping succeeds");
        } else {
            std::mem::forget(self.known.take());
        }
    }
}
