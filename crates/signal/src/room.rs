//! Stacks to borrow, for work that does not fit on a small alternate one.
//!
//! Of the 8 KiB that Rust gives a thread for its handlers the kernel's frame takes 3.4, and code that was built
//! without optimisation needs several times the stack of the same code with it.
//!
//! Invariants:
//!
//! 1. `start` of a place is 0 or the first byte of a stack that is mapped for good, behind a page without access.
//! 2. Who has set `holder` from another number to that of its address space has the stack for itself, until it
//!    sets 0. A forked child may take what its parent's threads hold: they are not there.
//! 3. Nothing here allocates, locks or panics: it is called in handlers.
//!
//! Who waits for a stack holds nothing that a holder could want, and a holder neither sleeps for long nor jumps out.
//!
//! Kernel counterpart: none; `sigaltstack(2)` says which stack a handler begins on.
#![expect(unsafe_code, reason = "runs code on another stack; the three invariants above are this file's proof")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use libc::stack_t;

use crate::arch;
use crate::context::FaultContext;
use crate::generation::fork_generation;
use crate::known::Known;
use crate::stack::LARGE_STACK_BYTES;
use crate::sys;

/// More threads than these at a time take turns.
const STACKS: usize = 64;
const GUARD_BYTES: usize = 4096;

struct Place {
    start: AtomicUsize,
    holder: AtomicU32,
}

static TABLE: [Place; STACKS] = [const { Place { start: AtomicUsize::new(0), holder: AtomicU32::new(0) } }; STACKS];

/// A stack, until it is dropped.
struct Borrowed(&'static Place);

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.0.holder.store(0, Ordering::Release);
    }
}

impl Borrowed {
    /// Waits for a free one. `None` if none can be mapped.
    fn take() -> Option<Self> {
        let here = fork_generation().ok()?;
        loop {
            for place in &TABLE {
                let holder = place.holder.load(Ordering::Relaxed);
                let is_taken = || place.holder.compare_exchange(holder, here, Ordering::Acquire, Ordering::Relaxed);
                if holder != here && is_taken().is_ok() {
                    let taken = Self(place);
                    return taken.map_once().then_some(taken);
                }
            }
            std::thread::yield_now();
        }
    }

    /// Whether it has memory.
    fn map_once(&self) -> bool {
        if self.0.start.load(Ordering::Relaxed) != 0 {
            return true;
        }
        let (len, flags) = (GUARD_BYTES + LARGE_STACK_BYTES, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let flags = flags | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: without MAP_FIXED the kernel chooses unused addresses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return false;
        }
        // SAFETY: the first page of the mapping, which nobody uses. If that fails, there is no guard.
        let _guarded = unsafe { libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) };
        let start = base.expose_provenance();
        // For good, as the stack is.
        std::mem::forget(Known::enter(start..start + len));
        self.0.start.store(start + GUARD_BYTES, Ordering::Relaxed);
        true
    }

    fn run(&self, mut work: impl FnMut()) {
        let top = ptr::with_exposed_provenance_mut::<c_void>(self.0.start.load(Ordering::Relaxed) + LARGE_STACK_BYTES);
        // SAFETY: the end of a stack that is this thread's alone (invariants 1, 2), and a function for this data.
        unsafe { arch::call_on(top, call_of(&work), NonNull::from(&mut work).as_ptr().cast()) };
    }
}

fn call_of<F: FnMut()>(_: &F) -> extern "C" fn(*mut c_void) {
    extern "C" fn call<F: FnMut()>(work: *mut c_void) {
        // SAFETY: `run` passes a live `F` that nobody else refers to meanwhile.
        let work = unsafe { &mut *work.cast::<F>() };
        work();
    }
    call::<F>
}

/// Without an alternate stack: a signal that comes here would begin at its top, over what it was left for.
fn without_alternate_stack(work: impl FnOnce()) {
    let none = stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: it disables it.
    let previous = unsafe { sys::exchange_alternate_stack(&none) };
    work();
    if let Ok(mut previous) = previous
        && previous.ss_flags & libc::SS_DISABLE == 0
    {
        previous.ss_flags &= !libc::SS_ONSTACK;
        // SAFETY: what the thread had a moment ago.
        let _set_again = unsafe { sys::exchange_alternate_stack(&previous) };
    }
}

/// In a frame of its own: inlined, what `work` needs would be taken from the small stack all the same.
#[inline(never)]
fn apart<C, R>(context: &mut C, work: impl FnOnce(&mut C) -> R) -> R {
    work(context)
}

impl FaultContext<'_> {
    /// Runs `work` with [`LARGE_STACK_BYTES`] of stack at least: where the handler is on a small alternate stack, on
    /// a borrowed one. It does not sleep for long there.
    pub fn with_room<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        if self.has_large_stack() || !self.on_alternate_stack() {
            return apart(self, work);
        }
        let Some(stack) = Borrowed::take() else { return apart(self, work) };
        let (mut once, mut result) = (Some(work), None);
        stack.run(|| without_alternate_stack(|| result = once.take().map(|work| apart(self, work))));
        drop(stack);
        // It was called; a handler does not panic.
        result.unwrap_or_else(|| std::process::abort())
    }
}
