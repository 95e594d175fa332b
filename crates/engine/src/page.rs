//! Page states and their legal transitions.
//!
//! A page is in exactly one state. Whoever works on a page first moves it, by one compare-exchange,
//! into a state that excludes everybody else (`Filling…`, `Changing`, `Installing`), does the work, and moves it
//! on. So nobody fills a page twice and nobody sees half of it.
//!
//! ```text
//!            copy, zeropage, poison            writeprotect
//!   Missing ────────> Filling ────────> Present <────> WriteProtected     (through Changing)
//!      ^ │               │ abort           │
//!      │ │ install, zero └──> as before    │ discard
//!      │ └──────────> Installing ──> Present, WriteProtected
//!      └────────────── Changing <──────────┘
//! ```
//!
//! Kernel counterpart: page-table entries, markers included.

use crate::addr::Page;
use crate::host::Pages;

/// What is at a page of registered memory.
///
/// # Invariants
///
/// 1. `Present` and `WriteProtected` are stored only after the page became accessible (C0 before
///    C1 of the ordering argument), and left only through `Changing`.
/// 2. Only who moved a page into `Filling…`, `Changing` or `Installing` moves it out again.
///
/// # Examples
///
/// ```
/// use userfault_engine::PageState;
///
/// assert!(PageState::Filling.is_claimed() && PageState::Filling.is_absent());
/// assert_eq!(PageState::from_byte(PageState::Poisoned.to_byte()), PageState::Poisoned);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageState {
    /// No contents.
    #[default]
    Missing = 0,
    /// No contents, and protected once it has some: the marker of `WP_UNPOPULATED`.
    MissingProtected = 1,
    /// Contents, accessible.
    Present = 2,
    /// Contents, readable.
    WriteProtected = 3,
    /// Every access is a bus error.
    Poisoned = 4,
    /// `Missing` until the fill in progress commits.
    Filling = 5,
    /// `MissingProtected` until the fill in progress commits.
    FillingProtected = 6,
    /// `Poisoned` until the fill in progress commits.
    FillingPoisoned = 7,
    /// On the way from one settled state to another; who meets it waits quietly. What contents there are may
    /// be kept.
    Changing = 8,
    /// As `Changing`, for pages that the embedder brings by itself: contents may be incomplete.
    Installing = 9,
}

impl PageState {
    /// The state as one byte.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The state that [`to_byte`](Self::to_byte) encoded; an unknown byte is `Changing`, the state
    /// in which nobody touches the page.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Missing,
            1 => Self::MissingProtected,
            2 => Self::Present,
            3 => Self::WriteProtected,
            4 => Self::Poisoned,
            5 => Self::Filling,
            6 => Self::FillingProtected,
            7 => Self::FillingPoisoned,
            9 => Self::Installing,
            _ => Self::Changing,
        }
    }

    /// Whether somebody holds a claim on the page.
    #[must_use]
    pub const fn is_claimed(self) -> bool {
        matches!(
            self,
            Self::Filling | Self::FillingProtected | Self::FillingPoisoned | Self::Changing | Self::Installing
        )
    }

    /// Whether somebody is bringing contents to the page, of which nobody sees a part.
    #[must_use]
    pub const fn is_being_filled(self) -> bool {
        matches!(self, Self::Filling | Self::FillingProtected | Self::FillingPoisoned | Self::Installing)
    }

    /// Whether a MISSING registration reports an access: absent, or being filled by a monitor.
    #[must_use]
    pub const fn is_absent(self) -> bool {
        matches!(self, Self::Missing | Self::MissingProtected | Self::Filling | Self::FillingProtected)
    }

    /// The state a fill moves the page through.
    pub(crate) const fn filling(self) -> Self {
        match self {
            Self::Missing => Self::Filling,
            Self::MissingProtected => Self::FillingProtected,
            Self::Poisoned => Self::FillingPoisoned,
            Self::Present
            | Self::WriteProtected
            | Self::Filling
            | Self::FillingProtected
            | Self::FillingPoisoned
            | Self::Changing
            | Self::Installing => Self::Changing,
        }
    }
}

