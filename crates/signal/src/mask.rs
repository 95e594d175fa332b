//! Which signals a thread lets in.
//!
//! Invariant:
//!
//! 1. While a [`SignalsBlocked`] lives and is not borrowed by a sleep, its thread blocks
//!    [`SignalSet::ASYNCHRONOUS`]. It never leaves the thread.
//!
//! Kernel counterpart: `current->blocked`, `sigprocmask`.
#![expect(unsafe_code, reason = "a token made without blocking: its caller answers for the invariant above")]

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::park::{FutexWait, futex_wait};
use crate::sys;

/// A wait with a timeout is never restarted behind our back after a signal handler with SA_RESTART: it ends with
/// EINTR.
const LONG_NAP: Duration = Duration::from_secs(3600);
/// Where signals cannot be let in: how long at first nobody looks for them, and how long at most.
const FIRST_NAP: Duration = Duration::from_millis(10);
const LAST_NAP: Duration = Duration::from_millis(40);

/// A set of signals, as the kernel keeps it: bit `n - 1` is signal `n`, of 64.
///
/// # Examples
///
/// ```
/// use userfault_signal::SignalSet;
///
/// let set = SignalSet::EMPTY.with(libc::SIGTERM).with(libc::SIGINT);
/// assert!(set.contains(libc::SIGTERM) && !set.without(libc::SIGTERM).contains(libc::SIGTERM));
/// assert!(!SignalSet::ASYNCHRONOUS.contains(libc::SIGSEGV));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal, those of the C library's own use included.
    pub const ALL: Self = Self(u64::MAX);
    /// Every signal but SIGSEGV and SIGBUS: what is blocked inside a fault handler and under a
    /// [`SignalsBlocked`] token. A fault in there must reach the handler: blocked, it kills without a
    /// word. Without SIGKILL and SIGSTOP, which nobody can block, so that masks compare equal.
    pub const ASYNCHRONOUS: Self =
        Self::ALL.without(libc::SIGSEGV).without(libc::SIGBUS).without(libc::SIGKILL).without(libc::SIGSTOP);

    /// Every signal but those that an instruction raises by itself, and the two of the C library: blocked,
    /// 33 would make `setuid` in another thread wait for ever.
    const FOR_MONITORS: Self = Self::ASYNCHRONOUS
        .without(libc::SIGILL)
        .without(libc::SIGFPE)
        .without(libc::SIGTRAP)
        .without(libc::SIGSYS)
        .without(32)
        .without(33);

    /// From the kernel's representation.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's representation.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `signal` is in the set; no set has a signal outside `1..=64`.
    #[must_use]
    pub const fn contains(self, signal: c_int) -> bool {
        self.0 & Self::only(signal) != 0
    }

    /// The set and `signal`.
    #[must_use]
    pub const fn with(self, signal: c_int) -> Self {
        Self(self.0 | Self::only(signal))
    }

    /// The set less `signal`.
    #[must_use]
    pub const fn without(self, signal: c_int) -> Self {
        Self(self.0 & !Self::only(signal))
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in `other`.
    pub(crate) const fn less(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both sets.
    pub(crate) const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn only(signal: c_int) -> u64 {
        if signal < 1 || signal > 64 { 0 } else { 1 << (signal - 1) }
    }
}

/// Proof that asynchronous signals are blocked in this thread: [`SignalSet::ASYNCHRONOUS`].
///
/// Made by [`SignalsBlocked::new`] outside of handlers; inside, [`FaultContext`](crate::FaultContext) has
/// one for free. Code that holds a provider's lock takes a `&SignalsBlocked`. The mask changes back when
/// the token goes; tokens of one thread go in the reverse order of their making.
///
/// It belongs to its thread:
///
/// ```compile_fail,E0277
/// let token = userfault_signal::SignalsBlocked::new();
/// std::thread::spawn(move || drop(token));
/// ```
///
/// # Examples
///
/// ```
/// use userfault_signal::{SignalsBlocked, is_blocked};
///
/// let blocked = SignalsBlocked::new();
/// assert!(is_blocked(libc::SIGTERM) && !is_blocked(libc::SIGSEGV));
/// drop(blocked);
/// assert!(!is_blocked(libc::SIGTERM));
/// ```
#[derive(Debug)]
#[must_use = "signals are blocked for as long as the token lives"]
pub struct SignalsBlocked {
    /// The mask while the token lives.
    inside: SignalSet,
    /// The mask for a sleep, and after the token.
    outside: SignalSet,
    /// Signals that a sleep does not let in, though whoever was interrupted does.
    kept_waiting: SignalSet,
    at_end: AtEnd,
    belongs_to_its_thread: PhantomData<*const ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// Set the mask back.
    Restore,
    /// The kernel, or whoever blocked the signals, does.
    Leave,
}

impl SignalsBlocked {
    /// Blocks them. Costs a system call here and one at the end.
    pub fn new() -> Self {
        let outside = sys::block(SignalSet::ASYNCHRONOUS);
        let inside = outside.union(SignalSet::ASYNCHRONOUS);
        let (kept_waiting, at_end) = (SignalSet::EMPTY, AtEnd::Restore);
        Self { inside, outside, kept_waiting, at_end, belongs_to_its_thread: PhantomData }
    }

    /// A token for signals that are blocked already; changes no mask, now or at its end.
    ///
    /// # Safety
    ///
    /// [`SignalSet::ASYNCHRONOUS`] is blocked in this thread, and stays so for as long as the token lives.
    pub unsafe fn assume() -> Self {
        Self::within(SignalSet::ASYNCHRONOUS, SignalSet::ASYNCHRONOUS)
    }

    /// For a handler that runs under `inside` and may let in all but `outside` while it sleeps.
    pub(crate) const fn within(inside: SignalSet, outside: SignalSet) -> Self {
        let (kept_waiting, at_end) = (SignalSet::EMPTY, AtEnd::Leave);
        Self { inside, outside, kept_waiting, at_end, belongs_to_its_thread: PhantomData }
    }

    /// For a handler on a stack that has no room for another one: what `interrupted` lets in waits for its return.
    pub(crate) const fn small(inside: SignalSet, interrupted: SignalSet) -> Self {
        let (kept_waiting, at_end) = (inside.less(interrupted), AtEnd::Leave);
        Self { inside, outside: inside, kept_waiting, at_end, belongs_to_its_thread: PhantomData }
    }

    /// Lets `signals` in while asleep.
    pub(crate) fn let_in(&mut self, signals: SignalSet) {
        self.outside = self.outside.less(signals);
        self.kept_waiting = self.kept_waiting.less(signals);
    }

    /// Sleeps while `word` holds `expected`, under the mask that was there before; a signal handler that has run
    /// ends it.
    ///
    /// In a fault handler on a small alternate stack, where another frame would not fit, most signals stay blocked.
    /// There `Interrupted` means that one waits: it is delivered when the fault handler returns, which is to be
    /// soon, since another thread may wait for that, as in `setuid`. They are looked for, so that comes late by
    /// 40 ms at most. Async-signal-safe.
    ///
    /// # Blocking
    ///
    /// Until [`futex_wake`](crate::futex_wake) or a signal; without either it says `TimedOut` once an hour.
    ///
    /// # Ordering
    ///
    /// As [`futex_wait`].
    pub fn sleep_on(&mut self, word: &AtomicU32, expected: u32) -> FutexWait {
        let awaited = self.kept_waiting;
        self.while_unblocked(|| {
            if awaited == SignalSet::EMPTY {
                return futex_wait(word, expected, Some(LONG_NAP));
            }
            let mut nap = FIRST_NAP;
            loop {
                let ended = futex_wait(word, expected, Some(nap));
                if ended != FutexWait::TimedOut {
                    return ended;
                }
                if sys::pending().intersection(awaited) != SignalSet::EMPTY {
                    return FutexWait::Interrupted;
                }
                nap = nap.saturating_mul(2).min(LAST_NAP);
            }
        })
    }

    /// Runs `sleep` under the mask that was there before, and blocks the signals again.
    ///
    /// Signals that waited are delivered first. Takes the token `&mut`, so nothing that relies on it is
    /// held meanwhile. Async-signal-safe if `sleep` is.
    pub fn while_unblocked<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        if self.outside == self.inside {
            return sleep();
        }
        sys::set_mask(self.outside);
        let answer = sleep();
        sys::set_mask(self.inside);
        answer
    }
}

