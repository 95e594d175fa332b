//! Addresses, pages and ranges of them.
//!
//! Parsed once at the edge: an ioctl argument becomes a [`PageRange`] or an error in the first line
//! that sees it, and nothing below checks alignment or overflow again. Ranges are never empty, so no
//! layer can take "length 0" for "everything" (W12).
//!
//! Kernel counterpart: `validate_range` semantics of `ioctl_userfaultfd(2)`.

/// A page number: address divided by the page size.
///
/// Example: [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page(u64);

impl Page {
    /// The page with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The page after this one; the last page is its own successor.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A half-open, non-empty range of pages, `[start, end)`.
///
/// Example: [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRange {
    start: Page,
    end: Page,
}

impl PageRange {
    /// `[start, end)`, unless it is empty.
    #[must_use]
    pub const fn new(start: Page, end: Page) -> Option<Self> {
        if start.0 < end.0 { Some(Self { start, end }) } else { None }
    }

    /// The range of one page.
    #[must_use]
    pub const fn one(page: Page) -> Self {
        // The last page number is never reached: addresses have 64 bits, page numbers fewer.
        Self { start: page, end: page.next() }
    }

    /// First page.
    #[must_use]
    pub const fn start(self) -> Page {
        self.start
    }

    /// First page after the range.
    #[must_use]
    pub const fn end(self) -> Page {
        self.end
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether `page` lies in the range.
    #[must_use]
    pub const fn contains(self, page: Page) -> bool {
        self.start.0 <= page.0 && page.0 < self.end.0
    }

    /// The part that both have.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The part from `page` on.
    #[must_use]
    pub fn from(self, page: Page) -> Option<Self> {
        Self::new(self.start.max(page), self.end)
    }

    /// The part before `page`.
    #[must_use]
    pub fn until(self, page: Page) -> Option<Self> {
        Self::new(self.start, self.end.min(page))
    }

    /// The first `pages` pages.
    #[must_use]
    pub fn first(self, pages: u64) -> Option<Self> {
        self.until(Page(self.start.0.saturating_add(pages)))
    }
}

/// The shape of the address space, in bytes.
///
/// # Examples
///
/// ```
/// use userfault_engine::{Limits, Page, RangeError};
///
/// let range = Limits::X86_64.parse(0x10_000, 0x2000, false).unwrap();
/// assert_eq!((range.start(), range.pages()), (Page::new(16), 2));
/// assert!(range.contains(Page::new(17)) && !range.contains(range.end()));
/// assert_eq!(Limits::X86_64.parse(0x10_001, 0x2000, false), Err(RangeError::StartUnaligned));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The page size is `1 << page_shift` bytes.
    pub page_shift: u32,
    /// Lowest mappable address; the original protocol refuses ranges that start below.
    pub lowest: u64,
    /// First address after the address space.
    pub size: u64,
}

/// Why a `(start, len)` pair is not a range; all are `EINVAL`.
///
/// Example: [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// `start` is not a multiple of the page size.
    StartUnaligned,
    /// `len` is not a multiple of the page size.
    LenUnaligned,
    /// `len` is 0; "all" cannot be asked for.
    Empty,
    /// `start` lies below the lowest mappable address.
    BelowLowest,
    /// `start` lies at or above the end of the address space.
    StartTooHigh,
    /// `start + len` lies above the end of the address space, or wraps.
    EndTooHigh,
}

impl Limits {
    /// x86-64 user space with 4 KiB pages and 4-level tables.
    pub const X86_64: Self = Self { page_shift: 12, lowest: 0x1_0000, size: 0x7fff_ffff_f000 };

    /// Bytes per page.
    #[must_use]
    pub const fn page_size(self) -> u64 {
        1_u64.wrapping_shl(self.page_shift)
    }

    /// The page that holds `address`.
    #[must_use]
    pub const fn page_of(self, address: u64) -> Page {
        Page(address.wrapping_shr(self.page_shift))
    }

    /// Address of the page's first byte.
    #[must_use]
    pub const fn address_of(self, page: Page) -> u64 {
        page.0.wrapping_shl(self.page_shift)
    }

