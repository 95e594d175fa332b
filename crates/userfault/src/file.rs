//! A file as the contents of a region.
//!
//! Kernel counterpart: a private file mapping, but for its SIGBUS: a page of a file that became shorter is
//! an error with a name.

use core::ops::Range;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use userfault_signal::{FileBytes, ReadError};

use crate::inline::AnswerInline;
use crate::source::{Source, SourceError};

/// A regular file, as long as it was when it was opened, with zeros up to the end of its last page.
///
/// Clones read the same open file.
///
/// # Examples
///
/// ```
/// use userfault::{FileSource, RegisterModes, prelude::*};
///
/// let file = FileSource::open("/proc/self/exe")?;
/// let len = usize::try_from(file.len_bytes())?;
/// let uffd = userfault::open()?;
/// let region = uffd.map(file.pages(uffd.capabilities().page_size), RegisterModes::MISSING)?;
/// let monitor = uffd.serve(&region, file)?;
/// let window = region.window(0..region.pages())?;
/// let last = window.as_ref()[len - 1]; // one page is read from the file
/// assert_eq!(std::fs::read("/proc/self/exe")?[len - 1], last);
/// assert_eq!(monitor.join()?.pages_filled, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    bytes: FileBytes,
}

impl FileSource {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// Those of [`File::open`], and [`io::ErrorKind::InvalidInput`] for what is no regular file (a pipe is
    /// not even opened, which would wait for a writer).
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        check(&fs::metadata(path)?)?;
        Self::new(File::open(path)?)
    }

    /// Takes an open file.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn new(file: File) -> io::Result<Self> {
        check(&file.metadata()?)?;
        let bytes = FileBytes::new(Arc::new(file))?;
        // Files of /proc and the like say they are empty, whatever they hold.
        if bytes.len_bytes() == 0 && bytes.file().read_at(&mut [0], 0)? > 0 {
            return Err(refused("it says that it is empty but has contents, as files in /proc do; copy it first"));
        }
        Ok(Self { bytes })
    }

    /// Its length in bytes when it was opened.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.bytes.len_bytes()
    }

    /// How many pages it fills, the last one perhaps in part.
    #[must_use]
    pub fn pages(&self, page_size: usize) -> usize {
        usize::try_from(self.len_bytes().div_ceil(page_size as u64)).unwrap_or(usize::MAX)
    }

    /// Reads the bytes from `offset` on; those behind the end are set to zero.
    ///
    /// # Errors
    ///
    /// [`SourceError::Read`], and [`SourceError::Shrunk`] if a byte is gone that was there at first.
    pub fn read_padded(&self, offset: u64, into: &mut [u8]) -> Result<(), SourceError> {
        self.bytes.read_padded(offset, into).map_err(|error| match error {
            ReadError::Ended { offset } => self.shrunk(offset),
            ReadError::Os { offset, errno } => SourceError::Read { offset, error: io::Error::from_raw_os_error(errno) },
        })
    }

    /// Whether it is at least as long as when it was opened.
    ///
    /// # Errors
    ///
    /// [`SourceError::Shrunk`], or [`SourceError::Read`] if that cannot be found out.
    pub fn check_length(&self) -> Result<(), SourceError> {
        let metadata = self.bytes.file().metadata();
        let found = metadata.map_err(|error| SourceError::Read { offset: 0, error })?.len();
        let expected = self.len_bytes();
        if found < expected { Err(SourceError::Shrunk { expected, found }) } else { Ok(()) }
    }

    /// It ended at `at`, too early.
    fn shrunk(&self, at: u64) -> SourceError {
        let found = self.bytes.file().metadata().map_or(at, |metadata| metadata.len());
        SourceError::Shrunk { expected: self.len_bytes(), found: found.min(at) }
    }
}

impl AnswerInline for FileSource {
    type Inline = FileBytes;

    fn inline(&self) -> FileBytes {
        self.bytes.clone()
    }
}

impl Source for FileSource {
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        let page_size = into.len() / pages.len().max(1);
        self.read_padded(pages.start as u64 * page_size as u64, into)
    }
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "it is a directory, not a regular file; name a file in it"
    } else if kind.is_fifo() || kind.is_socket() {
        "it is a pipe or socket, which cannot be read at an offset; write its contents to a regular file first"
    } else {
        "it is a device, not a regular file; copy what is needed of it to a file first"
    };
    Err(refused(what))
}

fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::FileSource;
    use crate::source::SourceError;
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::path::PathBuf;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("userfault-file-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_read_gives_the_bytes_of_the_file_and_zeros_behind_its_end() {
        let path = path("padded");
        fs::write(&path, [7; 10]).unwrap();
        let source = FileSource::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for (offset, expected, why) in [
            (0, [7, 7, 7, 7], "inside"),
            (6, [7, 7, 7, 7], "up to the end"),
            (7, [7, 7, 7, 0], "over the end"),
            (10, [0; 4], "from the end"),
            (u64::MAX, [0; 4], "far behind"),
        ] {
            let mut into = [1; 4];
            source.read_padded(offset, &mut into).unwrap();
            assert_eq!(into, expected, "{why}");
        }
        assert_eq!([source.pages(1), source.pages(10), source.pages(11)], [10, 1, 1]);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_that_tells_both_lengths() {
        let path = path("shrunk");
        fs::write(&path, [7; 10]).unwrap();
        let source = FileSource::open(&path).unwrap();
        source.check_length().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(9).unwrap();
        fs::remove_file(&path).unwrap();
        source.read_padded(0, &mut [0; 9]).unwrap();
        for error in [source.read_padded(0, &mut [0; 10]).unwrap_err(), source.check_length().unwrap_err()] {
            assert!(matches!(error, SourceError::Shrunk { expected: 10, found: 9 }), "{error}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_with_a_reason() {
        for (path, word) in [("/tmp", "directory"), ("/dev/null", "device"), ("/proc/cpuinfo", "/proc")] {
            let error = FileSource::open(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
