//! Tables in mappings of their own, outside the malloc heap.
//!
//! A signal handler may have interrupted malloc; what it uses must not come from there, and must not move.
//!
//! Invariants:
//!
//! 1. The pages hold `capacity × size_of::<T>()` bytes at least, aligned for `T`.
//! 2. [`Fixed`]: exactly the first `len` elements are initialised, and owned.
//! 3. [`Zeroed`]: all elements are initialised: fresh pages are zero, and zero is valid for `T`.
//! 4. The pages are mapped readable and writable, and nobody else knows of them.
#![expect(unsafe_code, reason = "typed tables in raw memory; the four invariants above are this file's proof")]

use std::fmt::{Debug, Formatter, Result as Written};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

use crate::error::MapError;
use crate::pages::{Pages, Protection, page_size};

/// A vector of fixed capacity in its own mapping. Memory is taken as elements are pushed.
///
/// # Examples
///
/// ```
/// use userfault_memory::Fixed;
///
/// let mut table = Fixed::with_capacity(2)?;
/// assert_eq!(table.push("a"), Ok(()));
/// assert_eq!(table.push("b"), Ok(()));
/// assert_eq!(table.push("c"), Err("c"), "it is full");
/// assert_eq!(table.as_ref(), ["a", "b"]);
/// # Ok::<(), userfault_memory::MapError>(())
/// ```
pub struct Fixed<T> {
    pages: Pages,
    len: usize,
    capacity: usize,
    owns: PhantomData<T>,
}

impl<T> Fixed<T> {
    /// Maps room for `capacity` elements.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then. A capacity of zero is legal.
    pub fn with_capacity(capacity: usize) -> Result<Self, MapError> {
        Ok(Self { pages: reserve::<T>(capacity)?, len: 0, capacity, owns: PhantomData })
    }

    /// Appends `element`.
    ///
    /// Neither allocates nor moves other elements; async-signal-safe.
    ///
    /// # Errors
    ///
    /// The element, if the vector is full.
    pub fn push(&mut self, element: T) -> Result<(), T> {
        if self.len == self.capacity {
            return Err(element);
        }
        // SAFETY: `len < capacity`, so the place lies in the pages (invariant 1).
        let place = unsafe { self.start().add(self.len) };
        // SAFETY: the place is ours, aligned (1, 4), and holds no element yet (2).
        unsafe { place.write(element) };
        self.len += 1;
        Ok(())
    }

    /// Elements there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    const fn start(&self) -> *mut T {
        self.pages.base().as_ptr().cast()
    }
}

impl<T> AsRef<[T]> for Fixed<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: the first `len` elements are initialised and aligned (invariants 1, 2), borrowed from `self`.
        unsafe { slice::from_raw_parts(self.start(), self.len) }
    }
}

impl<T> AsMut<[T]> for Fixed<T> {
    fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        let elements: *mut [T] = self.as_mut();
        self.len = 0;
        // SAFETY: the elements are initialised, owned (invariant 2), and never looked at again: `len` is 0.
        unsafe { ptr::drop_in_place(elements) };
    }
}

impl<T: Debug> Debug for Fixed<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.debug_list().entries(self.as_ref()).finish()
    }
}

/// Types for which all-zero bytes are a value.
///
/// # Safety
///
/// Zeroed memory of the size and alignment of the type is a valid value of it.
///
/// Example: [`Zeroed`].
pub unsafe trait ZeroIsValid {}

macro_rules! zero_is_valid {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: an integer, an atomic integer or an atomic boolean: zero is 0 or false.
            unsafe impl ZeroIsValid for $type {}
        )+
    };
}

zero_is_valid!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
zero_is_valid!(AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, AtomicI32, AtomicI64);

// SAFETY: an array is its elements side by side.
unsafe impl<T: ZeroIsValid, const N: usize> ZeroIsValid for [T; N] {}

/// A table of elements that start as all-zero bytes, in its own mapping. Memory is taken as they are touched.
///
/// Elements are not dropped: a type of which zero bytes are a value rarely owns anything.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU8, Ordering};
/// use userfault_memory::Zeroed;
///
/// let states = Zeroed::<AtomicU8>::new(1 << 20)?;
/// assert_eq!(states[4711].fetch_add(1, Ordering::Relaxed), 0);
/// # Ok::<(), userfault_memory::MapError>(())
/// ```
pub struct Zeroed<T: ZeroIsValid> {
    pages: Pages,
    len: usize,
    owns: PhantomData<T>,
}

impl<T: ZeroIsValid> Zeroed<T> {
    /// Maps `len` elements.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then. A length of zero is legal.
    pub fn new(len: usize) -> Result<Self, MapError> {
        Ok(Self { pages: reserve::<T>(len)?, len, owns: PhantomData })
    }

    const fn start(&self) -> *mut T {
        self.pages.base().as_ptr().cast()
    }
}

impl<T: ZeroIsValid> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements are in the pages, aligned, initialised (invariants 1, 3), borrowed from `self`.
        unsafe { slice::from_raw_parts(self.start(), self.len) }
    }
}

impl<T: ZeroIsValid> DerefMut for Zeroed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl<T: ZeroIsValid> AsRef<[T]> for Zeroed<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: ZeroIsValid> AsMut<[T]> for Zeroed<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: ZeroIsValid> Debug for Zeroed<T> {
    // A list of its elements would touch, and so take, all of its memory.
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.debug_struct("Zeroed").field("len", &self.len).finish_non_exhaustive()
    }
}

fn reserve<T>(elements: usize) -> Result<Pages, MapError> {
    if align_of::<T>() > page_size() {
        return Err(MapError::Alignment { align_bytes: align_of::<T>() });
    }
    let len_bytes = elements.saturating_mul(size_of::<T>());
    // One page at least: a mapping needs one, and an empty table is legal.
    Pages::reserve(len_bytes.max(1), Protection::ReadWrite, page_size())
}
