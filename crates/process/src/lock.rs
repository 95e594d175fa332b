//! Two locks on futexes: one for the engine's state, one for the layout of regions.
//!
//! They are held only while asynchronous signals are blocked (L1), so no signal handler ever
//! interrupts a holder; a handler that meets one held waits for another, running thread. A holder
//! touches only memory of the host (L2): it neither allocates nor faults on registered pages.
//!
//! Invariants:
//!
//! 1. `FutexLock`: `word` is 0 exactly while nobody holds the lock; only the thread that moved it away
//!    from 0 reaches `value`, until it stores 0.
//! 2. `LayoutLock`: the writer bit is set only while no reader is counted, and nobody is counted while
//!    it is set; `value` is reached mutably only by who set the bit, shared only by who is counted.
//!
//! # Ordering
//!
//! Taking acquires, letting go releases. Waiters announce themselves in the same word that the holder
//! changes (2 in a `FutexLock`, `WAITING` in a `LayoutLock`), so there is no second variable to race
//! with: a holder that lets go sees the mark or the waiter's futex call sees the changed word.
#![expect(unsafe_code, reason = "interior mutability; the two invariants above are this file's proof")]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use userfault_signal::{SignalsBlocked, futex_wait, futex_wake};

use crate::sys;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// Mutual exclusion that works inside signal handlers.
pub(crate) struct FutexLock<T> {
    word: AtomicU32,
    owner: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached by one thread at a time (invariant 1).
unsafe impl<T: Send> Sync for FutexLock<T> {}

impl<T> FutexLock<T> {
    fn acquire(&self) {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            let _look_again = futex_wait(&self.word, CONTENDED, None);
        }
    }

    fn release(&self) {
        if self.word.swap(FREE, Ordering::Release) == CONTENDED {
            futex_wake(&self.word, 1);
        }
    }
}

impl<T> userfault_engine::Lock<T> for FutexLock<T> {
    fn new(value: T) -> Self {
        Self { word: AtomicU32::new(FREE), owner: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
        self.acquire();
        self.owner.store(sys::thread_pointer(), Ordering::Relaxed);
        // SAFETY: this thread moved the word away from 0 (invariant 1).
        let answer = critical(unsafe { &mut *self.value.get() });
        self.owner.store(0, Ordering::Relaxed);
        self.release();
        answer
    }

    fn is_held_by_caller(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == sys::thread_pointer()
    }
}

const WRITER: u32 = 1 << 31;
const WAITING: u32 = 1 << 30;
/// A writer waits: readers let it go first.
const WANTED: u32 = 1 << 29;
const READERS: u32 = WANTED - 1;

/// Many readers (fills) or one writer (register, unregister, release).
pub(crate) struct LayoutLock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached by one writer or by readers only (invariant 2).
unsafe impl<T: Send + Sync> Sync for LayoutLock<T> {}

pub(crate) struct LayoutRead<'a, T>(&'a LayoutLock<T>);
pub(crate) struct LayoutWrite<'a, T>(&'a LayoutLock<T>);

impl<T> LayoutLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    pub(crate) fn read<'a>(&'a self, _blocked: &'a SignalsBlocked) -> LayoutRead<'a, T> {
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & (WRITER | WANTED) != 0 {
                self.wait(seen, 0);
            } else if self.replace(seen, seen + 1) {
                return LayoutRead(self);
            }
        }
    }

    pub(crate) fn write<'a>(&'a self, _blocked: &'a SignalsBlocked) -> LayoutWrite<'a, T> {
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & (WRITER | READERS) != 0 {
                self.wait(seen, WANTED);
            } else if self.replace(seen, (seen & !WANTED) | WRITER) {
                return LayoutWrite(self);
            }
        }
    }

    fn replace(&self, seen: u32, new: u32) -> bool {
        self.word.compare_exchange_weak(seen, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn wait(&self, seen: u32, mark: u32) {
        let marked = seen | WAITING | mark;
        if seen == marked || self.replace(seen, marked) {
            let _look_again = futex_wait(&self.word, marked, None);
        }
    }

    fn wake(&self) {
        // Everybody looks again; writers that still wait mark the word anew.
        self.word.fetch_and(!(WAITING | WANTED), Ordering::Relaxed);
        futex_wake(&self.word, u32::MAX >> 1);
    }
}

impl<T> Deref for LayoutRead<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: counted as a reader (invariant 2).
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for LayoutRead<'_, T> {
    fn drop(&mut self) {
        let before = self.0.word.fetch_sub(1, Ordering::Release);
        if before & READERS == 1 && before & WAITING != 0 {
            self.0.wake();
        }
    }
}

impl<T> Deref for LayoutWrite<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: set the writer bit (invariant 2).
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for LayoutWrite<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: set the writer bit (invariant 2).
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for LayoutWrite<'_, T> {
    fn drop(&mut self) {
        let before = self.0.word.fetch_and(!WRITER, Ordering::Release);
        if before & WAITING != 0 {
            self.0.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use userfault_engine::Lock;

    use super::{FutexLock, LayoutLock};
    use userfault_signal::SignalsBlocked;

    #[test]
    fn threads_that_add_under_the_lock_lose_nothing() {
        let lock = FutexLock::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50_000).for_each(|_| lock.with(|value| *value += 1)));
            }
        });
        assert_eq!(lock.with(|value| *value), 200_000);
        assert!(!lock.is_held_by_caller() && lock.with(|_| lock.is_held_by_caller()));
    }

    #[test]
    fn a_writer_gets_its_turn_among_readers_and_is_alone() {
        let lock = LayoutLock::new([0_u64; 2]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let blocked = SignalsBlocked::new();
                    while !done.load(Ordering::Relaxed) {
                        let [first, second] = *lock.read(&blocked);
                        assert_eq!(first, second);
                    }
                });
            }
            let blocked = SignalsBlocked::new();
            for turn in 1..=20_000 {
                let mut pair = lock.write(&blocked);
                pair[0] = turn;
                pair[1] = turn;
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
