//! A second place for a region's pages, where they are made ready (M4).
//!
//! Where nothing can be written to inaccessible pages, a fill writes to the mirror, and moves what is
//! finished onto the hole: accessible by that one call (H1).
//!
//! A moved page merges with its neighbours, and costs no mapping of its own, only if the kernel takes both
//! for parts of one: the same offset, the same tree of anonymous memory. The mirror has both from its region
//! because it was moved off it *in parts*; and keeps them because pages are only ever moved off it in parts.
//!
//! A forked child has the mirror, too, with the few pages that were being made ready, which nobody reaches any
//! more. It cannot be kept from the child, since what is moved off it would be, as well.

use std::ops::Range;

use userfault_abi::errno::Errno;
use userfault_memory::{Mapping, Protection};

use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};
use crate::writer::Writer;

/// As many pages as the region has; readable and writable, and empty between fills.
pub(crate) struct Mirror {
    mapping: Mapping,
}

impl Mirror {
    /// Of a mapping that holds nothing and that nobody knows yet; that is readable and writable afterwards.
    pub(crate) fn of(writer: &Writer, region: Span) -> Result<Self, Errno> {
        static NOTHING: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        let mapping = Mapping::reserve(region.len(), Protection::None).map_err(|_| Errno::ENOMEM)?;
        let mirror = Span::of(&mapping, &(0..mapping.pages()));
        // A program that locks all its memory (`mlockall`) does not mean pages that it has not got.
        sys::unlock(region)?;
        sys::protect(region, Access::ReadWrite)?;
        // The first page that is written gives the mapping its tree.
        if let Some(page) = region.pages().next() {
            writer.write(NOTHING.as_ptr(), page).map_err(|(_, errno)| errno)?;
            sys::zap(page)?;
        }
        // A limit of data is to refuse what is opened, not what is moved.
        sys::protect(region, Access::None)?;
        for (from, to) in parts(region).zip(parts(mirror)) {
            sys::move_pages(from, to)?;
        }
        sys::protect(region, Access::ReadWrite)?;
        sys::protect(mirror, Access::ReadWrite)?;
        Ok(Self { mapping })
    }

    pub(crate) fn span(&self, run: &Range<usize>) -> Span {
        Span::of(&self.mapping, run)
    }

    /// The run in parts of which none is all of the mirror, if it has more than one page.
    pub(super) fn parts(&self, run: &Range<usize>) -> [Range<usize>; 2] {
        let middle = if *run == (0..self.mapping.pages()) { run.end / 2 } else { run.start };
        [run.start..middle, middle..run.end]
    }

    /// Drops what an unfinished fill has left.
    pub(super) fn drop_contents(&self, run: &Range<usize>) {
        let span = || self.span(run);
        if run.is_empty() || sys::zap(span()).is_ok() {
            return;
        }
        // The program has locked its memory, and this with it.
        if sys::unlock(span()).and_then(|()| sys::zap(span())).is_err() {
            sys::die("userfault: the contents of an unfinished page could not be dropped\n");
        }
    }
}

/// Both halves, or the only page.
fn parts(span: Span) -> impl Iterator<Item = Span> {
    span.first_half().into_iter().chain([span.second_half()])
}
