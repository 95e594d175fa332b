//! Shared, safe access to memory that may change at any time: copies, word by word.
//!
//! Invariants:
//!
//! 1. The range of a loan lies in its mapping and is a whole number of pages, so of 8-byte words.
//! 2. No window overlaps it, so no slice of these bytes exists.
//! 3. The loan holds its mapping alive.
//! 4. Every access of this process to shared bytes, through this file, is to a whole aligned word.
//!
//! # Ordering
//!
//! Relaxed. A word is never torn; nothing orders one word with another, and a copy may be a mixture of old
//! and new words. Programs that need more bring their own synchronisation. Words of one size throughout,
//! because atomic accesses of different sizes to the same bytes are undefined where they race; the bytes at
//! the edges of a write go in by compare-exchange. Its first guess is zero, so that a write to an absent
//! page faults as a write, never as a read first.
#![expect(unsafe_code, reason = "words in raw memory; the four invariants above are this file's proof")]

use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{AccessError, DiscardError};
use crate::mapping::Mapping;
use crate::pages::Advice;
use crate::range::PageRange;

const WORD: usize = size_of::<u64>();

/// A loan of whole pages of a [`Mapping`] that others share; cloning it is cheap.
///
/// Contents may change underneath: by other loans, by fills, by a discard. They are therefore copied,
/// never borrowed:
///
/// ```compile_fail,E0277
/// # use std::sync::Arc;
/// # use userfault_memory::{Mapping, Protection, page_size};
/// # let mapping = Arc::new(Mapping::reserve(page_size(), Protection::ReadWrite).unwrap());
/// let shared = mapping.shared(0..page_size()).unwrap();
/// fn bytes(_: impl AsRef<[u8]>) {}
/// bytes(shared);
/// ```
///
/// Accesses are plain loads and stores for the machine: they fault as such, at the address of the aligned
/// 8-byte word that holds the first byte, low words first.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use userfault_memory::{AccessError, Mapping, Protection, page_size};
///
/// let mapping = Arc::new(Mapping::reserve(page_size(), Protection::ReadWrite)?);
/// let (writer, reader) = (mapping.shared(mapping.range())?, mapping.shared(mapping.range())?);
/// writer.write(3, b"words")?;
/// let mut bytes = [0; 7];
/// reader.read(2, &mut bytes)?;
/// assert_eq!(&bytes, b"\0words\0");
/// assert!(matches!(reader.read(page_size(), &mut bytes), Err(AccessError::OutOfBounds { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shared {
    loan: Arc<Loan>,
}

/// One claim, however many clones.
#[derive(Debug)]
struct Loan {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.mapping.claims().end_shared(&self.range);
    }
}

impl Shared {
    /// `range` was checked against `mapping` and claimed.
    pub(crate) fn new(mapping: Arc<Mapping>, range: &PageRange) -> Self {
        Self { loan: Arc::new(Loan { mapping, range: range.bytes() }) }
    }

