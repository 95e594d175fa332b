//! Claims carried out: bytes first, then the page's state.
//!
//! Kernel counterpart: installing pages.

use userfault_engine::{Cause, End, Filling, Page, PageRange, PageState, Pages, Step};

use crate::memory::page_of;
use crate::{PAGE, Simulator};

/// Where the bytes of a claim come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// From this address on, for the first page of the filling.
    Source(u64),
    /// Zeros.
    Zeros,
    /// The contents stay.
    Kept,
    /// The contents go.
    Dropped,
}

/// Pages claimed at a time; small, so that fills are cut.
const RUN: u64 = 3;

impl Simulator {
    /// Does all the work of a filling.
    ///
    /// # Panics
    ///
    /// If it meets a page that somebody else has claimed: nobody else runs meanwhile.
    pub(crate) fn drive(&mut self, mut filling: Filling, bytes: Bytes) -> End {
        let first = filling.range().start();
        loop {
            match self.space.next(&mut filling, RUN) {
                Step::End(end) => return end,
                Step::Busy(page) => panic!("page {:#x} is claimed and nobody works on it", page.number()),
                Step::CheckSource(page) => {
                    let readable = self.source_page(bytes, first, page).is_some();
                    self.space.source_checked(&mut filling, readable);
                }
                Step::Write(claim) => {
                    let done = self.bring(claim.range(), bytes, first);
                    let woken = self.space.commit_first(&mut filling, claim, done, Cause::SourceUnreadable);
                    self.unpark(woken);
                }
            }
        }
    }

    /// Brings the contents of the claimed pages; returns how many pages it brought.
    fn bring(&mut self, range: PageRange, bytes: Bytes, first: Page) -> u64 {
        for number in range.start().number()..range.end().number() {
            let page = Page::new(number);
            match bytes {
                Bytes::Kept => {}
                Bytes::Dropped | Bytes::Zeros => self.memory.drop_contents(PageRange::one(page)),
                Bytes::Source(_) => {
                    let Some(contents) = self.source_page(bytes, first, page) else {
                        return number - range.start().number();
                    };
                    self.memory.write(number * PAGE, &contents);
                }
            }
        }
        range.pages()
    }

    /// The source of one page, if it can be read now.
    fn source_page(&mut self, bytes: Bytes, first: Page, page: Page) -> Option<Vec<u8>> {
        let Bytes::Source(source) = bytes else { return Some(Vec::new()) };
        let at = source + (page.number() - first.number()) * PAGE;
        self.copy_in(at, usize::try_from(PAGE).ok()?)
    }

    /// Reads memory on behalf of a call: missing pages that nobody registered are zeros, whatever
    /// would have to wait or to fail cannot be read.
    pub(crate) fn copy_in(&mut self, address: u64, len: usize) -> Option<Vec<u8>> {
        let last = address + u64::try_from(len).ok()?.saturating_sub(1);
        for number in page_of(address).number()..=page_of(last).number() {
            let page = Page::new(number);
            let readable = self.memory.protection(page).is_some_and(|protection| protection.allows(false));
            let held = match self.space.pages().get(page) {
                PageState::Present | PageState::WriteProtected => true,
                PageState::Missing => self.space.registration(page).is_none(),
                PageState::MissingProtected
                | PageState::Poisoned
                | PageState::Filling
                | PageState::FillingProtected
                | PageState::FillingPoisoned
                | PageState::Changing
                | PageState::Installing => false,
            };
            if !readable || !held {
                return None;
            }
        }
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes);
        Some(bytes)
    }

    /// Zeros for missing pages; nobody is told.
    pub(crate) fn install(&mut self, range: PageRange) {
        let filling = self.space.install(range);
        let _end = self.drive(filling, Bytes::Zeros);
    }

    /// Takes write protection away; nobody is told.
    pub(crate) fn lift(&mut self, range: PageRange) {
        let filling = self.space.unprotect(range);
        let _end = self.drive(filling, Bytes::Kept);
    }
}
