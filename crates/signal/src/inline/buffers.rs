//! Room for the bytes of pages that are being brought: in a mapping of its own, never on the stack of a handler
//! and never from malloc.
//!
//! Invariants:
//!
//! 1. `[base, base + len)` is a mapping made here, readable and writable, that nobody else names; it holds
//!    `COUNT` buffers of `buffer_bytes` each. It is unmapped when the pool goes, after every [`Buffer`].
//! 2. A buffer is reached only by who set its bit in `taken`, until it clears it.
//!
//! # Ordering
//!
//! Setting a bit acquires, clearing it releases: who takes a buffer comes after all that its last holder did.
#![expect(unsafe_code, reason = "lends pieces of a mapping; the two invariants above are this file's proof")]

use core::ptr::{self, NonNull};
use core::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// As many threads can be answered at once; the next ones ask the monitor.
pub(super) const COUNT: usize = 16;

#[derive(Debug)]
pub(super) struct Buffers {
    base: NonNull<u8>,
    len: usize,
    buffer_bytes: usize,
    taken: AtomicU32,
}

// SAFETY: the mapping belongs to the pool, whoever owns that (invariant 1).
unsafe impl Send for Buffers {}
// SAFETY: no two threads reach one buffer (invariant 2).
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Buffers of `buffer_bytes` bytes, all zero. They take memory as they are used.
    pub(super) fn new(buffer_bytes: usize) -> Result<Self, i32> {
        let len = buffer_bytes.checked_mul(COUNT).filter(|len| isize::try_from(*len).is_ok()).ok_or(libc::ENOMEM)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED the kernel chooses unused addresses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(sys::errno());
        }
        let base = NonNull::new(base.cast()).ok_or(libc::ENOMEM)?;
        Ok(Self { base, len, buffer_bytes, taken: AtomicU32::new(0) })
    }

    /// A buffer that nobody has, holding anything; `None` if all are in use. Async-signal-safe.
    pub(super) fn take(&self) -> Option<Buffer<'_>> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let index = taken.trailing_ones();
            if index as usize >= COUNT {
                return None;
            }
            match self.taken.compare_exchange_weak(taken, taken | 1 << index, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Buffer { pool: self, index }),
                Err(now) => taken = now,
            }
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: ours (invariant 1), and no buffer is lent: they borrow the pool.
        let answer = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(answer, 0, "munmap of a whole mapping succeeds");
    }
}

/// A buffer of the calling thread's, until it is dropped.
#[derive(Debug)]
pub(super) struct Buffer<'a> {
    pool: &'a Buffers,
    index: u32,
}

impl Buffer<'_> {
    pub(super) const fn bytes(&mut self) -> &mut [u8] {
        let offset = self.index as usize * self.pool.buffer_bytes;
        // SAFETY: `index` is below `COUNT` (invariant 1).
        let start = unsafe { self.pool.base.add(offset) };
        // SAFETY: initialised, in the mapping, and nobody else's (invariants 1, 2); borrowed as `self` is.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.pool.buffer_bytes) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.pool.taken.fetch_and(!(1 << self.index), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, COUNT};

    #[test]
    fn a_buffer_has_one_holder_and_when_all_are_held_there_is_none() {
        let pool = Buffers::new(8192).unwrap();
        let mut all: Vec<_> = (0..COUNT).map(|_| pool.take().unwrap()).collect();
        for (number, buffer) in (0_u8..).zip(&mut all) {
            buffer.bytes().fill(number);
        }
        assert!(pool.take().is_none());
        for (number, buffer) in (0_u8..).zip(&mut all) {
            assert!(buffer.bytes().iter().all(|byte| *byte == number));
        }
        drop(all.swap_remove(3));
        assert_eq!(pool.take().unwrap().index, 3);
    }

    #[test]
    fn threads_never_meet_in_a_buffer() {
        let pool = Buffers::new(4096).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for turn in 0..2000_u32 {
                        let mut buffer = pool.take().unwrap();
                        let mark = (number ^ turn).to_le_bytes()[0];
                        buffer.bytes().fill(mark);
                        assert!(buffer.bytes().iter().all(|byte| *byte == mark));
                    }
                });
            }
        });
    }
}
