//! A mapping that outlives everything borrowed from it.
//!
//! Invariants:
//!
//! 1. Every live [`Window`] and [`Shared`] has its claim in `claims`, so no window overlaps anything.
//! 2. Contents end only through a window that is borrowed mutably, through a shared loan, or here, under
//!    the lock of `claims`, in a range that no window holds.
//!
//! The lock of `claims` is never taken inside an access, so an access may fault; nor by a signal handler.
//!
//! Kernel counterpart: the life of a `vm_area_struct`.
#![expect(unsafe_code, reason = "discards contents; the two invariants above are this file's proof")]

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::claims::Claims;
use crate::error::{AdviseError, LendError, MapError};
use crate::pages::{Advice, Pages, Protection, page_size};
use crate::range::PageRange;
use crate::shared::Shared;
use crate::window::Window;

/// An owned private anonymous mapping of whole pages, meant to live in an [`Arc`].
///
/// Address space only: memory is taken page by page as it is touched (`MAP_NORESERVE`). Unmapped when the
/// last owner, [`Window`] or [`Shared`] goes.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use userfault_memory::{Mapping, Protection, page_size};
///
/// let mapping = Arc::new(Mapping::reserve(4 * page_size(), Protection::ReadWrite)?);
/// let mut window = mapping.window(0..page_size())?;
/// window.as_mut_slice()[7] = 42;
///
/// assert!(mapping.window(0..page_size()).is_err(), "windows are exclusive");
/// assert!(mapping.window(page_size()..2 * page_size()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    pages: Pages,
    claims: Mutex<Claims>,
}

impl Mapping {
    /// Maps `len_bytes`, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then.
    ///
    /// # Source
    ///
    /// `mmap(2)`.
    pub fn reserve(len_bytes: usize, protection: Protection) -> Result<Self, MapError> {
        Self::reserve_aligned(len_bytes, protection, page_size())
    }

    /// Maps `len_bytes`, rounded up to whole pages, at an address that is a multiple of `align_bytes`.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then.
    pub fn reserve_aligned(len_bytes: usize, protection: Protection, align_bytes: usize) -> Result<Self, MapError> {
        let pages = Pages::reserve(len_bytes, protection, align_bytes)?;
        Ok(Self { pages, claims: Mutex::default() })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn base(&self) -> usize {
        self.as_ptr().expose_provenance()
    }

    /// The address of the first byte as a pointer, for calls that take one; not for contents, which the
    /// program may hold as slices.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.pages.base().as_ptr()
    }

    /// Bytes; a non-zero multiple of the page size.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping has at least one page")]
    pub const fn len(&self) -> usize {
        self.pages.len()
    }

    /// Pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.len() / page_size()
    }

    /// The mapping in bytes from its start: `0..len`.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        0..self.len()
    }

    /// Lends `range`, in bytes from the start, exclusively.
    ///
    /// # Errors
    ///
    /// [`LendError`] if the range is not one of whole pages, or overlaps a [`Window`] or a [`Shared`];
    /// the claims are unchanged then.
    pub fn window(self: &Arc<Self>, range: Range<usize>) -> Result<Window, LendError> {
        let checked = PageRange::check(&range, self.len())?;
        self.claims().take_window(&range)?;
        Ok(Window::new(Arc::clone(self), &checked))
    }

    /// Lends `range`, in bytes from the start, to be shared with other [`Shared`] loans.
    ///
    /// # Errors
    ///
    /// [`LendError`] if the range is not one of whole pages, or overlaps a [`Window`]; the claims are
    /// unchanged then.
    pub fn shared(self: &Arc<Self>, range: Range<usize>) -> Result<Shared, LendError> {
        let checked = PageRange::check(&range, self.len())?;
        self.claims().take_shared(&range)?;
        Ok(Shared::new(Arc::clone(self), &checked))
    }

    /// Advises the kernel about `range`, in bytes from the start.
    ///
    /// # Errors
    ///
    /// [`AdviseError`]; its variants say what is unchanged. Kernels without huge pages answer `EINVAL` to
    /// advice about them.
    ///
    /// # Source
    ///
    /// `madvise(2)`.
    pub fn advise(&self, range: Range<usize>, advice: Advice) -> Result<(), AdviseError> {
        let checked = PageRange::check(&range, self.len())?;
        // Held across the call: a window taken meanwhile would see its contents change.
        let claims = self.claims();
        if advice == Advice::DontNeed
            && let Some(held) = claims.window_in(&range)
        {
            return Err(AdviseError::HeldByWindow { start: held.start, end: held.end });
        }
        // SAFETY: only windows give slices, and none overlaps the range while `claims` is held (invariants 1, 2).
        let answer = unsafe { self.pages.advise(&checked, advice) };
        drop(claims);
        answer.map_err(|errno| AdviseError::Os { errno })
    }

    pub(crate) const fn raw(&self) -> &Pages {
        &self.pages
    }

    /// A panic while the lock is held leaves complete claims: each change is one map operation, or two
    /// that cannot fail.
    pub(crate) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