/// A byte that can be compared and exchanged; lets the same table run on loom's atomics.
///
/// Example: [`StateTable`].
pub trait AtomicByte {
    /// Load, acquire.
    fn load_acquire(&self) -> u8;
    /// Compare and exchange; release on success, acquire on failure.
    ///
    /// # Errors
    ///
    /// The byte that was found.
    fn exchange(&self, from: u8, to: u8) -> Result<u8, u8>;
}

impl AtomicByte for core::sync::atomic::AtomicU8 {
    fn load_acquire(&self) -> u8 {
        self.load(core::sync::atomic::Ordering::Acquire)
    }

    fn exchange(&self, from: u8, to: u8) -> Result<u8, u8> {
        use core::sync::atomic::Ordering::{AcqRel, Acquire};
        self.compare_exchange(from, to, AcqRel, Acquire)
    }
}

/// The usual storage: one byte per page of `[first, first + bytes)`.
///
/// # Ordering
///
/// The byte of a page is loaded with acquire and exchanged with release: who reads `Present` also
/// sees the contents (C1 and J2 of `wait/mod.rs`, checked by `tests/loom.rs`).
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU8;
/// use userfault_engine::{Page, PageState, Pages, StateTable};
///
/// let table = StateTable::new(Page::new(16), [const { AtomicU8::new(0) }; 4]);
/// assert_eq!(table.get(Page::new(17)), PageState::Missing);
/// table.swap(Page::new(17), PageState::Missing, PageState::Filling).unwrap();
/// assert_eq!(table.swap(Page::new(17), PageState::Missing, PageState::Filling), Err(PageState::Filling));
/// ```
#[derive(Debug)]
pub struct StateTable<B> {
    first: Page,
    bytes: B,
}

impl<B> StateTable<B> {
    /// States of the pages from `first` on, all-zero bytes meaning [`PageState::Missing`].
    pub const fn new(first: Page, bytes: B) -> Self {
        Self { first, bytes }
    }

    /// The storage.
    pub const fn bytes(&self) -> &B {
        &self.bytes
    }

    fn byte<A: AtomicByte>(&self, page: Page) -> Option<&A>
    where
        B: AsRef<[A]>,
    {
        let index = page.number().checked_sub(self.first.number())?;
        self.bytes.as_ref().get(usize::try_from(index).ok()?)
    }

    /// [`Pages::get`].
    pub fn load<A: AtomicByte>(&self, page: Page) -> PageState
    where
        B: AsRef<[A]>,
    {
        self.byte(page).map_or(PageState::Missing, |byte| PageState::from_byte(byte.load_acquire()))
    }

    /// [`Pages::swap`]; a page outside the table is `Missing` for ever.
    ///
    /// # Errors
    ///
    /// The state that was found.
    pub fn exchange<A: AtomicByte>(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState>
    where
        B: AsRef<[A]>,
    {
        let byte = self.byte(page).ok_or(PageState::Missing)?;
        byte.exchange(from.to_byte(), to.to_byte()).map(|_| ()).map_err(PageState::from_byte)
    }
}

impl<B: AsRef<[core::sync::atomic::AtomicU8]>> Pages for StateTable<B> {
    fn get(&self, page: Page) -> PageState {
        self.load(page)
    }

    fn swap(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState> {
        self.exchange(page, from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::PageState;

    #[test]
    fn every_state_survives_its_byte_and_an_unknown_byte_excludes_everybody() {
        for byte in 0..=9 {
            assert_eq!(PageState::from_byte(byte).to_byte(), byte);
        }
        assert_eq!(PageState::from_byte(10), PageState::Changing);
        assert_eq!(PageState::from_byte(255), PageState::Changing);
    }
}
