//! The range requests, each from a checked [`Span`] to a [`Progress`] or an error.
//!
//! What all kinds of memory share: who the pages belong to was decided by whoever made the span.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)`.

use userfault_abi::{ContinueModes, CopyModes, MoveModes, PoisonModes, WriteprotectModes, ZeropageModes};
use userfault_client::{Errno, IoctlMask, Progress, RegisterModes, Stopped, UffdError, WriteProtect};
use userfault_memory::page_size;

use crate::context::{Context, system};
use crate::fill;
use crate::sys::{self, Answer, Source, Span};

/// Lengths in bytes stay small enough to slice with.
fn offset(done: u64) -> usize {
    usize::try_from(done).unwrap_or(usize::MAX)
}

fn run(span: Span<'_>, stopped: impl Fn(Errno) -> Stopped, once: impl Fn(Span<'_>, u64) -> Answer) -> Progress {
    fill::run(span.len(), page_size() as u64, stopped, |done| match span.after(done) {
        Some(rest) => once(rest, done),
        // An empty range: what the kernel answers to it.
        None => Answer { result: Err(Errno::EINVAL), word: sys::UNWRITTEN },
    })
}

/// For requests without a source, where `EFAULT` says that the file has no page there.
fn without_source(errno: Errno) -> Stopped {
    match errno {
        Errno::EFAULT => Stopped::Other(Errno::EFAULT),
        other => Stopped::from_errno(other),
    }
}

/// For MOVE, where `ENOENT` may be a hole in the source and `EFAULT` poison there.
fn between_pages(errno: Errno) -> Stopped {
    match errno {
        Errno::ENOENT | Errno::EFAULT => Stopped::Other(errno),
        other => Stopped::from_errno(other),
    }
}

impl Context {
    /// Whoever slept on a page that was done was woken by that.
    fn woken(&self, span: Span<'_>, wakes: bool, progress: Progress) -> Progress {
        if wakes {
            self.note_answered(span.start(), (progress.pages_done as u64).saturating_mul(page_size() as u64));
        }
        progress
    }

    /// `bytes` is as long as `span`.
    pub(crate) fn copy(&self, span: Span<'_>, bytes: &[u8], modes: CopyModes) -> Progress {
        self.woken(
            span,
            !modes.contains(CopyModes::DONTWAKE),
            run(span, Stopped::from_errno, |rest, done| {
                let source = bytes.get(offset(done)..).unwrap_or(&[]);
                sys::copy(self.fd(), rest, source, modes)
            }),
        )
    }

    pub(crate) fn zeropage(&self, span: Span<'_>, modes: ZeropageModes) -> Progress {
        self.woken(
            span,
            !modes.contains(ZeropageModes::DONTWAKE),
            run(span, without_source, |rest, _| sys::zeropage(self.fd(), rest, modes)),
        )
    }

    pub(crate) fn continue_pages(&self, span: Span<'_>, modes: ContinueModes) -> Progress {
        self.woken(
            span,
            !modes.contains(ContinueModes::DONTWAKE),
            run(span, without_source, |rest, _| sys::continue_pages(self.fd(), rest, modes)),
        )
    }

    pub(crate) fn poison(&self, span: Span<'_>, modes: PoisonModes) -> Progress {
        if let Some(handover) = self.handed_over() {
            handover.note_poison();
        }
        self.woken(
            span,
            !modes.contains(PoisonModes::DONTWAKE),
            run(span, without_source, |rest, _| sys::poison(self.fd(), rest, modes)),
        )
    }

    /// `source` is as long as `span`.
    pub(crate) fn move_pages(&self, span: Span<'_>, source: &Source<'_>, modes: MoveModes) -> Progress {
        self.woken(
            span,
            !modes.contains(MoveModes::DONTWAKE),
            run(span, between_pages, |_, done| sys::move_pages(self.fd(), span, source, done, modes)),
        )
    }

    pub(crate) fn writeprotect(&self, span: Span<'_>, how: WriteProtect) -> Result<(), UffdError> {
        let modes = match how {
            WriteProtect::Protect => WriteprotectModes::WP,
            WriteProtect::Lift => WriteprotectModes::NONE,
            WriteProtect::LiftWithoutWake => WriteprotectModes::DONTWAKE,
        };
        sys::writeprotect(self.fd(), span, modes).map_err(|errno| system("UFFDIO_WRITEPROTECT", errno))?;
        if how == WriteProtect::Lift {
            self.note_answered(span.start(), span.len());
        }
        Ok(())
    }

    pub(crate) fn wake(&self, span: Span<'_>) -> Result<(), UffdError> {
        let done = sys::wake(self.fd(), span.start(), span.len()).map_err(|errno| system("UFFDIO_WAKE", errno));
        self.note_answered(span.start(), span.len());
        done
    }

    pub(crate) fn register(&self, span: Span<'_>, modes: RegisterModes) -> Result<IoctlMask, UffdError> {
        sys::register(self.fd(), span, modes).map_err(|errno| system("UFFDIO_REGISTER", errno))
    }

    pub(crate) fn unregister(&self, span: Span<'_>) -> Result<(), UffdError> {
        let done = sys::unregister(self.fd(), span).map_err(|errno| system("UFFDIO_UNREGISTER", errno));
        // Afterwards: who is woken before would find the page missing still, and sleep again.
        self.note_answered(span.start(), span.len());
        done
    }
}
