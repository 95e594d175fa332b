//! Sources that may run in a handler: a file, bytes in memory, zeros.
//!
//! Invariants:
//!
//! 1. Nothing called from a `fill` here allocates, locks, panics, or is a cancellation point: slices are cut by
//!    checked methods, and files are read by the system call itself.
//! 2. The memory behind [`Bytes`] is never changed or freed while it lives.
#![expect(unsafe_code, reason = "promises what a signal handler may do; the two invariants above are the proof")]

use core::fmt;
use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{AskMonitor, InlineSource};
use crate::sys;

/// The bytes of an open regular file, as long as it was when this was made, with zeros behind its end.
///
/// Clones read the same open file.
///
/// # Examples
///
/// ```
/// use std::{fs::File, sync::Arc};
/// use userfault_signal::FileBytes;
///
/// let file = FileBytes::new(Arc::new(File::open("/proc/self/exe")?))?;
/// let mut magic = [0; 4];
/// file.read_padded(0, &mut magic).unwrap();
/// assert_eq!(&magic, b"\x7fELF");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileBytes {
    file: Arc<File>,
    len: u64,
}

/// Why bytes of a file cannot be had.
///
/// Example: [`FileBytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The file ends at `offset` now, before the end it had.
    Ended {
        /// In bytes.
        offset: u64,
    },
    /// Reading failed.
    Os {
        /// Where, in bytes.
        offset: u64,
        /// The error number.
        errno: i32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { offset } => write!(f, "the file became shorter: it ends at byte {offset} now"),
            Self::Os { offset, errno } => {
                write!(f, "reading at byte {offset} failed: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl core::error::Error for ReadError {}

impl FileBytes {
    /// Takes a file that can be read at an offset.
    ///
    /// # Errors
    ///
    /// Those of [`File::metadata`].
    pub fn new(file: Arc<File>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its length in bytes when this was made.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.len
    }

    /// Reads the bytes from `offset` on; those behind the end are set to zero. Async-signal-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; `into` holds anything then.
    pub fn read_padded(&self, offset: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let (mut rest, padding) = into.split_at_mut_checked(there).unwrap_or_default();
        padding.fill(0);
        let mut at = offset;
        while !rest.is_empty() {
            match sys::read_at(self.file.as_fd(), rest, at) {
                Ok(0) => return Err(ReadError::Ended { offset: at }),
                Ok(count) => {
                    at = at.saturating_add(count as u64);
                    rest = rest.get_mut(count..).unwrap_or_default();
                }
                Err(libc::EINTR) => {}
                Err(errno) => return Err(ReadError::Os { offset: at, errno }),
            }
        }
        Ok(())
    }
}

// SAFETY: invariant 1.
unsafe impl InlineSource for FileBytes {
    fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
        let offset = offset(&pages, into).ok_or(AskMonitor)?;
        self.read_padded(offset as u64, into).map_err(|_| AskMonitor)
    }
}

/// Bytes in memory, with zeros behind their end.
///
/// They must not lie in the region they are the contents of.
///
/// # Examples
///
/// ```
/// use userfault_signal::{AskMonitor, Bytes, InlineSource};
///
/// let bytes = Bytes::from(&b"contents"[..]);
/// let mut into = [0xFF; 6];
/// bytes.fill(1..2, &mut into)?; // the second page, if pages had 6 bytes
/// assert_eq!(&into, b"ts\0\0\0\0");
/// # Ok::<(), AskMonitor>(())
/// ```
#[derive(Clone)]
pub struct Bytes(Held);

#[derive(Clone)]
enum Held {
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl Bytes {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Held::Shared(bytes) => bytes,
            Held::Static(bytes) => bytes,
        }
    }

    /// Copies the contents of `pages`, of which `into` has room for all, and zeros behind the end.
    pub fn copy_pages(&self, pages: &Range<usize>, into: &mut [u8]) {
        let from = offset(pages, into).and_then(|offset| self.as_slice().get(offset..)).unwrap_or_default();
        let there = from.len().min(into.len());
        let (copied, padding) = into.split_at_mut_checked(there).unwrap_or_default();
        for (to, from) in copied.iter_mut().zip(from) {
            *to = *from;
        }
        padding.fill(0);
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("len", &self.as_slice().len()).finish()
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Held::Shared(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Shared(bytes.into()))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Held::Static(bytes))
    }
}

// SAFETY: invariants 1 and 2.
unsafe impl InlineSource for Bytes {
    fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
        self.copy_pages(&pages, into);
        Ok(())
    }
}

/// Zeros.
///
/// # Examples
///
/// ```
/// use userfault_signal::{InlineSource, Zeros};
///
/// let mut into = [1; 8];
/// assert!(Zeros.fill(0..2, &mut into).is_ok());
/// assert_eq!(into, [0; 8]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Zeros;

// SAFETY: invariant 1.
unsafe impl InlineSource for Zeros {
    fn fill(&self, _pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
        into.fill(0);
        Ok(())
    }
}

/// Where the bytes of `pages` begin, if `into` is as long as they are.
fn offset(pages: &Range<usize>, into: &[u8]) -> Option<usize> {
    let page_size = into.len().checked_div(pages.len())?;
    pages.start.checked_mul(page_size)
}

#[cfg(test)]
mod tests {
    use super::{Bytes, FileBytes, ReadError, Zeros};
    use crate::inline::{AskMonitor, InlineSource};
    use std::fs::File;
    use std::sync::Arc;

    fn sources(content: &[u8]) -> (FileBytes, Bytes) {
        let path = std::env::temp_dir().join(format!("userfault-inline-{}-{}", std::process::id(), content.len()));
        std::fs::write(&path, content).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (FileBytes::new(Arc::new(file)).unwrap(), Bytes::from(content.to_vec()))
    }

    #[test]
    fn a_file_and_bytes_give_what_they_hold_and_zeros_behind_it_and_overwrite_all_of_the_buffer() {
        let content: Vec<u8> = (0..10).map(|at| at + 1).collect();
        let (file, bytes) = sources(&content);
        for (pages, expected) in [
            (0..1, vec![1, 2, 3, 4]),
            (1..3, vec![5, 6, 7, 8, 9, 10, 0, 0]),
            (2..4, vec![9, 10, 0, 0, 0, 0, 0, 0]),
            (3..4, vec![0; 4]),
            (usize::MAX - 1..usize::MAX, vec![0; 4]),
        ] {
            let mut into = [vec![0xEE; expected.len()], vec![0xEE; expected.len()], vec![0xEE; expected.len()]];
            let [of_file, of_bytes, zeros] = &mut into;
            if pages.start < 1000 {
                file.fill(pages.clone(), of_file).unwrap();
                assert_eq!(of_file, &expected, "{pages:?}");
            } else {
                assert_eq!(file.fill(pages.clone(), of_file), Err(AskMonitor), "beyond every address");
            }
            bytes.fill(pages.clone(), of_bytes).unwrap();
            Zeros.fill(pages, zeros).unwrap();
            assert_eq!(of_bytes, &expected);
            assert!(zeros.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_the_monitors_business() {
        let (file, _) = sources(&[7; 11]);
        file.file().set_len(9).unwrap();
        file.fill(0..2, &mut [0; 8]).unwrap();
        assert_eq!(file.fill(1..3, &mut [0; 8]), Err(AskMonitor));
        assert_eq!(file.read_padded(8, &mut [0; 4]), Err(ReadError::Ended { offset: 9 }));
    }
}
