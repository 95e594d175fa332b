//! Sources that a faulting thread can answer from itself, in its signal handler.
//!
//! The monitor of such a source is asked only where the thread cannot: see
//! [`MonitorBuilder::serve_inline`](crate::MonitorBuilder::serve_inline).
//!
//! Kernel counterpart: the SIGBUS feature of `userfaultfd(2)`.

use core::ops::Range;
use std::sync::Arc;

use userfault_client::{Region as _, UffdError};
use userfault_linux as linux;
use userfault_process as process;
use userfault_signal::{self as signal, InlineCounts, InlineSource};

use crate::either::{Either, Region, either};
use crate::source::{Source, SourceError};

/// A source that has a form for signal handlers, with the same contents.
///
/// [`FileSource`](crate::FileSource), [`Bytes`] and [`Zeros`] are such. A program's own keeps the contract of
/// the unsafe trait [`InlineSource`]; where it cannot say, or not now, the monitor asks the source itself.
///
/// Example: [`Bytes`].
pub trait AnswerInline: Source {
    /// The form for signal handlers.
    type Inline: InlineSource;

    /// Makes it.
    fn inline(&self) -> Self::Inline;
}

/// Bytes in memory as the contents of a region, with zeros behind their end. Clones share them.
///
/// # Examples
///
/// ```
/// use userfault::{AlternateStack, Builder, Bytes, RegisterModes, prelude::*};
///
/// let uffd = Builder::new().answer_inline().open()?;
/// let region = uffd.map(2, RegisterModes::MISSING)?;
/// let monitor = uffd.monitor(&region).serve_inline(Bytes::from(vec![7; 5000]))?;
/// // This thread answers itself.
/// let _large = AlternateStack::ensure(0)?;
/// let window = region.window(0..2)?;
/// assert_eq!((window.as_ref()[4999], window.as_ref()[5000]), (7, 0));
/// assert_eq!(monitor.join()?.faults_inline, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bytes(signal::Bytes);

/// A region of zeros.
///
/// Example: [`Bytes`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Zeros;

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(bytes.into())
    }
}

impl Source for Bytes {
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        self.0.copy_pages(&pages, into);
        Ok(())
    }
}

impl AnswerInline for Bytes {
    type Inline = signal::Bytes;

    fn inline(&self) -> signal::Bytes {
        self.0.clone()
    }
}

impl Source for Zeros {
    fn fill(&mut self, _pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        into.fill(0);
        Ok(())
    }
}

impl AnswerInline for Zeros {
    type Inline = signal::Zeros;

    fn inline(&self) -> signal::Zeros {
        signal::Zeros
    }
}

/// Has faulting threads answer themselves, for as long as it lives.
///
/// Example: [`process::Region::answer_inline`].
pub type Inline = Either<linux::Inline, process::Inline>;

impl Region {
    /// Has threads that touch missing pages bring them from `source` themselves, in groups of `window`; what
    /// they cannot is an event, as [`process::Region::answer_inline`] and [`linux::Region::answer_inline`] say.
    ///
    /// For programs with a monitor of their own; [`serve_inline`](crate::MonitorBuilder::serve_inline) does both.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotInline`], [`UffdError::System`].
    pub fn answer_inline(&self, source: impl InlineSource, window: usize) -> Result<Inline, UffdError> {
        let window = window.clamp(1, self.pages());
        match self {
            Self::Linux(region) => region.answer_inline(source, window).map(Either::Linux),
            Self::Process(region) => region.answer_inline(source, window).map(Either::Process),
        }
    }
}

impl Inline {
    /// What was answered inline.
    #[must_use]
    pub fn counts(&self) -> InlineCounts {
        either!(self, inline => inline.counts())
    }

    /// Ends it, as a drop does, and tells what was answered in all.
    ///
    /// # Blocking
    ///
    /// Until the source has returned to every thread that is in it.
    #[must_use]
    pub fn end(self) -> InlineCounts {
        either!(self, inline => inline.end())
    }
}
