//! What a handler needs to answer the faults of one region: a source, how much at once, room, and counters.
//!
//! # Ordering
//!
//! The counters are relaxed: each is exact for itself, and nothing is decided by them.

use core::fmt;
use core::ops::Range;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::buffers::Buffers;
use super::{AskMonitor, InlineSource};

/// The faults of a region of `pages` pages, answered inline in aligned windows.
///
/// # Examples
///
/// ```
/// use userfault_signal::{Answers, Bytes};
///
/// let answers = Answers::new(Bytes::from(vec![7; 10_000]), 3, 4096, 2)?;
/// let (mut first, mut brought) = (None, Vec::new());
/// let answered = answers.answer(1, |page, bytes| {
///     (first, brought) = (Some(page), bytes.to_vec());
///     Ok(2)
/// });
/// assert!(answered.is_ok());
/// assert_eq!((first, brought), (Some(0), vec![7; 2 * 4096]), "the whole window");
/// # Ok::<(), userfault_signal::AnswersError>(())
/// ```
pub struct Answers {
    source: Box<dyn InlineSource>,
    page_size: usize,
    pages: usize,
    window: usize,
    buffers: Buffers,
    faults: AtomicU64,
    filled: AtomicU64,
}

/// What was answered inline.
///
/// Example: [`Answers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InlineCounts {
    /// Faults whose own thread answered them.
    pub faults: u64,
    /// Pages brought.
    pub pages_filled: u64,
}

/// Why there is no room for buffers.
///
/// Example: [`Answers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswersError {
    /// The error number of `mmap`.
    pub errno: i32,
}

impl fmt::Display for AnswersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "mapping buffers for inline answers failed: {error}; answer fewer pages at once")
    }
}

impl core::error::Error for AnswersError {}

impl Answers {
    /// As many threads can be answered inline at once; others ask the monitor. Each needs memory for a window.
    pub const AT_ONCE: usize = super::buffers::COUNT;

