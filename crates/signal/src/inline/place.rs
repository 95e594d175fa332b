//! A place where handlers find something that its owner can take back.
//!
//! Invariants:
//!
//! 1. `value` is null, or comes from `Arc::into_raw`, and that reference is the place's; it is turned back into
//!    an `Arc` only by `withdraw`, once, after it has seen that nobody is inside.
//! 2. Who is counted in `users` and has read a pointer that is not null may use what it points to until it is
//!    counted no more.
//!
//! # Ordering
//!
//! ```text
//! handler                                owner
//! E1  users += 1                         W1  value := null
//! E2  read value                         W2  read users; not 0: sleep until it is
//! E3  use it                             W3  free what was there
//! E4  users -= 1
//! ```
//!
//! 1. E1, E2, W1 and W2 are `SeqCst`, so they have one order. If E2 reads the old pointer it comes before W1;
//!    then E1 comes before W2, and W2 counts the handler unless E4 came before it. An E2 that read it without
//!    being counted would use what is free.
//! 2. E4 releases and W2 acquires: all of E3 comes before W3.
//! 3. A handler that enters after W1 finds null and leaves at once; W2 may wait for it too. As long as the
//!    place is `owned` nobody else publishes, so this ends.
//! 4. The sleeper of W2 marks the word that E4 changes, so it is not missed.
//!
//! Nothing is freed in a handler: it never holds the last reference.
#![expect(unsafe_code, reason = "a pointer that is taken back; the two invariants above are this file's proof")]

use core::ops::Deref;
use core::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::park::{futex_wait, futex_wake};

/// The owner waits for this to become 0 but for the mark.
const WAITING: u32 = 1 << 31;

/// Holds a `T` for handlers, or nothing. Usually a static.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use userfault_signal::Place;
///
/// static PLACE: Place<String> = Place::new();
/// assert!(PLACE.enter().is_none());
/// PLACE.publish(Arc::new("for handlers".to_owned())).unwrap();
/// assert_eq!(PLACE.enter().map(|found| found.len()), Some(12));
/// assert_eq!(*PLACE.withdraw().unwrap(), "for handlers");
/// ```
#[derive(Debug)]
pub struct Place<T> {
    value: AtomicPtr<T>,
    users: AtomicU32,
    owned: AtomicBool,
}

/// What was found in a [`Place`]; it stays there until this is dropped.
///
/// Example: [`Place`].
#[derive(Debug)]
pub struct Entered<'a, T> {
    place: &'a Place<T>,
    value: &'a T,
}

impl<T> Place<T> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()), users: AtomicU32::new(0), owned: AtomicBool::new(false) }
    }

    /// What is there now. Async-signal-safe.
    #[must_use]
    pub fn enter(&self) -> Option<Entered<'_, T>> {
        self.users.fetch_add(1, Ordering::SeqCst); // E1
        let value = self.value.load(Ordering::SeqCst); // E2
        // SAFETY: null, or counted just now and not taken back before that ends (invariants 1, 2).
        let value = unsafe { value.as_ref() };
        if value.is_none() {
            self.leave();
        }
        value.map(|value| Entered { place: self, value })
    }

    fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::Release) == WAITING + 1 {
            futex_wake(&self.users, u32::MAX >> 1);
        } // E4
    }
}

impl<T: Send + Sync> Place<T> {
    /// Puts `value` there.
    ///
    /// # Errors
    ///
    /// `value`, if something is there already.
    pub fn publish(&self, value: Arc<T>) -> Result<(), Arc<T>> {
        if self.owned.swap(true, Ordering::Acquire) {
            return Err(value);
        }
        self.value.store(Arc::into_raw(value).cast_mut(), Ordering::SeqCst);
        Ok(())
    }

    /// Takes back what is there; when this returns no handler uses it any more.
    ///
    /// # Blocking
    ///
    /// Until those that are inside have left. Not for handlers, not under a lock that they take, and not in a
    /// forked child, where those that were inside are gone.
    pub fn withdraw(&self) -> Option<Arc<T>> {
        let value = self.value.swap(ptr::null_mut(), Ordering::SeqCst); // W1
        if value.is_null() {
            return None;
        }
        loop {
            let users = self.users.load(Ordering::SeqCst); // W2
            if users & !WAITING == 0 {
                break;
            }
            if users & WAITING != 0 || self.mark(users) {
                let _look_again = futex_wait(&self.users, users | WAITING, None);
            }
        }
        self.users.fetch_and(!WAITING, Ordering::Relaxed);
        self.owned.store(false, Ordering::Release);
        // SAFETY: from `Arc::into_raw`, swapped out by us alone, and nobody is inside (invariant 1).
        Some(unsafe { Arc::from_raw(value) }) // W3
    }

    fn mark(&self, users: u32) -> bool {
        self.users.compare_exchange(users, users | WAITING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.place.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::Place;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::thread;

    /// Holds its number, and another one once it is gone.
    struct Canary(AtomicU64);

    impl Drop for Canary {
        fn drop(&mut self) {
            self.0.store(u64::MAX, Relaxed);
        }
    }

    #[test]
    fn one_thing_at_a_time_and_it_comes_back_to_who_put_it_there() {
        let place = Place::new();
        assert!(place.enter().is_none() && place.withdraw().is_none());
        place.publish(Arc::new(1)).unwrap();
        assert_eq!(place.publish(Arc::new(2)).map_err(|back| *back), Err(2));
        assert_eq!(place.enter().as_deref(), Some(&1));
        assert_eq!(place.withdraw().as_deref(), Some(&1));
        place.publish(Arc::new(3)).unwrap();
        assert_eq!(place.enter().as_deref(), Some(&3));
        assert_eq!(place.withdraw().as_deref(), Some(&3));
    }

    #[test]
    fn who_takes_it_back_waits_for_those_inside() {
        let place = Place::new();
        place.publish(Arc::new(())).unwrap();
        let inside = place.enter().unwrap();
        let left = AtomicBool::new(false);
        thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let back = place.withdraw();
                assert!(left.load(Relaxed), "somebody is inside");
                back
            });
            while place.enter().is_some() {
                thread::yield_now();
            }
            // It sleeps, or is about to: either way it must not come back yet.
            (0..100).for_each(|_| thread::yield_now());
            left.store(true, Relaxed);
            drop(inside);
            assert!(owner.join().unwrap().is_some());
        });
    }

    #[test]
    fn nobody_ever_sees_what_was_taken_back() {
        let place: Place<Canary> = Place::new();
        let done = AtomicBool::new(false);
        let met = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        let Some(inside) = place.enter() else { continue };
                        let before = inside.0.load(Relaxed);
                        std::hint::spin_loop();
                        assert_eq!((before == u64::MAX, inside.0.load(Relaxed)), (false, before));
                        met.fetch_add(1, Relaxed);
                    }
                });
            }
            // Until somebody was inside, if the other threads come late.
            for turn in (0..).take_while(|turn| *turn < 5_000 || met.load(Relaxed) == 0) {
                let canary = Arc::new(Canary(AtomicU64::new(turn)));
                assert!(place.publish(canary).is_ok());
                if turn % 64 == 0 {
                    thread::yield_now();
                }
                let back = place.withdraw().unwrap();
                assert_eq!((Arc::strong_count(&back), back.0.load(Relaxed)), (1, turn));
            }
            done.store(true, Relaxed);
        });
    }
}
