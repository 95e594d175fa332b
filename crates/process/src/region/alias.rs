//! A second mapping of a region's shared memory, where its pages are written (M3).
//!
//! The region's own mapping decides who may look; contents are the file's, whoever wrote them. So a page is
//! filled through the alias, while nobody can reach it here, and then made accessible by one call (H1).
//!
//! Other processes map the same memory and write to it without asking. A page that they have given contents
//! is not missing: it is looked for, and opened as it is, before a fault is told to anybody and before a fill
//! claims it (H20). What they write between that look and the fill is lost (`m/copy/shared`); and they see a
//! page that is being filled.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use userfault_abi::errno::Errno;
use userfault_memory::{Mapping, Protection};

use crate::machine::Machine;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Span};

/// As many pages as the region has, readable and writable.
pub(crate) struct Alias {
    mapping: Mapping,
    contents: Contents,
}

/// How to find out which pages have contents.
pub(crate) enum Contents {
    /// From the file, where the region begins at `start`: also those that are swapped out.
    OfFile { file: OwnedFd, start: u64 },
    /// From what is resident: nothing may be swapped out.
    Resident,
}

/// How many pages `mincore` is asked for at a time.
const BATCH: usize = 512;

impl Alias {
    /// Of shared memory in one mapping.
    pub(crate) fn of(region: Span, contents: Contents) -> Result<Self, Errno> {
        let mapping = Mapping::reserve(region.len(), Protection::None).map_err(|_| Errno::ENOMEM)?;
        let all = Span::of(&mapping, &(0..mapping.pages()));
        sys::alias(region, all)?;
        // One filled page is one page, which can be taken out again. Where it is refused there are no others.
        let _no_huge_pages = sys::avoid_huge_pages(all);
        Ok(Self { mapping, contents })
    }

    pub(crate) fn span(&self, run: &Range<usize>) -> Span {
        Span::of(&self.mapping, run)
    }

    /// Gives contents to pages that have none: zeros. Others keep theirs.
    pub(super) fn populate(&self, machine: &Machine, run: &Range<usize>) -> Result<(), Errno> {
        match machine.populate_for_writing(self.span(run)) {
            Err(Errno::EINVAL) => self.span(run).pages().try_for_each(|page| machine.erase(page)),
            other => other,
        }
    }

    /// Ends contents, for everybody.
    pub(super) fn punch(&self, run: &Range<usize>) -> Result<(), Errno> {
        if run.is_empty() {
            return Ok(());
        }
        match sys::remove(self.span(run)) {
            // The program has locked its memory, and this with it.
            Err(Errno::EINVAL) => sys::unlock(self.span(run)).and_then(|()| sys::remove(self.span(run))),
            other => other,
        }
    }

    /// The first run of pages in `run` that have contents.
    pub(super) fn present_in(&self, run: &Range<usize>) -> Result<Option<Range<usize>>, Errno> {
        let found = match &self.contents {
            Contents::OfFile { file, start } => in_file(file, *start, run)?,
            Contents::Resident => self.resident(run)?,
        };
        Ok(found.filter(|found| !found.is_empty()))
    }

    fn resident(&self, run: &Range<usize>) -> Result<Option<Range<usize>>, Errno> {
        let mut found: Option<usize> = None;
        let mut at = run.start;
        while at < run.end {
            let batch = at..run.end.min(at + BATCH);
            let mut flags = [0; BATCH];
            sys::resident(self.span(&batch), &mut flags)?;
            for (page, flag) in batch.clone().zip(flags) {
                match found {
                    None if flag & 1 != 0 => found = Some(page),
                    Some(start) if flag & 1 == 0 => return Ok(Some(start..page)),
                    None | Some(_) => {}
                }
            }
            at = batch.end;
        }
        Ok(found.map(|start| start..run.end))
    }
}

/// Data of a file between holes.
///
/// The file may end inside of a page. That page has contents up to its end: who maps it sees all of it.
fn in_file(file: &OwnedFd, start: u64, run: &Range<usize>) -> Result<Option<Range<usize>>, Errno> {
    use rustix::fs::SeekFrom;
    let seek = |from| match rustix::fs::seek(file.as_fd(), from) {
        Ok(offset) => Ok(offset.saturating_sub(start)),
        // There is nothing more up to the end of the file.
        Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    };
    let offset = |page: usize| start + (page * PAGE_SIZE) as u64;
    let page = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let data = seek(SeekFrom::Data(offset(run.start)))?;
    let first = page(data / PAGE_SIZE as u64).max(run.start);
    if first >= run.end {
        return Ok(None);
    }
    let hole = seek(SeekFrom::Hole(offset(first)))?;
    Ok(Some(first..page(hole.div_ceil(PAGE_SIZE as u64)).min(run.end)))
}
