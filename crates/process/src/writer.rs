//! Bringing bytes to memory by system calls: a source that cannot be read is an answer, never a fault.
//!
//! ```text
//! Forced   pwrite to /proc/self/mem     the target may allow anything
//! Direct   process_vm_readv on oneself  the target must be writable
//! Pipe     through a pipe               the same; where a sandbox refuses the other two
//! ```
//!
//! Everything here is async-signal-safe.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::pipe::PipeFlags;
use userfault_abi::errno::Errno;
use userfault_engine::Lock;

use crate::lock::FutexLock;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Span};

/// How bytes are written.
pub(crate) enum Writer {
    Forced(File),
    Direct,
    /// One transfer at a time.
    Pipe(FutexLock<Pipe>),
}

impl Writer {
    /// Opens the process's own mem file.
    pub(crate) fn forced() -> Result<Self, Errno> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/proc/self/mem");
        file.map(Self::Forced).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    pub(crate) fn pipe() -> Result<Self, Errno> {
        Ok(Self::Pipe(Lock::new(Pipe::new()?)))
    }

    /// Whether it reaches pages that allow nothing.
    pub(crate) const fn is_forced(&self) -> bool {
        matches!(self, Self::Forced(_))
    }

    /// Writes as many bytes as `target` has.
    ///
    /// # Errors
    ///
    /// How many bytes were written before the errno; `EFAULT` if the source cannot be read from there on.
    pub(crate) fn write(&self, source: *const u8, target: Span) -> Result<(), (usize, Errno)> {
        match self {
            Self::Forced(memory) => sys::forced_write(memory.as_fd(), source, target),
            Self::Direct => sys::direct_write(source, target),
            Self::Pipe(pipe) => pipe.with(|pipe| pipe.write(source, target)),
        }
    }
}

/// Both ends of a pipe that is empty between transfers.
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(errno_of)?;
        Ok(Self { reader, writer })
    }

    /// A page at a time: any pipe has room for one.
    fn write(&self, source: *const u8, target: Span) -> Result<(), (usize, Errno)> {
        for (at, page) in target.pages().enumerate() {
            let done = at * PAGE_SIZE;
            self.write_page(source.wrapping_add(done), page).map_err(|errno| (done, errno))?;
        }
        Ok(())
    }

    fn write_page(&self, source: *const u8, page: Span) -> Result<(), Errno> {
        let carried = sys::write_from(self.writer.as_fd(), source, PAGE_SIZE).and_then(|written| {
            if written != PAGE_SIZE {
                return Err(Errno::EFAULT);
            }
            match sys::read_into(self.reader.as_fd(), page) {
                Ok(PAGE_SIZE) => Ok(()),
                Ok(_) => Err(Errno::EIO),
                // The target is ours and writable: this is not about the source.
                Err(Errno::EFAULT) => Err(Errno::ENOMEM),
                Err(errno) => Err(errno),
            }
        });
        if carried.is_err() {
            self.drain();
        }
        carried
    }

    fn drain(&self) {
        let mut nobody_wants = [0; 512];
        while matches!(rustix::io::read(&self.reader, &mut nobody_wants), Ok(1..) | Err(rustix::io::Errno::INTR)) {}
    }
}

fn errno_of(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
