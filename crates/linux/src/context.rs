//! One open descriptor and what belongs to it: the way to end its readers, and whose memory it means.
//!
//! 1. The descriptor has `O_NONBLOCK`, so that it can be polled and a read never sleeps in the kernel,
//!    where [`Context::shut_down`] could not reach it.
//! 2. After `is_shut_down` was set the eventfd stays readable for ever: nobody drains it.
//! 3. A request for memory of this process is sent only by the process that opened the descriptor. A
//!    forked child that inherits it would otherwise act on its parent's memory.
//!
//! Kernel counterpart: `struct userfaultfd_ctx`.

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use userfault_client::{Errno, Fault, Features, UffdError};
use userfault_memory::page_size;
use userfault_signal::fork_generation;

use crate::inline::Handover;
use crate::{sleepers, sys};

/// An enabled descriptor.
#[derive(Debug)]
pub(crate) struct Context {
    descriptor: OwnedFd,
    /// What tells its faults from those of others that were read.
    name: u64,
    shutdown: OwnedFd,
    is_shut_down: AtomicBool,
    features: Features,
    /// Whose memory it means: that of the process with this mark; or, without one, another process's,
    /// whoever asks.
    mark: Option<Mark>,
    /// Length in bytes of the address space, once `wake_all` has found it.
    address_space: OnceLock<u64>,
    pagemap: OnceLock<OwnedFd>,
    /// Where faults that a SIGBUS handler cannot answer are handed over; with that feature, at home.
    handover: Option<Handover>,
}

impl Context {
    /// `descriptor` is enabled with `features` and nonblocking.
    pub(crate) fn new(descriptor: OwnedFd, features: Features, mark: Option<Mark>) -> Result<Self, UffdError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shutdown = eventfd(0, flags).map_err(|error| system("eventfd", sys::errno(error)))?;
        let raises = features.contains(Features::SIGBUS) && mark.is_some();
        let handover = raises.then(Handover::new).transpose()?;
        Ok(Self {
            descriptor,
            name: sleepers::next_name(),
            shutdown,
            is_shut_down: AtomicBool::new(false),
            features,
            mark,
            address_space: OnceLock::new(),
            pagemap: OnceLock::new(),
            handover,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) const fn name(&self) -> u64 {
        self.name
    }

    /// A message of a thread of this process was read.
    pub(crate) fn note_read(&self, fault: &Fault) {
        if self.mark.is_some() {
            sleepers::read(self.name, fault);
        }
    }

    /// Whoever slept in the `len` bytes at `start` was woken.
    pub(crate) fn note_answered(&self, start: u64, len: u64) {
        if self.features.contains(Features::THREAD_ID) {
            sleepers::answered(self.name, start, len);
        }
        if let Some(handover) = self.handed_over() {
            handover.wake(start, len);
        }
    }

    pub(crate) const fn handed_over(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    /// A descriptor that polls readable while there is something to read.
    pub(crate) fn poller(&self) -> Result<BorrowedFd<'_>, UffdError> {
        self.handed_over().map_or_else(|| Ok(self.fd()), |handover| handover.poller(self.fd()))
    }

    pub(crate) fn shutdown_fd(&self) -> BorrowedFd<'_> {
        self.shutdown.as_fd()
    }

    pub(crate) const fn features(&self) -> Features {
        self.features
    }

    /// Refuses to act for a forked child on the memory of its parent (invariant 3).
    pub(crate) fn check_process(&self) -> Result<(), UffdError> {
        match &self.mark {
            Some(mark) if !mark.is_here() => Err(UffdError::Forked),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        // Relaxed: a reader that misses the change polls next, and the eventfd, which is written after
        // it and never drained, sends it here again.
        self.is_shut_down.load(Ordering::Relaxed)
    }

    pub(crate) fn note_shutdown(&self) {
        self.is_shut_down.store(true, Ordering::Relaxed);
    }

    pub(crate) fn shut_down(&self) {
        if self.check_process().is_err() {
            return; // the eventfd is the parent's too
        }
        self.note_shutdown();
        // EAGAIN means the counter is full, hence readable; nothing else can happen to our own eventfd.
        let _ = rustix::io::write(&self.shutdown, &1_u64.to_ne_bytes());
    }

    /// Wakes the sleepers of the whole address space.
    pub(crate) fn wake_all(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.note_answered(0, u64::MAX);
        if let Some(len) = self.address_space.get() {
            // Needs no mapping, and the range is valid: it was accepted before (`m/wake/order`).
            let _ = sys::wake(self.fd(), 0, *len);
            return;
        }
        // WAKE takes any range inside the address space and none outside, so the size is found bit by
        // bit, highest first; the last accepted call covers all.
        let mut len = 0_u64;
        for bit in (page_size().trailing_zeros()..u64::BITS - 1).rev() {
            let longer = len | 1 << bit;
            if sys::wake(self.fd(), 0, longer).is_ok() {
                len = longer;
            }
        }
        if len > 0 {
            let _ = self.address_space.set(len);
        }
    }

    /// This process's page map, opened once; only for contexts of this process.
    pub(crate) fn pagemap(&self) -> Result<BorrowedFd<'_>, UffdError> {
        if let Some(open) = self.pagemap.get() {
            return Ok(open.as_fd());
        }
        let open = open_pagemap()?;
        Ok(self.pagemap.get_or_init(|| open).as_fd())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.note_answered(0, u64::MAX);
        if self.check_process().is_err() {
            // Of the parent's, with traces of threads that are not here: never to be used again.
            core::mem::forget(self.handover.take());
        }
    }
}

/// The page map of this process, and of no other, whoever reads it.
pub(crate) fn open_pagemap() -> Result<OwnedFd, UffdError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| system("open of /proc/self/pagemap", sys::errno(error)))
}

/// The address space that opened it: a forked child's is another one, whatever its process id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u32);

impl Mark {
    pub(crate) fn new() -> Result<Self, UffdError> {
        let lost = |errno| system("mapping the fork mark", Errno::from_raw(errno));
        fork_generation().map(Self).map_err(lost)
    }

    pub(crate) fn is_here(self) -> bool {
        fork_generation() == Ok(self.0)
    }
}

/// The host's answer to an operation that has no variant of its own.
pub(crate) const fn system(operation: &'static str, errno: Errno) -> UffdError {
    UffdError::System { operation, errno }
}

/// Checks `pages` against a region of `count` pages.
pub(crate) fn check_pages(pages: &Range<usize>, count: usize) -> Result<(), UffdError> {
    if pages.start < pages.end && pages.end <= count {
        Ok(())
    } else {
        Err(UffdError::OutsideRegion { asked: pages.clone(), pages: count })
    }
}

/// How many pages `bytes` are.
pub(crate) fn whole_pages(bytes: &[u8]) -> Result<usize, UffdError> {
    let (len_bytes, page_size) = (bytes.len(), page_size());
    if len_bytes > 0 && len_bytes.is_multiple_of(page_size) {
        Ok(len_bytes / page_size)
    } else {
        Err(UffdError::NotWholePages { len_bytes, page_size })
    }
}
