//! The simulated address space: mappings, what they allow, and what the pages hold.
//!
//! Kernel counterpart: the mappings of a process and its page cache.

use std::collections::BTreeMap;

use userfault_engine::{Limits, Mapping, MappingKind, Page, PageRange};

/// Bytes per page.
pub const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

impl Protection {
    pub(crate) const fn allows(self, write: bool) -> bool {
        match self {
            Self::None => false,
            Self::Read => !write,
            Self::ReadWrite => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    end: Page,
    kind: MappingKind,
    protection: Protection,
}

/// Mappings by their first page; contents by page, zeros if none were written.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    mapped: BTreeMap<Page, Mapped>,
    contents: BTreeMap<Page, Box<[u8; PAGE_BYTES]>>,
}

pub(crate) fn page_of(address: u64) -> Page {
    Limits::X86_64.page_of(address)
}

/// The pages of `[address, address + pages × page size)`.
///
/// # Panics
///
/// If it is empty.
#[must_use]
pub fn pages(address: u64, pages: u64) -> PageRange {
    let start = page_of(address);
    let range = PageRange::new(start, Page::new(start.number() + pages));
    range.unwrap_or_else(|| panic!("an empty range at {address:#x}"))
}

impl Memory {
    pub(crate) fn map(&mut self, range: PageRange, kind: MappingKind, protection: Protection) {
        self.unmap(range);
        self.mapped.insert(range.start(), Mapped { end: range.end(), kind, protection });
        self.merge();
    }

    pub(crate) fn unmap(&mut self, range: PageRange) {
        self.cut(range.start());
        self.cut(range.end());
        self.mapped.retain(|start, _| !range.contains(*start));
    }

    pub(crate) fn protect(&mut self, range: PageRange, protection: Protection) {
        self.cut(range.start());
        self.cut(range.end());
        for (_, mapped) in self.mapped.range_mut(range.start()..range.end()) {
            mapped.protection = protection;
        }
        self.merge();
    }

    pub(crate) fn protection(&self, page: Page) -> Option<Protection> {
        let (_, mapped) = self.mapped.range(..=page).next_back()?;
        (page < mapped.end).then_some(mapped.protection)
    }

    /// The snapshot that the engine wants: what overlaps `range`; if nothing does, the first above.
    pub(crate) fn snapshot(&self, range: PageRange) -> Vec<Mapping> {
        let above = self.mapped.iter().filter(|(_, mapped)| mapped.end > range.start());
        let mut found: Vec<Mapping> = above
            .filter_map(|(start, mapped)| {
                let tag = u32::from(mapped.protection as u8);
                Some(Mapping { range: PageRange::new(*start, mapped.end)?, kind: mapped.kind, tag })
            })
            .collect();
        let inside = found.iter().filter(|mapping| mapping.range.start() < range.end()).count();
        found.truncate(inside.max(1));
        found
    }

    /// Makes `page` the first of a mapping, if it lies in one.
    fn cut(&mut self, page: Page) {
        let Some((start, mapped)) = self.mapped.range_mut(..page).next_back() else { return };
        if page < mapped.end {
            let rest = *mapped;
            mapped.end = page;
            debug_assert!(*start < page, "a mapping is not empty");
            self.mapped.insert(page, rest);
        }
    }

    fn merge(&mut self) {
        let mut merged: BTreeMap<Page, Mapped> = BTreeMap::new();
        for (start, mapped) in &self.mapped {
            if let Some((_, last)) = merged.iter_mut().next_back()
                && last.end == *start
                && (last.kind, last.protection) == (mapped.kind, mapped.protection)
            {
                last.end = mapped.end;
            } else {
                merged.insert(*start, *mapped);
            }
        }
        self.mapped = merged;
    }

    pub(crate) fn drop_contents(&mut self, range: PageRange) {
        self.contents.retain(|page, _| !range.contains(*page));
    }

    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) {
        for (address, byte) in (address..).zip(bytes) {
            *byte = self.contents.get(&page_of(address)).map_or(0, |page| page[offset(address)]);
        }
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            let page = self.contents.entry(page_of(address)).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[offset(address)] = *byte;
        }
    }
}

fn offset(address: u64) -> usize {
    usize::try_from(address % PAGE).unwrap_or(0)
}
