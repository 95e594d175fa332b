//! What the kernel says about a fault, as a handler sees it.
//!
//! Invariants:
//!
//! 1. `info` and `context` are what the kernel passed to the handler that is running, and live as long as it.
//! 2. The handler runs with [`SignalSet::ASYNCHRONOUS`] blocked; `blocked` says so.
//! 3. Nobody else looks at them while the [`FaultContext`] exists; the previous handler gets them after it.
//!
//! Kernel counterpart: `siginfo_t`, `struct ucontext`.
#![expect(unsafe_code, reason = "reads what the kernel put on the stack; the three invariants are this file's proof")]

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use libc::{siginfo_t, ucontext_t};

use crate::arch;
use crate::handler::Signal;
use crate::mask::{SignalSet, SignalsBlocked};
use crate::stack::LARGE_STACK_BYTES;
use crate::sys;

/// No mapping at the address (`SEGV_MAPERR`).
const NO_MAPPING: c_int = 1;
/// A mapping that does not allow the access (`SEGV_ACCERR`).
const NO_ACCESS: c_int = 2;
/// A hardware memory error that nobody has touched yet (`BUS_MCEERR_AO`).
const MEMORY_ERROR_ELSEWHERE: c_int = 5;

/// A SIGSEGV or SIGBUS, inside its handler. Every method is async-signal-safe.
///
/// Example: [`crate`].
#[derive(Debug)]
pub struct FaultContext<'handler> {
    pub(crate) signal: Signal,
    info: NonNull<siginfo_t>,
    context: NonNull<ucontext_t>,
    blocked: SignalsBlocked,
    /// Whether SIGBUS waits for this handler to return.
    pub(crate) has_raised: bool,
    lives: PhantomData<&'handler mut ucontext_t>,
}

