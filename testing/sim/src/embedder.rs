//! What the engine asks of its embedder, in its simplest form: one thread, cells, vectors.
//!
//! Everything that could go wrong is checked or counted: taking the lock twice panics, touching a
//! page state under the lock panics, and each look at a record is a step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use userfault_engine::{Embedder, Lock, Page, PageState, Pages, Storage};

thread_local! {
    static LOCKED: Cell<bool> = const { Cell::new(false) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// How often the engine has looked at a record so far, on this thread: the price of an operation is
/// the difference.
#[must_use]
pub fn steps() -> u64 {
    STEPS.get()
}

/// The simulator's parts, as a type.
#[derive(Debug)]
pub struct Simulated;

/// A lock that only shows whether the rules of locking are kept.
#[derive(Debug)]
pub struct CheckedLock<T>(RefCell<T>);

/// Page states in a map; a page that is not in it is missing.
#[derive(Debug, Default)]
pub struct PageTable {
    states: RefCell<BTreeMap<Page, PageState>>,
    /// After how many more looks which page changes by itself, and to what.
    change: Cell<Option<(u32, Page, PageState)>>,
}

/// A vector that counts each look at it and does not grow beyond its capacity.
#[derive(Debug)]
pub struct Counted<T> {
    records: Vec<T>,
    capacity: usize,
}

impl Embedder for Simulated {
    type Lock<T> = CheckedLock<T>;
    type Pages = PageTable;
    type Storage<T: Copy + Default> = Counted<T>;

    fn storage<T: Copy + Default>(capacity: usize) -> Option<Counted<T>> {
        Some(Counted { records: Vec::new(), capacity })
    }
}

impl<T> Lock<T> for CheckedLock<T> {
    fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
        assert!(!LOCKED.replace(true), "the engine takes its lock while it holds it");
        let result = critical(&mut self.0.borrow_mut());
        LOCKED.set(false);
        result
    }
}

impl PageTable {
    /// After `looks` more looks at any page, `page` is in state `to`: as if somebody else had been
    /// there just then.
    pub fn change_after(&self, looks: u32, page: Page, to: PageState) {
        self.change.set(Some((looks, page, to)));
    }

    /// The pages that are not missing, in order.
    #[must_use]
    pub fn populated(&self) -> Vec<(Page, PageState)> {
        self.states.borrow().iter().map(|(page, state)| (*page, *state)).collect()
    }

    fn put(&self, page: Page, state: PageState) {
        if state == PageState::Missing {
            self.states.borrow_mut().remove(&page);
        } else {
            self.states.borrow_mut().insert(page, state);
        }
    }
}

impl Pages for PageTable {
    fn get(&self, page: Page) -> PageState {
        assert!(!LOCKED.get(), "a page state is looked at under the engine's lock");
        if let Some((looks, changed, to)) = self.change.get() {
            self.change.set(looks.checked_sub(1).map(|left| (left, changed, to)));
            if looks == 0 {
                self.put(changed, to);
            }
        }
        self.states.borrow().get(&page).copied().unwrap_or_default()
    }

    fn swap(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState> {
        assert!(!LOCKED.get(), "a page state is changed under the engine's lock");
        let found = self.states.borrow().get(&page).copied().unwrap_or_default();
        if found != from {
            return Err(found);
        }
        self.put(page, to);
        Ok(())
    }
}

impl<T> Storage<T> for Counted<T> {
    fn as_slice(&self) -> &[T] {
        STEPS.set(STEPS.get() + 1);
        &self.records
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        STEPS.set(STEPS.get() + 1);
        &mut self.records
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn push(&mut self, value: T) -> Result<(), T> {
        if self.records.len() == self.capacity {
            return Err(value);
        }
        self.records.push(value);
        Ok(())
    }
}