    /// Where it lies, in bytes from the start of the mapping.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.loan.range.clone()
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.loan.mapping.base() + self.loan.range.start
    }

    /// Bytes; a non-zero multiple of the page size.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a loan has at least one page")]
    pub fn len(&self) -> usize {
        self.loan.range.len()
    }

    /// The mapping it is lent from.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.loan.mapping
    }

    /// Copies the bytes from `offset` on into `target`.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`]; nothing is copied then.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), AccessError> {
        self.check(offset, target.len())?;
        let span = Span::of(offset, target.len());
        let words = self.words();
        let (head, rest) = target.split_at_mut(span.head);
        if !head.is_empty() {
            let word = words[offset / WORD].load(Relaxed).to_ne_bytes();
            head.copy_from_slice(&word[offset % WORD..][..head.len()]);
        }
        let (body, tail) = rest.as_chunks_mut::<WORD>();
        for (target, word) in body.iter_mut().zip(&words[span.body.clone()]) {
            *target = word.load(Relaxed).to_ne_bytes();
        }
        if !tail.is_empty() {
            let word = words[span.body.end].load(Relaxed).to_ne_bytes();
            tail.copy_from_slice(&word[..tail.len()]);
        }
        Ok(())
    }

    /// Copies `source` to the bytes from `offset` on; other bytes are unchanged.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`]; nothing is copied then.
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<(), AccessError> {
        self.check(offset, source.len())?;
        let span = Span::of(offset, source.len());
        let words = self.words();
        let (head, rest) = source.split_at(span.head);
        if !head.is_empty() {
            merge(&words[offset / WORD], offset % WORD, head);
        }
        let (body, tail) = rest.as_chunks::<WORD>();
        for (source, word) in body.iter().zip(&words[span.body.clone()]) {
            word.store(u64::from_ne_bytes(*source), Relaxed);
        }
        if !tail.is_empty() {
            merge(&words[span.body.end], 0, tail);
        }
        Ok(())
    }

    /// The index in `expected` of the first byte that differs from the bytes from `offset` on.
    ///
    /// A byte behind the end of the loan differs from any.
    #[must_use]
    pub fn compare(&self, offset: usize, expected: &[u8]) -> Option<usize> {
        let there = self.len().saturating_sub(offset).min(expected.len());
        let (inside, outside) = expected.split_at(there);
        let behind_the_end = (!outside.is_empty()).then_some(there);
        if inside.is_empty() {
            return behind_the_end;
        }
        let span = Span::of(offset, there);
        let words = self.words();
        let (head, rest) = inside.split_at(span.head);
        let (body, tail) = rest.as_chunks::<WORD>();
        let in_head = || {
            let word = words.get(offset / WORD).filter(|_| !head.is_empty())?.load(Relaxed).to_ne_bytes();
            differs(&word[offset % WORD..], head)
        };
        let in_body = || {
            let mut pairs = body.iter().zip(&words[span.body.clone()]).enumerate();
            pairs.find_map(|(at, (expected, word))| {
                let seen = word.load(Relaxed);
                if seen == u64::from_ne_bytes(*expected) {
                    return None;
                }
                Some(span.head + at * WORD + differs(&seen.to_ne_bytes(), expected)?)
            })
        };
        let in_tail = || {
            let word = words.get(span.body.end).filter(|_| !tail.is_empty())?.load(Relaxed).to_ne_bytes();
            Some(there - tail.len() + differs(&word, tail)?)
        };
        in_head().or_else(in_body).or_else(in_tail).or(behind_the_end)
    }

    /// Ends the contents of `range`, in bytes from the start of the loan, by `MADV_DONTNEED`.
    ///
    /// For memory that the kernel alone decides about; see [`Window::discard_plain`](crate::Window::discard_plain).
    ///
    /// # Errors
    ///
    /// [`DiscardError`]; its variants say what is unchanged.
    pub fn discard_plain(&self, range: Range<usize>) -> Result<(), DiscardError> {
        let checked = PageRange::check(&range, self.len())?.shifted(self.loan.range.start);
        // SAFETY: no slice of these bytes exists (invariant 2).
        let answer = unsafe { self.loan.mapping.raw().advise(&checked, Advice::DontNeed) };
        answer.map_err(|errno| DiscardError::Os { errno })
    }

    fn check(&self, offset: usize, len_bytes: usize) -> Result<(), AccessError> {
        match self.len().checked_sub(offset) {
            Some(rest) if len_bytes <= rest => Ok(()),
            _ => Err(AccessError::OutOfBounds { offset, len_bytes, limit_bytes: self.len() }),
        }
    }

    fn words(&self) -> &[AtomicU64] {
        let range = &self.loan.range;
        // SAFETY: the range lies in the mapping (invariant 1).
        let start = unsafe { self.loan.mapping.as_ptr().add(range.start) };
        // SAFETY: page-aligned whole words (1), mapped for as long as the borrow (3), which no slice of other
        // types overlaps (2); atomics may be changed by others, and are accessed in one size only (4).
        unsafe { slice::from_raw_parts(start.cast::<AtomicU64>(), range.len() / WORD) }
    }
}

/// How `[offset, offset + len)` lies over words.
struct Span {
    /// Bytes before the first whole word.
    head: usize,
    /// Whole words.
    body: Range<usize>,
}

impl Span {
    fn of(offset: usize, len: usize) -> Self {
        let head = (offset.next_multiple_of(WORD) - offset).min(len);
        let first = (offset + head) / WORD;
        // A range that ends inside its first word has no body; its words are then not looked at.
        Self { head, body: first..first + (len - head) / WORD }
    }
}

/// Puts `bytes` at `skip` into `word` and keeps the others, whatever they become meanwhile.
fn merge(word: &AtomicU64, skip: usize, bytes: &[u8]) {
    let mut guess = 0;
    loop {
        let mut merged = u64::to_ne_bytes(guess);
        merged[skip..][..bytes.len()].copy_from_slice(bytes);
        match word.compare_exchange_weak(guess, u64::from_ne_bytes(merged), Relaxed, Relaxed) {
            Ok(_) => return,
            Err(seen) => guess = seen,
        }
    }
}

fn differs(there: &[u8], expected: &[u8]) -> Option<usize> {
    there.iter().zip(expected).position(|(a, b)| a != b)
}