impl FaultContext<'_> {
    /// # Safety
    ///
    /// `info` and `context` are the arguments of a SA_SIGINFO handler for `signal` that is running, runs
    /// under `mask`, and outlives the result; both are not null.
    pub(crate) unsafe fn new(
        signal: Signal,
        info: NonNull<siginfo_t>,
        context: NonNull<c_void>,
        mask: SignalSet,
    ) -> Self {
        let blocked = SignalsBlocked::within(mask, mask);
        let context = context.cast();
        let mut new = Self { signal, info, context, blocked, has_raised: false, lives: PhantomData };
        let interrupted = new.interrupted_mask();
        new.blocked = if new.has_large_stack() {
            SignalsBlocked::within(mask, interrupted)
        } else {
            SignalsBlocked::small(mask, interrupted)
        };
        new
    }

    /// The signal.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        self.signal
    }

    /// The address of the first byte that could not be accessed (`si_addr`); for a signal that was sent,
    /// meaningless.
    #[must_use]
    pub fn address(&self) -> usize {
        // SAFETY: both signals carry an address; for a sent one it is other bytes of the same union (invariant 1).
        unsafe { self.info().si_addr() }.addr()
    }

    /// `si_code`.
    #[must_use]
    pub fn code(&self) -> c_int {
        self.info().si_code
    }

    /// Whether somebody sent this signal, rather than an instruction raising it. Handlers never see such.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.code() <= 0 || self.signal == Signal::Bus && self.code() == MEMORY_ERROR_ELSEWHERE
    }

    /// Whether this is a page fault that no mapping, or its protection, allowed: SIGSEGV, trap 14, and
    /// `SEGV_MAPERR` or `SEGV_ACCERR`.
    #[must_use]
    pub fn is_page_fault(&self) -> bool {
        self.signal == Signal::Segv
            && matches!(self.code(), NO_MAPPING | NO_ACCESS)
            && arch::is_page_trap(self.context())
    }

    /// Whether this is SIGBUS at a page whose contents there are not (`BUS_ADRERR`): a userfaultfd with the
    /// SIGBUS feature, the end of a file, [`raise_bus_error`](Self::raise_bus_error).
    #[must_use]
    pub fn is_bus_error(&self) -> bool {
        self.signal == Signal::Bus && self.code() == libc::BUS_ADRERR
    }

    /// Whether the access was a write (bit 1 of the error code), of a failed compare-exchange too.
    #[must_use]
    pub fn is_write(&self) -> bool {
        arch::is_write(self.context())
    }

    /// The processor's error code; of the last fault of the thread, if this signal was sent.
    #[must_use]
    pub fn error_code(&self) -> u64 {
        arch::error_code(self.context())
    }

    /// The address of the instruction that repeats when the handler returns.
    #[must_use]
    pub fn instruction_pointer(&self) -> usize {
        arch::instruction_pointer(self.context())
    }

    /// Continues at `address` instead when the handler returns.
    ///
    /// # Safety
    ///
    /// The interrupted code is sound if it continues there.
    pub unsafe fn set_instruction_pointer(&mut self, address: usize) {
        arch::set_instruction_pointer(self.context_mut(), address);
    }

    /// The mask of the interrupted code, which it gets back when the handler returns.
    #[must_use]
    pub fn interrupted_mask(&self) -> SignalSet {
        sys::read_set(&self.context().uc_sigmask)
    }

    /// The size in bytes of the thread's alternate stack, or `None` if it has none.
    #[must_use]
    pub fn alternate_stack_size(&self) -> Option<usize> {
        let stack = &self.context().uc_stack;
        let is_disabled = stack.ss_flags & libc::SS_DISABLE != 0 || stack.ss_size == 0;
        (!is_disabled).then_some(stack.ss_size)
    }

    /// Whether this handler runs on the thread's alternate stack.
    #[must_use]
    pub fn on_alternate_stack(&self) -> bool {
        let start = self.context().uc_stack.ss_sp.addr();
        let offset = self.context.addr().get().wrapping_sub(start);
        self.alternate_stack_size().is_some_and(|size| offset < size)
    }

    /// Bytes of stack below the kernel's frame, if the handler runs on an alternate stack.
    #[must_use]
    pub fn stack_left(&self) -> Option<usize> {
        let start = self.context().uc_stack.ss_sp.addr();
        self.on_alternate_stack().then(|| self.context.addr().get().wrapping_sub(start))
    }

    /// Whether there is room to answer inline, and to let signals in while parked: the handler runs on an
    /// ordinary stack or on an alternate one of at least [`LARGE_STACK_BYTES`].
    #[must_use]
    pub fn has_large_stack(&self) -> bool {
        self.alternate_stack_size().is_none_or(|size| size >= LARGE_STACK_BYTES)
    }

    /// The proof that signals are blocked here.
    pub const fn signals_blocked(&self) -> &SignalsBlocked {
        &self.blocked
    }

    /// The same, to sleep with, under the mask of the interrupted code: see [`SignalsBlocked::sleep_on`].
    ///
    /// Only around a futex wait: a signal handler of the program may run meanwhile, fault, or jump out and
    /// never come back.
    pub fn signals_blocked_mut(&mut self) -> &mut SignalsBlocked {
        if !self.has_large_stack() {
            self.blocked.let_in(fatal_by_default(self.interrupted_mask()));
        }
        &mut self.blocked
    }

    pub(crate) fn set_interrupted_mask(&mut self, set: SignalSet) {
        sys::write_set(&mut self.context_mut().uc_sigmask, set);
    }

    pub(crate) const fn info(&self) -> &siginfo_t {
        // SAFETY: live, and changed by nobody (invariants 1, 3).
        unsafe { self.info.as_ref() }
    }

    const fn context(&self) -> &ucontext_t {
        // SAFETY: live, and changed by nobody (invariants 1, 3).
        unsafe { self.context.as_ref() }
    }

    const fn context_mut(&mut self) -> &mut ucontext_t {
        // SAFETY: live, and ours alone (invariants 1, 3).
        unsafe { self.context.as_mut() }
    }
}

/// The usual ways to end a program that `mask` lets in and that have no handler: they need no frame, so
/// a thread may be ended by them also while it sleeps on a small stack.
fn fatal_by_default(mask: SignalSet) -> SignalSet {
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT]
        .into_iter()
        .filter(|signal| !mask.contains(*signal) && sys::is_default(*signal))
        .fold(SignalSet::EMPTY, SignalSet::with)
}
