//! Taking turns at what is rare, so that a forked child can take its own.
//!
//! A mutex that another thread holds at a fork is held for ever in the child. Here the word is the number of the
//! address space ([`fork_generation`]) whose thread holds it: a child finds its parent's, and takes over.
//!
//! # Ordering
//!
//! Taking acquires, letting go releases.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::generation::fork_generation;

/// One at a time, within a process. Not for handlers, nor for what is done often: who waits, polls.
///
/// # Examples
///
/// ```
/// use userfault_signal::Turn;
///
/// static OPENING: Turn = Turn::new();
/// let first = OPENING.take();
/// drop(first);
/// let _second = OPENING.take();
/// ```
#[derive(Debug, Default)]
pub struct Turn(AtomicU32);

/// Lets the next one have its turn when dropped.
///
/// Example: [`Turn`].
#[derive(Debug)]
#[must_use = "the turn is over when this is dropped"]
pub struct Taken<'a>(&'a Turn);

impl Turn {
    /// Nobody's.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Waits for one's turn.
    ///
    /// # Blocking
    ///
    /// While another thread of this process has it; for ever if the caller has it already.
    pub fn take(&self) -> Taken<'_> {
        // Where the kernel is too old for that, a child that finds it held waits for ever, as for any mutex.
        let here = fork_generation().unwrap_or(u32::MAX);
        loop {
            let holder = self.0.load(Ordering::Relaxed);
            // Another's number is left over from before a fork: its thread is not here.
            if holder != here && self.0.compare_exchange(holder, here, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Taken(self);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Turn;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn threads_that_take_turns_are_alone() {
        let (turn, count) = (Turn::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _taken = turn.take();
                        count.store(count.load(Relaxed) + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.load(Relaxed), 4000);
    }

    #[test]
    fn what_a_thread_of_another_process_holds_is_taken_over() {
        let turn = Turn::new();
        turn.0.store(u32::MAX - 1, Relaxed);
        drop(turn.take());
        assert_eq!(turn.0.load(Relaxed), 0);
    }
}
