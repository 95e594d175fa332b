//! Exclusive, safe access to memory that may be absent: slices.
//!
//! Invariants:
//!
//! 1. The range of a window lies in its mapping, and no other window and no shared loan overlaps it.
//! 2. A slice borrows the window, so only shared slices, or one mutable slice, of a page exist at a time.
//! 3. The window holds its mapping alive.
//! 4. While a window exists, contents of its pages change only through it; a fill may bring a page that
//!    nobody has yet been able to observe. A fault on such a page is answered, or the process ends: either
//!    way no access sees two contents.
//!
//! Invariant 4 is what providers promise whoever hands them a window; [`Mapping`] keeps it for its part.
#![expect(unsafe_code, reason = "slices of raw memory; the four invariants above are this file's proof")]

use std::ops::Range;
use std::slice;
use std::sync::Arc;

use crate::error::DiscardError;
use crate::mapping::Mapping;
use crate::pages::{Advice, page_size};
use crate::range::PageRange;

/// An exclusive loan of whole pages of a [`Mapping`], as slices.
///
/// While the window exists, nobody may change the contents of its pages, except a fill of a missing page
/// that nobody has yet been able to observe. Ending contents (discarding) needs `&mut Window`.
///
/// A touch may fault, and the fault may take as long as its monitor does. A store to pages without write
/// permission ends the process unless someone answers the fault.
///
/// # Examples
///
/// A slice cannot outlive a discard of what it shows:
///
/// ```compile_fail,E0502
/// # use std::sync::Arc;
/// # use userfault_memory::{Mapping, Protection, page_size};
/// # let mapping = Arc::new(Mapping::reserve(page_size(), Protection::ReadWrite).unwrap());
/// let mut window = mapping.window(0..page_size()).unwrap();
/// let slice = window.as_slice();
/// window.discard_plain(0..page_size()).unwrap();
/// assert_eq!(slice[0], 0);
/// ```
///
/// nor its window:
///
/// ```compile_fail,E0505
/// # use std::sync::Arc;
/// # use userfault_memory::{Mapping, Protection, page_size};
/// # let mapping = Arc::new(Mapping::reserve(page_size(), Protection::ReadWrite).unwrap());
/// let window = mapping.window(0..page_size()).unwrap();
/// let slice = window.as_slice();
/// drop(window);
/// assert_eq!(slice[0], 0);
/// ```
///
/// Exclusive means no second copy:
///
/// ```compile_fail,E0599
/// # use std::sync::Arc;
/// # use userfault_memory::{Mapping, Protection, page_size};
/// # let mapping = Arc::new(Mapping::reserve(page_size(), Protection::ReadWrite).unwrap());
/// let window = mapping.window(0..page_size()).unwrap();
/// let second = window.clone();
/// ```
///
/// ```
/// use std::sync::Arc;
/// use userfault_memory::{Mapping, Protection, page_size};
///
/// let mapping = Arc::new(Mapping::reserve(2 * page_size(), Protection::ReadWrite)?);
/// let (mut first, second) = mapping.window(mapping.range())?.split_at(page_size());
/// first.as_mut_slice().fill(7);
/// assert_eq!((first.as_slice()[0], second.as_slice()[0]), (7, 0));
/// first.discard_plain(0..page_size())?;
/// assert_eq!(first.as_slice()[0], 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Window {
    mapping: Arc<Mapping>,
    /// In bytes from the start of the mapping; empty only for an empty half of a split, which holds no claim.
    range: Range<usize>,
}

impl Window {
    /// `range` was checked against `mapping` and claimed.
    pub(crate) fn new(mapping: Arc<Mapping>, range: &PageRange) -> Self {
        Self { mapping, range: range.bytes() }
    }

    /// The contents.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping (invariant 1).
        let start = unsafe { self.mapping.as_ptr().add(self.range.start) };
        // SAFETY: mapped for as long as the borrow (1, 3), at most isize::MAX bytes, initialised by the
        // kernel or by a fill, and not changed while borrowed (2, 4).
        unsafe { slice::from_raw_parts(start, self.range.len()) }
    }

    /// The contents, to change them.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in the mapping (invariant 1).
        let start = unsafe { self.mapping.as_ptr().add(self.range.start) };
        // SAFETY: as in `as_slice`; nobody else has a slice of these pages (1, 2).
        unsafe { slice::from_raw_parts_mut(start, self.range.len()) }
    }

    /// Where it lies, in bytes from the start of the mapping.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.mapping.base() + self.range.start
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether this is an empty half of a split.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The mapping it is lent from.
    #[must_use]
    pub const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Cuts the window into `[0, bytes)` and the rest; one of them may be empty.
    ///
    /// # Panics
    ///
    /// As `slice::split_at`: if `bytes` is behind the end; and if it is not a multiple of the page size.
    #[must_use]
    pub fn split_at(mut self, bytes: usize) -> (Self, Self) {
        assert!(bytes <= self.len(), "cannot split {} bytes at {bytes}", self.len());
        assert!(bytes.is_multiple_of(page_size()), "{bytes} is not a multiple of the page size");
        let middle = self.range.start + bytes;
        if bytes != 0 && bytes != self.len() {
            self.mapping.claims().split_window(&self.range, middle);
        }
        let second = Self { mapping: Arc::clone(&self.mapping), range: middle..self.range.end };
        self.range.end = middle;
        (self, second)
    }

    /// Ends the contents of `range`, in bytes from the start of the window, by `MADV_DONTNEED`: it reads as
    /// zero, or is missing again where the kernel's userfaultfd is registered.
    ///
    /// For memory that the kernel alone decides about. Memory hosted in this process is discarded through
    /// its provider, which must know.
    ///
    /// # Errors
    ///
    /// [`DiscardError`]; its variants say what is unchanged.
    pub fn discard_plain(&mut self, range: Range<usize>) -> Result<(), DiscardError> {
        let checked = PageRange::check(&range, self.len())?.shifted(self.range.start);
        // SAFETY: `&mut self` means that no slice of the window is alive (invariants 1, 2).
        let answer = unsafe { self.mapping.raw().advise(&checked, Advice::DontNeed) };
        answer.map_err(|errno| DiscardError::Os { errno })
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsMut<[u8]> for Window {
    fn as_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.range.is_empty() {
            self.mapping.claims().end_window(&self.range);
        }
    }
}