    /// Length of the range in bytes.
    #[must_use]
    pub const fn len_bytes(self, range: PageRange) -> u64 {
        range.pages().wrapping_shl(self.page_shift)
    }

    /// Checks a `(start, len)` pair as an ioctl argument; both in bytes.
    ///
    /// `lowest_applies` is the original protocol's extra rule.
    ///
    /// # Errors
    ///
    /// One [`RangeError`] per broken rule, tested in declaration order.
    ///
    /// # Source
    ///
    /// `spec/original.md` `o/range/valid`, `spec/modern.md` `m/range/valid`.
    pub fn parse(self, start: u64, len: u64, lowest_applies: bool) -> Result<PageRange, RangeError> {
        let inside_page = self.page_size().wrapping_sub(1);
        if start & inside_page != 0 {
            return Err(RangeError::StartUnaligned);
        }
        if len & inside_page != 0 {
            return Err(RangeError::LenUnaligned);
        }
        if lowest_applies && start < self.lowest {
            return if len == 0 { Err(RangeError::Empty) } else { Err(RangeError::BelowLowest) };
        }
        // Compare by subtraction: `start + len` may wrap for hostile arguments.
        let room = self.size.checked_sub(start).filter(|room| *room > 0);
        match room {
            None if len == 0 => Err(RangeError::Empty),
            None => Err(RangeError::StartTooHigh),
            Some(room) if len > room => Err(RangeError::EndTooHigh),
            Some(_) => {
                let end = self.page_of(start.wrapping_add(len));
                PageRange::new(self.page_of(start), end).ok_or(RangeError::Empty)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Page, PageRange, RangeError};

    const PAGE: u64 = 4096;
    const SIZE: u64 = Limits::X86_64.size;

    // spec: o/range/valid, m/range/valid, W12
    #[test]
    fn a_range_is_valid_up_to_the_last_page_and_never_empty() {
        let low = 0x1_0000;
        type Case = (u64, u64, bool, Result<u64, RangeError>, &'static str);
        let cases: [Case; 14] = [
            (low, PAGE, true, Ok(1), "the lowest page of the original"),
            (low - PAGE, PAGE, true, Err(RangeError::BelowLowest), "one page lower"),
            (0, PAGE, false, Ok(1), "modern: start 0 is legal"),
            (low + 1, PAGE, true, Err(RangeError::StartUnaligned), "start off by one"),
            (low, PAGE + 1, true, Err(RangeError::LenUnaligned), "len off by one"),
            (low, 0, true, Err(RangeError::Empty), "len 0 is not everything"),
            (low, 0, false, Err(RangeError::Empty), "modern: len 0 neither"),
            (SIZE - PAGE, PAGE, true, Ok(1), "the last page"),
            (SIZE - PAGE, 2 * PAGE, true, Err(RangeError::EndTooHigh), "one page beyond"),
            (SIZE, PAGE, true, Err(RangeError::StartTooHigh), "start at the end"),
            (SIZE + PAGE, PAGE, false, Err(RangeError::StartTooHigh), "start above the end"),
            (low, SIZE - low, true, Ok((SIZE - low) / PAGE), "everything from the lowest"),
            (low, 0u64.wrapping_sub(PAGE), true, Err(RangeError::EndTooHigh), "len near 2^64"),
            (0u64.wrapping_sub(PAGE), 2 * PAGE, false, Err(RangeError::StartTooHigh), "wraps"),
        ];
        for (start, len, lowest, expected, reason) in cases {
            let got = Limits::X86_64.parse(start, len, lowest).map(PageRange::pages);
            assert_eq!(got, expected, "{reason}");
        }
    }

    #[test]
    fn ranges_intersect_by_pages_and_touching_is_not_overlapping() {
        let range = |a, b| PageRange::new(Page::new(a), Page::new(b));
        let (left, right) = (range(1, 4).unwrap(), range(4, 6).unwrap());
        assert_eq!(left.intersect(right), None);
        assert_eq!(left.intersect(range(3, 9).unwrap()), range(3, 4));
        assert_eq!(range(5, 5), None);
    }
}
