//! Where a monitor gets the contents of pages from.
//!
//! Kernel counterpart: none.

use core::fmt;
use core::ops::Range;
use std::io;

/// Contents of pages, on demand.
///
/// Implemented for closures `FnMut(Range<usize>, &mut [u8]) -> Result<(), SourceError>` and for
/// [`FileSource`](crate::FileSource).
///
/// It runs in the monitor's thread. It must not touch the region it is the source of: nobody could answer
/// that fault.
///
/// # Examples
///
/// ```
/// use std::ops::Range;
/// use userfault::{RegisterModes, Source, SourceError, prelude::*};
///
/// /// Text that is repeated for ever, whatever the page size.
/// struct Repeated(&'static [u8]);
///
/// impl Source for Repeated {
///     fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
///         let start = pages.start * (into.len() / pages.len());
///         let text = self.0.iter().cycle().skip(start % self.0.len());
///         into.iter_mut().zip(text).for_each(|(into, byte)| *into = *byte);
///         Ok(())
///     }
/// }
///
/// let uffd = userfault::open()?;
/// let region = uffd.map(1 << 20, RegisterModes::MISSING)?;
/// let _monitor = uffd.serve(&region, Repeated(b"over and "))?;
/// let window = region.window(0..region.pages())?;
/// assert_eq!(&window.as_ref()[9_000_000..9_000_015], b"over and over a");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Source: Send + 'static {
    /// Writes the contents of `pages`, counted from the start of the region, to `into`, which has
    /// `pages × page_size` bytes, all zero.
    ///
    /// May be asked for the same page again: after a discard, or because two threads touched it at once.
    /// It must then give the same bytes.
    ///
    /// # Errors
    ///
    /// A [`SourceError`] if they cannot be had. Nothing of `into` is used then. Asked for several pages, it
    /// is asked again for the one that a thread waits for; if that fails too, the thread gets SIGBUS.
    ///
    /// # Panics
    ///
    /// A panic is an error, and the source is not asked again.
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError>;
}

impl<F> Source for F
where
    F: FnMut(Range<usize>, &mut [u8]) -> Result<(), SourceError> + Send + 'static,
{
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        self(pages, into)
    }
}

/// Why contents cannot be had.
///
/// ```
/// use userfault::SourceError;
///
/// let error = SourceError::Shrunk { expected: 10, found: 9 };
/// assert!(error.to_string().starts_with("it had 10 bytes when it was opened and has 9 now"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceError {
    /// Reading failed.
    Read {
        /// Where, in bytes from the start of what is read.
        offset: u64,
        /// How.
        error: io::Error,
    },
    /// What is read became shorter than it was when it was opened.
    Shrunk {
        /// Its length in bytes then.
        expected: u64,
        /// Its length in bytes now.
        found: u64,
    },
    /// What a source of the program's own has to say.
    Other(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { offset, error } => write!(f, "reading at byte {offset} failed: {error}"),
            Self::Shrunk { expected, found } => write!(
                f,
                "it had {expected} bytes when it was opened and has {found} now: \
                 keep others from writing to it, or work on a copy"
            ),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl core::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Shrunk { .. } | Self::Other(_) => None,
        }
    }
}

impl From<String> for SourceError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<&str> for SourceError {
    fn from(message: &str) -> Self {
        Self::Other(message.to_owned())
    }
}
