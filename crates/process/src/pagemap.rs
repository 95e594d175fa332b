//! Which pages of a mapping have contents, as the kernel tells.
//!
//! Present or swapped out, and not a guard (H11). `mincore` would not do: for private memory it means
//! "resident", and a swapped page is not absent (H12).
//!
//! Kernel counterpart: `/proc/PID/pagemap`, `proc_pid_pagemap(5)`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use userfault_abi::errno::Errno;
use userfault_engine::{Page, PageRange};
use userfault_memory::Zeroed;

const ENTRY: usize = 8;
/// Entries read at a time.
const ENTRIES: usize = 8192;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const GUARD: u64 = 1 << 58;

pub(crate) struct Pagemap {
    file: File,
    /// Outside of the malloc heap: it is written under a lock.
    buffer: Zeroed<u8>,
}

impl Pagemap {
    /// Opens it and takes all the memory it needs: to be called before a lock is held.
    pub(crate) fn open() -> Result<Self, Errno> {
        let file = File::open("/proc/self/pagemap").map_err(|error| errno_of(&error))?;
        Ok(Self { file, buffer: Zeroed::new(ENTRIES * ENTRY).map_err(|_| Errno::ENOMEM)? })
    }

    /// Calls `found` with each run of pages in `range` that have contents.
    pub(crate) fn present(&mut self, range: PageRange, mut found: impl FnMut(PageRange)) -> Result<(), Errno> {
        let mut at = range.start();
        let mut run: Option<Page> = None;
        while let Some(batch) = PageRange::new(at, range.end()).and_then(|rest| rest.first(ENTRIES as u64)) {
            let bytes = usize::try_from(batch.pages()).unwrap_or(0) * ENTRY;
            let buffer = self.buffer.get_mut(..bytes).ok_or(Errno::EINVAL)?;
            let offset = batch.start().number() * ENTRY as u64;
            self.file.read_exact_at(buffer, offset).map_err(|error| errno_of(&error))?;
            let (entries, _) = buffer.as_chunks::<ENTRY>();
            let mut page = batch.start();
            for entry in entries {
                let entry = u64::from_ne_bytes(*entry);
                let has_contents = entry & (PRESENT | SWAPPED) != 0 && entry & GUARD == 0;
                match (has_contents, run) {
                    (true, None) => run = Some(page),
                    (false, Some(start)) => {
                        run = None;
                        PageRange::new(start, page).into_iter().for_each(&mut found);
                    }
                    (true, Some(_)) | (false, None) => {}
                }
                page = page.next();
            }
            at = batch.end();
        }
        if let Some(start) = run {
            PageRange::new(start, range.end()).into_iter().for_each(&mut found);
        }
        Ok(())
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
