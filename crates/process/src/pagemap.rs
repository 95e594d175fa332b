//! Which pages of a mapping have contents, as the kernel tells.
//!
//! Present or swapped out, and not a guard (H11, H12).
//!
//! Kernel counterpart: `/proc/PID/pagemap`, `proc_pid_pagemap(5)`.

use userfault_abi::errno::Errno;
use userfault_engine::{Page, PageRange};
use userfault_memory::{self as memory, Holds};

use crate::states::PAGE_SIZE;

pub(crate) struct Pagemap(memory::Pagemap);

impl Pagemap {
    /// Opens it and takes all the memory it needs: to be called before a lock is held.
    pub(crate) fn open() -> Result<Self, Errno> {
        memory::Pagemap::open().map(Self).map_err(|error| errno_of(&error))
    }

    /// Calls `found` with each run of pages in `range` that have contents.
    pub(crate) fn present(&mut self, range: PageRange, mut found: impl FnMut(PageRange)) -> Result<(), Errno> {
        let address = |page: Page| usize::try_from(page.number()).map_or(usize::MAX, |number| number * PAGE_SIZE);
        let page = |address: usize| Page::new((address / PAGE_SIZE) as u64);
        let bytes = address(range.start())..address(range.end());
        let runs = self.0.runs(bytes, |run, holds| {
            if holds == Holds::Contents {
                PageRange::new(page(run.start), page(run.end)).into_iter().for_each(&mut found);
            }
        });
        runs.map_err(|error| errno_of(&error))
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
