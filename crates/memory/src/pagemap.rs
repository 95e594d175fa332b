//! What is behind each page of a range, as the kernel tells.
//!
//! `mincore` would not do: for private memory it means "resident", and a swapped page is not absent.
//!
//! Kernel counterpart: `/proc/PID/pagemap`, `proc_pid_pagemap(5)`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::arena::Zeroed;
use crate::pages::page_size;

const ENTRY: usize = 8;
/// Entries read at a time.
const ENTRIES: usize = 8192;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const GUARD: u64 = 1 << 58;

/// What is behind a page.
///
/// Example: [`Pagemap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing: its first touch finds zeros, or a fault.
    Nothing,
    /// Bytes, in memory or swapped out.
    Contents,
    /// A guard marker: every touch is a fault, whatever the mapping allows.
    Guard,
}

impl Holds {
    /// As the kernel encodes it. A guard has the bit for "swapped", too.
    const fn from_entry(entry: u64) -> Self {
        if entry & GUARD != 0 {
            Self::Guard
        } else if entry & (PRESENT | SWAPPED) != 0 {
            Self::Contents
        } else {
            Self::Nothing
        }
    }
}

/// Reads what is behind pages of this process.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use userfault_memory::{Holds, Mapping, Pagemap, Protection, page_size};
///
/// let mapping = Arc::new(Mapping::reserve(3 * page_size(), Protection::ReadWrite)?);
/// mapping.window(page_size()..2 * page_size())?.as_mut_slice()[0] = 1;
/// let (base, mut runs) = (mapping.base(), Vec::new());
/// Pagemap::open()?.runs(base..base + mapping.len(), |run, holds| runs.push((run.start - base, holds)))?;
/// let expected = [(0, Holds::Nothing), (page_size(), Holds::Contents), (2 * page_size(), Holds::Nothing)];
/// assert_eq!(runs, expected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    /// Outside of the malloc heap: it may be written under a provider's lock.
    buffer: Zeroed<u8>,
}

impl Pagemap {
    /// Opens it and takes all the memory that it needs.
    ///
    /// # Errors
    ///
    /// Without `/proc`, or no memory.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/pagemap")?;
        let buffer = Zeroed::new(ENTRIES * ENTRY).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { file, buffer })
    }

    /// Calls `found` with each longest run of pages in `range` (addresses of whole pages) behind which there
    /// is the same, in order. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The kernel's, when some runs may have been found.
    pub fn runs(&mut self, range: Range<usize>, mut found: impl FnMut(Range<usize>, Holds)) -> io::Result<()> {
        let page = page_size();
        let mut at = range.start;
        let mut run = (range.start, Holds::Nothing);
        while at < range.end {
            let entries = ((range.end - at) / page).clamp(1, ENTRIES);
            let buffer = self.buffer.get_mut(..entries * ENTRY).unwrap_or_default();
            self.file.read_exact_at(buffer, (at / page * ENTRY) as u64)?;
            for entry in buffer.as_chunks::<ENTRY>().0 {
                let holds = Holds::from_entry(u64::from_ne_bytes(*entry));
                let (start, before) = run;
                if holds != before {
                    if start < at {
                        found(start..at, before);
                    }
                    run = (at, holds);
                }
                at += page;
            }
        }
        let (start, holds) = run;
        if start < range.end {
            found(start..range.end, holds);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{GUARD, Holds, PRESENT, Pagemap, SWAPPED};
    use crate::{Mapping, Protection, page_size};

    // spec: H12
    #[test]
    fn swapped_pages_have_contents_and_guards_have_none() {
        // There is no swap on the machines that run this: the bits are the kernel's documented ones.
        for (entry, holds) in [
            (0, Holds::Nothing),
            (PRESENT, Holds::Contents),
            (SWAPPED, Holds::Contents),
            (GUARD | SWAPPED, Holds::Guard),
            (GUARD, Holds::Guard),
            (1 << 55 | 1 << 56, Holds::Nothing),
        ] {
            assert_eq!(Holds::from_entry(entry), holds, "{entry:#x}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads the kernel's page map")]
    fn runs_are_longest_and_cover_the_range() {
        let page = page_size();
        let pages = 3 * super::ENTRIES + 5;
        let mapping = Arc::new(Mapping::reserve(pages * page, Protection::ReadWrite).unwrap());
        let written = [0, 1, 7, super::ENTRIES - 1, super::ENTRIES, 2 * super::ENTRIES + 3, pages - 1];
        for at in written {
            mapping.window(at * page..(at + 1) * page).unwrap().as_mut_slice()[5] = 1;
        }
        let mut seen = Vec::new();
        let base = mapping.base();
        let range = base..base + mapping.len();
        Pagemap::open().unwrap().runs(range, |run, holds| seen.push((run, holds))).unwrap();
        assert!(seen.windows(2).all(|pair| pair[0].0.end == pair[1].0.start && pair[0].1 != pair[1].1), "{seen:?}");
        assert_eq!((seen[0].0.start, seen[seen.len() - 1].0.end), (base, base + mapping.len()));
        for at in 0..pages {
            let (_, holds) = seen.iter().find(|(run, _)| run.contains(&(base + at * page))).unwrap();
            assert_eq!(*holds == Holds::Contents, written.contains(&at), "page {at}");
        }
    }
}
