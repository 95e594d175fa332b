//! Byte ranges checked once, at the edge.

use std::ops::Range;

use crate::error::RangeError;
use crate::pages::page_size;

/// A non-empty range `[start, end)` of whole pages, in bytes from the start of what it was checked against.
///
/// It does not prove that it is applied to the mapping it was checked against: every caller checks and
/// uses it in one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageRange(Range<usize>);

impl PageRange {
    /// Checks `range` against `len_bytes`.
    pub(crate) fn check(range: &Range<usize>, len_bytes: usize) -> Result<Self, RangeError> {
        let Range { start, end } = *range;
        if end <= start {
            return Err(RangeError::Empty { start, end });
        }
        if let Some(offset) = [start, end].into_iter().find(|bound| !bound.is_multiple_of(page_size())) {
            return Err(RangeError::Unaligned { offset });
        }
        if end > len_bytes {
            return Err(RangeError::OutOfBounds { end, len_bytes });
        }
        Ok(Self(start..end))
    }

    /// Shifts a range that was checked against the part starting at `by` to the whole.
    pub(crate) fn shifted(&self, by: usize) -> Self {
        Self(self.0.start + by..self.0.end + by)
    }

    pub(crate) fn bytes(&self) -> Range<usize> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_range_is_non_empty_aligned_and_within_bounds() {
        let page = page_size();
        let len_bytes = 4 * page;
        let cases = [
            ("one page", 0..page, Ok(())),
            ("the last page", 3 * page..4 * page, Ok(())),
            ("everything", 0..4 * page, Ok(())),
            ("nothing", page..page, Err(RangeError::Empty { start: page, end: page })),
            ("backwards", 2 * page..page, Err(RangeError::Empty { start: 2 * page, end: page })),
            ("start off by one", 1..page, Err(RangeError::Unaligned { offset: 1 })),
            ("end off by one", 0..page - 1, Err(RangeError::Unaligned { offset: page - 1 })),
            ("one page too far", 0..5 * page, Err(RangeError::OutOfBounds { end: 5 * page, len_bytes })),
        ];
        for (why, range, expected) in cases {
            assert_eq!(PageRange::check(&range, len_bytes).map(|_| ()), expected, "{why}");
        }
    }
}