    /// For a region of `pages` pages of `page_size` bytes; `window` pages are brought at once, at least 1.
    ///
    /// # Errors
    ///
    /// [`AnswersError`].
    pub fn new(source: impl InlineSource, pages: usize, page_size: usize, window: usize) -> Result<Self, AnswersError> {
        let window = window.clamp(1, pages.max(1));
        let bytes = window.checked_mul(page_size).ok_or(AnswersError { errno: libc::ENOMEM })?;
        let buffers = Buffers::new(bytes).map_err(|errno| AnswersError { errno })?;
        let (faults, filled) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { source: Box::new(source), page_size, pages, window, buffers, faults, filled })
    }

    /// Brings `page` and the other pages of its window, by `install(first page, bytes)`, which says how many
    /// pages it has filled; those that have contents it leaves alone. Async-signal-safe if `install` is.
    ///
    /// Where the window cannot be had as a whole, the page alone is tried.
    ///
    /// # Errors
    ///
    /// [`AskMonitor`]: the page has no contents, as far as this thread knows.
    pub fn answer(
        &self,
        page: usize,
        install: impl FnOnce(usize, &[u8]) -> Result<usize, AskMonitor>,
    ) -> Result<(), AskMonitor> {
        let window = self.window_of(page).ok_or(AskMonitor)?;
        let mut buffer = self.buffers.take().ok_or(AskMonitor)?;
        let bytes = buffer.bytes();
        let pages = if self.fetch(&window, bytes).is_ok() {
            window
        } else {
            let alone = page..page.saturating_add(1);
            if window == alone {
                return Err(AskMonitor);
            }
            self.fetch(&alone, bytes)?;
            alone
        };
        let brought = bytes.get(..self.bytes_of(&pages)).ok_or(AskMonitor)?;
        let filled = install(pages.start, brought)?;
        self.faults.fetch_add(1, Relaxed);
        self.filled.fetch_add(filled as u64, Relaxed);
        Ok(())
    }

    /// What was answered so far.
    #[must_use]
    pub fn counts(&self) -> InlineCounts {
        InlineCounts { faults: self.faults.load(Relaxed), pages_filled: self.filled.load(Relaxed) }
    }

    /// How many pages the region has.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// The aligned group that `page` lies in, cut at the end of the region.
    fn window_of(&self, page: usize) -> Option<Range<usize>> {
        let start = page - page.checked_rem(self.window)?;
        (page < self.pages).then(|| start..start.saturating_add(self.window).min(self.pages))
    }

    fn bytes_of(&self, pages: &Range<usize>) -> usize {
        pages.len().saturating_mul(self.page_size)
    }

    fn fetch(&self, pages: &Range<usize>, buffer: &mut [u8]) -> Result<(), AskMonitor> {
        let into = buffer.get_mut(..self.bytes_of(pages)).ok_or(AskMonitor)?;
        self.source.fill(pages.clone(), into)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, window, .. } = self;
        f.debug_struct("Answers").field("pages", pages).field("window", window).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Answers, InlineCounts};
    use crate::inline::{AskMonitor, Bytes, FileBytes, Zeros};
    use std::fs::File;
    use std::sync::Arc;

    #[test]
    fn a_window_is_an_aligned_group_cut_at_the_end_of_the_region() {
        let content: Vec<u8> = (1..=10).collect();
        for (pages, window, page, expected) in [
            (10, 1, 4, 4..5),
            (10, 3, 4, 3..6),
            (10, 3, 9, 9..10),
            (10, 4, 9, 8..10),
            (10, 16, 3, 0..10),
            (10, 0, 9, 9..10),
            (1, 1, 0, 0..1),
        ] {
            let answers = Answers::new(Bytes::from(content.clone()), pages, 1, window).unwrap();
            let mut seen = None;
            let install = |first: usize, bytes: &[u8]| {
                seen = Some((first, bytes.to_vec()));
                Ok(bytes.len())
            };
            answers.answer(page, install).unwrap();
            assert_eq!(seen, Some((expected.start, content[expected.clone()].to_vec())), "{page} by {window}");
            assert_eq!(answers.counts(), InlineCounts { faults: 1, pages_filled: expected.len() as u64 });
        }
    }

    #[test]
    fn what_cannot_be_had_or_is_not_there_is_the_monitors() {
        let answers = Answers::new(Zeros, 4, 1, 4).unwrap();
        let never = |_: usize, _: &[u8]| -> Result<usize, AskMonitor> { panic!("nothing to install") };
        assert_eq!(answers.answer(4, never), Err(AskMonitor), "outside");
        assert_eq!(answers.answer(0, |_, _| Err(AskMonitor)), Err(AskMonitor), "not installed");
        let held: Vec<_> = (0..Answers::AT_ONCE).map(|_| answers.buffers.take().unwrap()).collect();
        assert_eq!(answers.answer(0, never), Err(AskMonitor), "no buffer");
        drop(held);
        assert_eq!(answers.counts(), InlineCounts::default());
        answers.answer(0, |_, bytes| Ok(bytes.len())).unwrap();
    }

    #[test]
    fn where_a_window_cannot_be_read_as_a_whole_the_page_alone_is_brought() {
        let path = std::env::temp_dir().join(format!("userfault-answers-{}", std::process::id()));
        std::fs::write(&path, [7; 8]).unwrap();
        let file = Arc::new(File::options().read(true).write(true).open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let answers = Answers::new(FileBytes::new(Arc::clone(&file)).unwrap(), 8, 1, 4).unwrap();
        file.set_len(6).unwrap();
        for (page, expected) in [(0, Ok((0, 4))), (5, Ok((5, 1))), (6, Err(AskMonitor))] {
            let mut seen = (0, 0);
            let answered = answers.answer(page, |first, bytes| {
                assert!(bytes.iter().all(|byte| *byte == 7));
                seen = (first, bytes.len());
                Ok(bytes.len())
            });
            assert_eq!(answered.map(|()| seen), expected, "page {page}");
        }
        assert_eq!(answers.counts(), InlineCounts { faults: 2, pages_filled: 5 });
    }
}
