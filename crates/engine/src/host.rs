//! What an embedder supplies: one lock, page-state storage, and room for the engine's records.
//!
//! Every trait here is safe to implement. A wrong embedder may hang a fault; it cannot corrupt the
//! engine. No method runs under the engine's lock except those of [`Storage`].
//!
//! Kernel counterpart: spinlocks, page tables and slab caches.

use crate::addr::Page;
use crate::page::PageState;

/// Mutual exclusion by closure, so that taking and letting go cannot differ (W18).
///
/// # Ordering
///
/// `with` acquires on entry and releases on exit, as every mutex does; the wake-up argument in
/// `wait/mod.rs` relies on it.
///
/// Example: [`crate`].
pub trait Lock<T> {
    /// Wraps `value`.
    fn new(value: T) -> Self;
    /// Runs `critical` while nobody else does.
    fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R;
    /// Whether the calling thread is inside `with`, for embedders that can tell: a fault taken there is
    /// a bug of theirs.
    fn is_held_by_caller(&self) -> bool {
        false
    }
}

/// Storage of page states. Never called under the engine's lock.
///
/// # Ordering
///
/// `get` acquires; a successful `swap` releases.
///
/// Example: [`StateTable`](crate::StateTable).
pub trait Pages {
    /// The page's state; a page that was never stored is [`PageState::Missing`].
    fn get(&self, page: Page) -> PageState;
    /// One compare-exchange.
    ///
    /// # Errors
    ///
    /// The state that was found instead of `from`; nothing changed.
    fn swap(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState>;
}

/// A vector of fixed capacity; it never allocates once it was made.
///
/// Example: [`crate`].
pub trait Storage<T> {
    /// What has been pushed.
    fn as_slice(&self) -> &[T];
    /// What has been pushed.
    fn as_mut_slice(&mut self) -> &mut [T];
    /// How much can be pushed in all.
    fn capacity(&self) -> usize;
    /// Appends.
    ///
    /// # Errors
    ///
    /// Hands `value` back when `capacity` is reached.
    fn push(&mut self, value: T) -> Result<(), T>;
}

/// The world the engine runs in.
///
/// Example: [`crate`].
pub trait Embedder {
    /// The lock around the engine's state; there is exactly one.
    type Lock<T>: Lock<T>;
    /// Page states.
    type Pages: Pages;
    /// Room for records.
    type Storage<T: Copy + Default>: Storage<T>;

    /// Makes storage for `capacity` records, or `None` if there is no memory for it.
    fn storage<T: Copy + Default>(capacity: usize) -> Option<Self::Storage<T>>;
}
