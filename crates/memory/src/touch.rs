//! Touching pages so that they are there: before a system call, which cannot wait for them everywhere.
//!
//! Invariants:
//!
//! 1. An address that is loaded from lies in a mapping, or a slice, that is borrowed for the call.
//! 2. A byte that is loaded goes nowhere: whoever else holds or changes the page does not notice, and what
//!    was loaded is not looked at.
//! 3. A byte is stored to through `&mut` of it only, and is the byte that was there.
//!
//! Kernel counterpart: `MADV_POPULATE_READ` and `_WRITE`, which fail with `EFAULT` where a fault is answered in
//! user mode only.
#![expect(unsafe_code, reason = "loads and stores that must not be optimised away; the invariants above are the proof")]

use std::ops::Range;

use crate::error::RangeError;
use crate::mapping::Mapping;
use crate::pages::page_size;
use crate::range::PageRange;

impl Mapping {
    /// Loads a byte of every page of `range`, in bytes from the start, whatever is lent of it.
    ///
    /// # Errors
    ///
    /// [`RangeError`]; nothing is touched then.
    ///
    /// # Blocking
    ///
    /// In each page that is absent, until its fault is answered.
    pub fn populate(&self, range: Range<usize>) -> Result<(), RangeError> {
        let checked = PageRange::check(&range, self.len())?.bytes();
        for offset in checked.step_by(page_size()) {
            // SAFETY: the offset lies in the mapping (invariant 1), and the byte goes nowhere (2).
            unsafe { load(self.as_ptr().wrapping_add(offset)) };
        }
        Ok(())
    }
}

/// Loads a byte of every page that `buffer` lies in, so that a system call can read it.
///
/// # Blocking
///
/// In each page that is absent, until its fault is answered.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// let buffer = vec![7; 10_000]; // wherever its pages are
/// userfault_memory::populate(&buffer);
/// std::io::sink().write_all(&buffer)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn populate(buffer: &[u8]) {
    for byte in one_per_page(buffer.as_ptr().addr(), buffer.len()) {
        // SAFETY: inside the slice (invariant 1), and the byte goes nowhere (2).
        unsafe { load(buffer.as_ptr().wrapping_add(byte)) };
    }
}

/// As [`populate`], by stores, so that a system call can write to `buffer`: protection against writes is
/// met here, too. Contents stay as they are.
///
/// # Blocking
///
/// As [`populate`].
///
/// # Examples
///
/// ```
/// use std::io::Read;
///
/// let mut buffer = vec![0; 10_000];
/// userfault_memory::populate_mut(&mut buffer);
/// std::io::repeat(3).read_exact(&mut buffer)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn populate_mut(buffer: &mut [u8]) {
    let (start, len) = (buffer.as_mut_ptr(), buffer.len());
    for byte in one_per_page(start.addr(), len) {
        let byte = start.wrapping_add(byte);
        // SAFETY: inside the slice, which is ours alone (invariants 1, 3).
        let is = unsafe { byte.read_volatile() };
        // SAFETY: as above.
        unsafe { byte.write_volatile(is) };
    }
}

/// Offsets of the first byte, and of the first in each page after it.
fn one_per_page(start: usize, len: usize) -> impl Iterator<Item = usize> {
    let to_next_page = page_size() - start % page_size();
    let others = (to_next_page.min(len)..len).step_by(page_size());
    (len > 0).then_some(0).into_iter().chain(others)
}

/// # Safety
///
/// Invariant 1.
unsafe fn load(byte: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's. In assembly, because others may store to the byte at the same time: for them, and for
    // the compiler, this is what an atomic load is; the result stays in this block.
    unsafe {
        std::arch::asm!("movzx {0:e}, byte ptr [{1}]", out(reg) _, in(reg) byte, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's; one byte cannot be torn.
    let _nobody_looks =
        unsafe { (*byte.cast::<std::sync::atomic::AtomicU8>()).load(std::sync::atomic::Ordering::Relaxed) };
}

#[cfg(test)]
mod tests {
    use super::one_per_page;
    use crate::page_size;

    #[test]
    fn each_page_of_a_buffer_is_touched_once() {
        let page = page_size();
        for (start, len, expected) in [
            (0, 0, vec![]),
            (0, 1, vec![0]),
            (5, page - 5, vec![0]),
            (5, page - 4, vec![0, page - 5]),
            (page - 1, 2 * page, vec![0, 1, page + 1]),
            (0, 3 * page, vec![0, page, 2 * page]),
        ] {
            assert_eq!(one_per_page(start, len).collect::<Vec<_>>(), expected, "{len} bytes at {start}");
        }
    }
}
