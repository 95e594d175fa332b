//! The handlers of the process for SIGSEGV and SIGBUS, and those that were there before.
//!
//! Invariants:
//!
//! 1. [`entry`] is called by the kernel as a SA_SIGINFO handler, or by a handler that replaced it and
//!    passes its own arguments on.
//! 2. Everything [`entry`] reaches is async-signal-safe: here by inspection, in a [`FaultHandler`] by promise.
//! 3. `previous` is what `sigaction` returned: an address in it is a handler of the kind its flags say.
//! 4. Once installed, [`entry`] is never removed: others may have saved it to chain to it.
//! 5. A [`Place`] is null or holds the address of a [`Handle`].
//!
//! Kernel counterpart: `get_signal`, `handle_signal`, `force_sig_fault`.
//!
//! # Ordering
//!
//! `previous` is written before `sigaction` installs [`entry`], and once more after it, in case someone
//! came between; the system call orders the first write before every entry. Its three fields are relaxed:
//! a reader between the two rewrites may mix flags and mask of two handlers, not more, in a race of two
//! threads that install handlers for one signal and a third that crashes.
#![expect(unsafe_code, reason = "signal handlers; the five invariants above are this file's proof")]

use std::ffi::{c_int, c_void};
use std::fmt::{Display, Formatter, Result as Written};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicI32, AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use libc::siginfo_t;

use crate::context::FaultContext;
use crate::error::{InstallError, Replaced};
use crate::mask::SignalSet;
use crate::sys::{self, Action};
use crate::turn::Turn;

/// A signal that a fault raises.
///
/// Example: [`crate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// An access that no mapping, or its protection, allows.
    Segv,
    /// An access to a page whose contents there are not.
    Bus,
}

impl Signal {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> c_int {
        match self {
            Self::Segv => libc::SIGSEGV,
            Self::Bus => libc::SIGBUS,
        }
    }

    const fn slot(self) -> &'static Slot {
        match self {
            Self::Segv => &SEGV,
            Self::Bus => &BUS,
        }
    }
}

impl Display for Signal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.write_str(match self {
            Self::Segv => "SIGSEGV",
            Self::Bus => "SIGBUS",
        })
    }
}

/// What a handler made of a fault.
///
/// Example: [`crate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// Return: the instruction repeats, or continues where the handler said.
    Handled,
    /// Ask the next handler, and in the end those that were there before.
    NotOurs,
}

