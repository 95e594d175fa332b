//! Changes of the layout, and what the engine is told about them.
//!
//! Kernel counterpart: mmap, munmap, mprotect, madvise, mremap, fork, exit.

use userfault_engine::{MappingKind, Page, PageRange, PageState, Pages};

use crate::fill::Bytes;
use crate::thread::State;
use crate::{Protection, Simulator, pages};

impl Simulator {
    /// Maps memory over whatever was there.
    pub fn map(&mut self, address: u64, count: u64, kind: MappingKind, protection: Protection) {
        self.unmap(address, count);
        self.memory.map(pages(address, count), kind, protection);
    }

    /// Unmaps; sleepers of the range find nothing there any more.
    ///
    /// # Panics
    ///
    /// If the engine has no room for the change.
    pub fn unmap(&mut self, address: u64, count: u64) {
        let range = pages(address, count);
        self.memory.unmap(range);
        self.discard(address, count);
        let woken = self.space.removed(range);
        self.unpark(woken.unwrap_or_else(|| panic!("no room to cut a registration")));
    }

    /// Changes what a mapping allows.
    pub fn protect(&mut self, address: u64, count: u64, protection: Protection) {
        self.memory.protect(pages(address, count), protection);
    }

    /// Gives contents back (`MADV_DONTNEED`).
    pub fn discard(&mut self, address: u64, count: u64) {
        let filling = self.space.discard(pages(address, count));
        let _end = self.drive(filling, Bytes::Dropped);
    }

    /// Moves a mapping; without an event for it the registration does not go along.
    ///
    /// # Panics
    ///
    /// If nothing is mapped at `from`, or the engine has no room for the change.
    pub fn remap(&mut self, from: u64, to: u64, count: u64) {
        let (old, new) = (pages(from, count), pages(to, count));
        let protection = self.memory.protection(old.start()).unwrap_or_else(|| panic!("nothing is mapped there"));
        self.lift(old);
        let states: Vec<PageState> =
            (0..count).map(|page| self.space.pages().get(Page::new(old.start().number() + page))).collect();
        let mut contents = vec![0; usize::try_from(count * crate::PAGE).unwrap_or(0)];
        self.memory.read(from, &mut contents);
        self.unmap(to, count);
        self.memory.map(new, MappingKind::PrivateAnonymous, protection);
        for (number, state) in (new.start().number()..).zip(states) {
            let _moved = self.space.pages().swap(Page::new(number), PageState::Missing, state);
        }
        self.memory.write(to, &contents);
        let woken = self.space.moved(old);
        self.memory.unmap(old);
        self.discard(from, count);
        self.unpark(woken.unwrap_or_else(|| panic!("no room to cut a registration")));
    }

    /// What a forked child sees at each registered range: its pages, with protection and registration
    /// gone.
    #[must_use]
    pub fn fork(&self) -> Vec<PageRange> {
        let mut ranges = Vec::new();
        let mut from = Page::new(0);
        while let Some((range, _)) = self.space.forked(from) {
            ranges.push(range);
            from = range.end();
        }
        ranges
    }

    /// The address space ends: its threads are no more, its descriptors live on.
    pub fn exit(&mut self) {
        for thread in 0..self.threads.len() {
            if !matches!(self.observe(thread), State::Reading) {
                self.kill(thread);
            }
        }
        let woken = self.space.exited();
        self.unpark(woken);
    }

    /// The bytes at `address`, whatever the page's state.
    #[must_use]
    pub fn contents(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes);
        bytes
    }

    /// Stores bytes as the program would before anything is registered: the pages become present.
    pub fn populate(&mut self, address: u64, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).unwrap_or(0).max(1);
        let last = crate::memory::page_of(address + len - 1);
        let first = crate::memory::page_of(address);
        for number in first.number()..=last.number() {
            self.install(PageRange::one(Page::new(number)));
        }
        self.memory.write(address, bytes);
    }

    /// Reads on behalf of somebody who cannot wait (`/proc/PID/mem`); `None` is an I/O error.
    pub fn peek(&mut self, address: u64, len: usize) -> Option<Vec<u8>> {
        self.copy_in(address, len)
    }
}
