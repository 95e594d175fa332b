//! To sleep on a word, and to wake who sleeps there. Async-signal-safe; private to the process.
//!
//! Where signals are blocked, sleep by [`SignalsBlocked::sleep_on`](crate::SignalsBlocked::sleep_on), or within
//! [`SignalsBlocked::while_unblocked`](crate::SignalsBlocked::while_unblocked).
//!
//! Kernel counterpart: `futex(2)`.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::sys;

/// Why a sleep ended. Every reason but `Changed` may be spurious: look at the word.
///
/// Example: [`futex_wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum FutexWait {
    /// Somebody woke us.
    Woken,
    /// The word did not hold what was expected: there was no sleep.
    Changed,
    /// A signal handler ran.
    Interrupted,
    /// The time is over.
    TimedOut,
}

/// Sleeps while `word` holds `expected`, for `timeout` at most.
///
/// # Blocking
///
/// Until [`futex_wake`], a signal or the timeout.
///
/// # Ordering
///
/// The comparison and falling asleep are one step with respect to [`futex_wake`]; the word is still to be
/// loaded with `Acquire` afterwards.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use userfault_signal::{FutexWait, futex_wait, futex_wake};
///
/// static IS_DONE: AtomicU32 = AtomicU32::new(0);
/// let sleeper = std::thread::spawn(|| {
///     while IS_DONE.load(Ordering::Acquire) == 0 {
///         let _any_reason = futex_wait(&IS_DONE, 0, None);
///     }
/// });
/// IS_DONE.store(1, Ordering::Release);
/// futex_wake(&IS_DONE, 1);
/// sleeper.join().unwrap();
/// assert_eq!(futex_wait(&IS_DONE, 0, None), FutexWait::Changed);
/// ```
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> FutexWait {
    match sys::futex_wait(word, expected, timeout) {
        libc::EAGAIN => FutexWait::Changed,
        libc::EINTR => FutexWait::Interrupted,
        libc::ETIMEDOUT => FutexWait::TimedOut,
        // Other errors cannot happen to a live word; a spurious waking makes the caller look again.
        _ => FutexWait::Woken,
    }
}

/// Wakes up to `count` threads that sleep on `word`, and returns how many.
///
/// Example: [`futex_wait`].
pub fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    sys::futex_wake(word, count)
}