/// What may run inside a fault handler.
///
/// # Safety
///
/// [`handle`](Self::handle) may interrupt any instruction of any thread, itself included. It does not
/// allocate or free, takes no lock and waits for nothing that the interrupted code may hold, does not
/// panic, initialises no thread local, and needs less than 4 KiB of stack where
/// [`FaultContext::has_large_stack`] says no.
///
/// Example: [`crate`].
pub unsafe trait FaultHandler {
    /// Looks at a fault. Signals that somebody sent are not shown.
    fn handle(context: &mut FaultContext<'_>) -> Disposition;
}

type Handle = fn(&mut FaultContext<'_>) -> Disposition;

/// Two providers, and room for their tests.
const PLACES: usize = 4;

struct Slot {
    handlers: [Place; PLACES],
    previous: Previous,
}

/// Room for one handler: its address, or null. Not a `OnceLock`, of which a forked child may find the parent's
/// unfinished change.
struct Place(AtomicPtr<()>);

impl Place {
    fn get(&self) -> Option<Handle> {
        let address = self.0.load(Acquire);
        // SAFETY: what is not null was stored by `set` (invariant 5).
        (!address.is_null()).then(|| unsafe { mem::transmute::<*mut (), Handle>(address) })
    }

    /// Whether it was free.
    fn set(&self, handle: Handle) -> bool {
        self.0.compare_exchange(ptr::null_mut(), handle as *mut (), Release, Relaxed).is_ok()
    }
}

struct Previous {
    handler: AtomicUsize,
    mask: AtomicU64,
    flags: AtomicI32,
}

static SEGV: Slot = Slot::new();
static BUS: Slot = Slot::new();
/// Whoever installs. Never taken in a handler.
static INSTALLING: Turn = Turn::new();

impl Slot {
    const fn new() -> Self {
        let previous =
            Previous { handler: AtomicUsize::new(libc::SIG_DFL), mask: AtomicU64::new(0), flags: AtomicI32::new(0) };
        Self { handlers: [const { Place(AtomicPtr::new(ptr::null_mut())) }; PLACES], previous }
    }
}

impl Previous {
    fn set(&self, action: Action) {
        self.mask.store(action.mask.bits(), Relaxed);
        self.flags.store(action.flags, Relaxed);
        self.handler.store(action.handler, Relaxed);
    }

    fn get(&self) -> Action {
        Action {
            handler: self.handler.load(Relaxed),
            mask: SignalSet::from_bits(self.mask.load(Relaxed)),
            flags: self.flags.load(Relaxed),
        }
    }

    /// The handler to call, with SA_RESETHAND honoured as the kernel does: one fault gets it, then none.
    fn take(&self) -> Action {
        let mut action = self.get();
        if action.flags & libc::SA_RESETHAND != 0 {
            action.handler = self.handler.swap(libc::SIG_DFL, Relaxed);
        }
        action
    }
}

/// Lets `H` look at every `signal` that an instruction raises, for the rest of the process.
///
/// The first call installs the handler of the process, with SA_SIGINFO, SA_ONSTACK, SA_NODEFER and
/// [`SignalSet::ASYNCHRONOUS`] blocked. Handlers are asked in the order of their installation; a fault that
/// none wants goes to the handler that was there before, as if we were not.
///
/// # Errors
///
/// [`InstallError`]; the disposition is unchanged then.
///
/// # Blocking
///
/// Takes a lock: not for handlers.
///
/// Example: [`crate`].
pub fn install<H: FaultHandler>(signal: Signal) -> Result<(), InstallError> {
    let _installing = INSTALLING.take();
    let slot = signal.slot();
    if slot.handlers.iter().all(|place| place.get().is_some()) {
        return Err(InstallError::Full { places: PLACES });
    }
    if slot.handlers.iter().all(|place| place.get().is_none()) {
        take_over(signal).map_err(|errno| InstallError::Os { errno })?;
    }
    // The lock is held, so the first free place stays free until here.
    let is_placed = slot.handlers.iter().any(|place| place.set(H::handle));
    debug_assert!(is_placed, "there was a free place");
    Ok(())
}

fn take_over(signal: Signal) -> Result<(), i32> {
    let previous = sys::action(signal)?;
    if is_entry(&previous) {
        // A thread that a fork left behind had come this far in the parent: what was there before is noted.
        return Ok(());
    }
    signal.slot().previous.set(previous);
    // A sent signal that the previous handler takes must restart the call it interrupts, or not, as before.
    let flags = libc::SA_ONSTACK | libc::SA_NODEFER | (previous.flags & libc::SA_RESTART);
    // SAFETY: `entry` is async-signal-safe (invariant 2).
    let replaced = unsafe { sys::set_handler(signal, entry, SignalSet::ASYNCHRONOUS, flags) }?;
    if replaced != previous {
        signal.slot().previous.set(replaced);
    }
    Ok(())
}

fn is_entry(action: &Action) -> bool {
    action.handler == entry as *const () as usize
}

/// Whether `signal` still comes to us first.
///
/// # Errors
///
/// [`Replaced`] says what it does instead.
///
/// Example: [`crate`].
pub fn still_installed(signal: Signal) -> Result<(), Replaced> {
    if signal.slot().handlers.iter().all(|place| place.get().is_none()) {
        return Err(Replaced::NeverInstalled(signal));
    }
    match sys::action(signal).map_err(|errno| Replaced::Os { errno })?.handler {
        libc::SIG_DFL => Err(Replaced::ByDefault(signal)),
        libc::SIG_IGN => Err(Replaced::ByIgnore(signal)),
        address if address == entry as *const () as usize => Ok(()),
        address => Err(Replaced::ByHandler { signal, address, origin: sys::origin(address) }),
    }
}

/// The address of the handler that `signal` has now, ours or another; `None` if it has none. Async-signal-safe.
///
/// Example: [`crate`].
#[must_use]
pub fn handler_address(signal: Signal) -> Option<usize> {
    let address = sys::action(signal).ok()?.handler;
    (address != libc::SIG_DFL && address != libc::SIG_IGN).then_some(address)
}

/// The handler of the process for both signals.
extern "C" fn entry(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = sys::errno();
    let signal = if number == libc::SIGBUS { Signal::Bus } else { Signal::Segv };
    let (Some(info), Some(context)) = (NonNull::new(info), NonNull::new(context)) else {
        // Somebody who replaced us calls without arguments; all there is to say is the default action.
        let _ = sys::set_default(signal);
        return;
    };
    // Free if the kernel calls, but one who replaced us may call with fewer signals blocked: not to be seen.
    let mask_before = sys::block(SignalSet::ASYNCHRONOUS);
    let mask = mask_before.union(SignalSet::ASYNCHRONOUS);
    // SAFETY: the arguments of this handler, which runs under `mask` (invariant 1) and outlives the context.
    let mut fault = unsafe { FaultContext::new(signal, info, context, mask) };
    let is_handled = !fault.is_sent()
        && signal.slot().handlers.iter().map_while(Place::get).any(|handle| handle(&mut fault) == Disposition::Handled);
    let has_raised = fault.has_raised;
    if !is_handled {
        chain(fault, info, context, errno);
    }
    if !is_handled || mask_before != mask {
        // For one who replaced us and called; the kernel restores the interrupted mask by itself.
        let kept = if has_raised { mask_before.with(libc::SIGBUS) } else { mask_before };
        sys::set_mask(kept);
    }
    sys::set_errno(errno);
}

/// Does what would have happened without us.
fn chain(mut fault: FaultContext<'_>, info: NonNull<siginfo_t>, context: NonNull<c_void>, errno: c_int) {
    let signal = fault.signal;
    let previous = signal.slot().previous.take();
    match previous.handler {
        libc::SIG_DFL => die(&fault),
        // Ignoring a fault would repeat it for ever: the kernel takes the default action, and so do we.
        libc::SIG_IGN if fault.is_sent() => {}
        libc::SIG_IGN => die(&fault),
        handler => {
            let own = if previous.flags & libc::SA_NODEFER == 0 {
                SignalSet::EMPTY.with(signal.number())
            } else {
                SignalSet::EMPTY
            };
            sys::set_mask(fault.interrupted_mask().union(previous.mask).union(own));
            fault.has_raised = false;
            drop(fault);
            // What the interrupted code had: a handler may look at it, or jump out.
            sys::set_errno(errno);
            call(handler, previous.flags, signal.number(), info, context);
        }
    }
}

/// Ends the process by the signal, with the status and the core file of the interrupted instruction.
fn die(fault: &FaultContext<'_>) {
    // Nothing to do about an error: the instruction repeats, and comes here again.
    let _ = sys::set_default(fault.signal);
    if fault.is_sent() && sys::queue_to_self(fault.signal, fault.info()).is_err() {
        // No instruction would repeat it.
        sys::send_to_self(fault.signal);
    }
}

fn call(handler: usize, flags: c_int, number: c_int, info: NonNull<siginfo_t>, context: NonNull<c_void>) {
    let handler: *const () = std::ptr::with_exposed_provenance(handler);
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the flags say that it takes three arguments (invariant 3).
        let handler =
            unsafe { mem::transmute::<*const (), extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler) };
        handler(number, info.as_ptr(), context.as_ptr());
    } else {
        // SAFETY: the flags say that it takes one argument (invariant 3).
        let handler = unsafe { mem::transmute::<*const (), extern "C" fn(c_int)>(handler) };
        handler(number);
    }
}
