//! Answering a fault in the thread that has it: the bytes come from an [`InlineSource`], in the handler.
//!
//! A fault that is answered inline costs no message, no second thread and no sleep. What can go wrong stays
//! with the monitor: a source that cannot say [`AskMonitor`], and the fault is told as any other.
//!
//! ```text
//! handler ── Place::enter ──> Answers::answer(page, install)
//!                              window → buffer → source.fill → install(first page, bytes)
//!                                └─ no buffer free, no bytes ──> AskMonitor: the thread sleeps, a monitor answers
//! ```
//!
//! [`Place`] is how a handler finds what somebody else may take away; [`Answers`] is what it finds there.
//!
//! Invariant:
//!
//! 1. Who implements [`InlineSource`] keeps its contract; here the sources of `sources.rs`, by inspection.
//!
//! Kernel counterpart: the SIGBUS feature of `userfaultfd(2)`, with a handler that copies.
#![expect(unsafe_code, reason = "declares the contract of what runs in a handler; see the invariant above")]

mod answers;
mod buffers;
mod place;
mod sources;

use core::ops::Range;

pub use answers::{Answers, AnswersError, InlineCounts};
pub use place::{Entered, Place};
pub use sources::{Bytes, FileBytes, ReadError, Zeros};

/// The contents cannot be had inline, or not now: the monitor is to be asked.
///
/// Says nothing of the reason: the monitor's own source meets it again in an ordinary thread, and reports it.
///
/// Example: [`InlineSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskMonitor;

/// Contents of pages that a signal handler can fetch.
///
/// # Safety
///
/// [`fill`](Self::fill) runs in a signal handler that may have interrupted any instruction of any thread:
/// malloc, a destructor, code under a lock. It therefore
///
/// * allocates and frees nothing, and takes no lock and waits for nothing that interrupted code may hold;
/// * does not panic, and initialises no thread local;
/// * returns: it neither jumps out nor ends the thread (of the C library's calls those that are cancellation
///   points may do so: make the system calls themselves);
/// * needs less than 16 KiB of stack;
/// * does not touch the memory whose contents it brings: that would be a fault within its own answer;
/// * may be called by several threads at once.
///
/// # Examples
///
/// ```
/// use std::ops::Range;
/// use userfault_signal::{AskMonitor, InlineSource};
///
/// /// Each page is full of its own number, up to 255.
/// struct Numbers;
///
/// // SAFETY: nothing but arithmetic and a fill of what is given.
/// unsafe impl InlineSource for Numbers {
///     fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
///         let page_size = into.len().checked_div(pages.len()).filter(|size| *size > 0).ok_or(AskMonitor)?;
///         for (page, bytes) in pages.zip(into.chunks_exact_mut(page_size)) {
///             bytes.fill(u8::try_from(page).map_err(|_| AskMonitor)?);
///         }
///         Ok(())
///     }
/// }
///
/// let mut into = [0; 8];
/// assert_eq!(Numbers.fill(3..5, &mut into), Ok(()));
/// assert_eq!(into, [3, 3, 3, 3, 4, 4, 4, 4]);
/// assert_eq!(Numbers.fill(256..257, &mut into), Err(AskMonitor));
/// ```
pub unsafe trait InlineSource: Send + Sync + 'static {
    /// Writes the contents of `pages`, counted from the start of the region, to the whole of `into`, which has
    /// `pages × page_size` bytes and holds anything.
    ///
    /// Asked again for the same page, it gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`AskMonitor`]; nothing of `into` is used then.
    fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor>;
}
