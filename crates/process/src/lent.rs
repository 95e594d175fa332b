//! What is lent, in a process that may fork.
//!
//! The end of a loan takes a lock and allocates. In a forked child another thread of the parent may hold that lock
//! for ever, in the middle of a change: there a loan just does not end.
//!
//! Invariant:
//!
//! 1. The value of a [`Lent`] is there until that is dropped, or taken out of one that will not be.
#![expect(unsafe_code, reason = "drops a value or not; the invariant above is the proof")]

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use userfault_signal::fork_generation;

/// Ends where it was made, as others do; in a forked child it is left alone.
#[derive(Clone, Debug)]
pub(crate) struct Lent<T> {
    value: ManuallyDrop<T>,
    lent_in: Result<u32, i32>,
}

impl<T> Lent<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), lent_in: fork_generation() }
    }

    /// Makes two of it.
    pub(crate) fn split<U>(self, split: impl FnOnce(T) -> (U, U)) -> (Lent<U>, Lent<U>) {
        let lent_in = self.lent_in;
        let mut left_alone = ManuallyDrop::new(self);
        // SAFETY: taken once, out of one that will not be dropped (invariant 1).
        let (first, second) = split(unsafe { ManuallyDrop::take(&mut left_alone.value) });
        let lent = |value| Lent { value: ManuallyDrop::new(value), lent_in };
        (lent(first), lent(second))
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        if fork_generation() == self.lent_in {
            // SAFETY: not taken, since this is dropped, and never looked at again (invariant 1).
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