impl Default for SignalsBlocked {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        if self.at_end == AtEnd::Restore {
            sys::set_mask(self.outside);
        }
    }
}

/// Blocks, for good, every signal that others may send to this thread: for monitors, which must not run
/// the program's handlers.
///
/// Left deliverable: what an instruction raises by itself (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP,
/// SIGSYS), so that a crash of the monitor is reported as any other, and the C library's own two.
///
/// # Examples
///
/// ```
/// use userfault_signal::{block_all_in_this_thread, is_blocked};
///
/// let monitor = std::thread::spawn(|| {
///     block_all_in_this_thread();
///     is_blocked(libc::SIGTERM) && !is_blocked(libc::SIGSEGV)
/// });
/// assert!(monitor.join().unwrap());
/// ```
pub fn block_all_in_this_thread() {
    sys::block(SignalSet::FOR_MONITORS);
}

/// Lets SIGSEGV and SIGBUS in again in this thread, and says whether one of them was blocked.
///
/// For threads that were started with every signal blocked, as programs do that read theirs from a
/// descriptor: a fault whose signal is blocked kills.
///
/// ```
/// assert!(!userfault_signal::unblock_faults(), "neither was blocked");
/// ```
pub fn unblock_faults() -> bool {
    let before = sys::mask();
    let open = before.without(libc::SIGSEGV).without(libc::SIGBUS);
    if open != before {
        sys::set_mask(open);
    }
    open != before
}

/// Whether this thread blocks `signal`. A blocked SIGSEGV kills where it should fault.
///
/// Example: [`SignalsBlocked`].
#[must_use]
pub fn is_blocked(signal: c_int) -> bool {
    sys::mask().contains(signal)
}
