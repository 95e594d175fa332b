//! One byte of state for every page that user space can have.
//!
//! A flat table: 32 GiB of address space, of which only the parts that describe regions of ours are
//! ever writable, and only those that were stored to take memory. It reads as `Missing` everywhere
//! else, so a fault anywhere finds its page's state by one addition, without a lock, and making a
//! region of 1 TiB takes as many calls as one of 1 MiB (H6).

use std::sync::atomic::{AtomicU8, Ordering};

use userfault_abi::errno::Errno;
use userfault_engine::{Limits, Page, PageRange, PageState, Pages, StateTable};

use crate::pagemap::Pagemap;
use crate::sys::{self, Reservation};

pub(crate) const LIMITS: Limits = Limits::X86_64;
pub(crate) const PAGE_SIZE: usize = 4096;

pub(crate) struct States {
    reservation: Reservation,
    table: StateTable<&'static [AtomicU8]>,
}

impl States {
    pub(crate) fn reserve() -> Result<Self, Errno> {
        let pages = usize::try_from(LIMITS.page_of(LIMITS.size).number()).map_err(|_| Errno::ENOMEM)?;
        let reservation = sys::reserve_zeros(pages)?;
        let table = StateTable::new(Page::new(0), reservation.bytes());
        Ok(Self { reservation, table })
    }

    /// Lets the states of `range` be stored.
    pub(crate) fn open(&self, range: PageRange) -> Result<(), Errno> {
        let bytes = self.bytes(range).ok_or(Errno::ENOMEM)?;
        let span = self.reservation.span(bytes, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        sys::protect(span, sys::Access::ReadWrite)
    }

    /// Forgets the states of `range`: all are `Missing` again. Nobody has a claim there.
    pub(crate) fn forget(&self, range: PageRange) {
        let Some(bytes) = self.bytes(range) else { return };
        // Whole pages of the table are given back; what is left at the edges is stored.
        let inner = bytes.as_ptr().align_offset(PAGE_SIZE).min(bytes.len());
        let (before, rest) = bytes.split_at(inner);
        let (whole, after) = rest.split_at(rest.len() / PAGE_SIZE * PAGE_SIZE);
        let given_back = self.reservation.span(whole, PAGE_SIZE).map_or(Ok(()), sys::zap);
        let stored = if given_back.is_ok() { [before, after] } else { [bytes, &[]] };
        for byte in stored.into_iter().flatten() {
            // Looked at first: storing zero to a page of zeros would take memory.
            if byte.load(Ordering::Relaxed) != 0 {
                byte.store(0, Ordering::Release);
            }
        }
    }

    /// Stores the state of pages that nobody else can work on now: the layout is held exclusively.
    pub(crate) fn settle(&self, range: PageRange, state: PageState) {
        for byte in self.bytes(range).unwrap_or_default() {
            byte.store(state.to_byte(), Ordering::Release);
        }
    }

    /// Calls `found` with the pages of `range` that are poisoned or being brought, in ascending order. Takes no
    /// lock, and looks only where something was ever stored, as far as the kernel tells.
    pub(crate) fn each_unsettled(&self, range: PageRange, mut found: impl FnMut(Page, PageState)) {
        let Some(bytes) = self.bytes(range) else { return };
        let mut look = |from: usize, until: usize| {
            for (at, byte) in bytes.iter().enumerate().take(until).skip(from) {
                let state = PageState::from_byte(byte.load(Ordering::Acquire));
                if state.is_being_filled() || state == PageState::Poisoned {
                    found(Page::new(range.start().number() + at as u64), state);
                }
            }
        };
        let start = bytes.as_ptr().addr();
        let pages = |address: usize| Page::new((address / PAGE_SIZE) as u64);
        let table = PageRange::new(pages(start), pages((start + bytes.len()).next_multiple_of(PAGE_SIZE)));
        let index =
            |page: Page| usize::try_from(page.number()).map_or(0, |page| (page * PAGE_SIZE).saturating_sub(start));
        let told = Pagemap::open().ok().zip(table).map(|(mut pagemap, table)| {
            pagemap.present(table, |stored| look(index(stored.start()), index(stored.end()).min(bytes.len())))
        });
        if !matches!(told, Some(Ok(()))) {
            // Some may have been looked at twice then; that is no harm.
            look(0, bytes.len());
        }
    }

    fn bytes(&self, range: PageRange) -> Option<&'static [AtomicU8]> {
        let start = usize::try_from(range.start().number()).ok()?;
        let end = usize::try_from(range.end().number()).ok()?;
        self.table.bytes().get(start..end)
    }
}

impl Pages for States {
    fn get(&self, page: Page) -> PageState {
        self.table.get(page)
    }

    fn swap(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState> {
        self.table.swap(page, from, to)
    }
}
