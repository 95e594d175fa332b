//! Reading messages as owned events.
//!
//! One loop serves every way of waiting: read without sleeping; if nothing was there, poll the
//! descriptor together with the shutdown eventfd; again. A poll that promised a message which is gone
//! when it is read (another reader, a woken sleeper) is normal and costs one round.
//!
//! 1. The descriptors in a batch are owned before anything can fail.
//! 2. Between a message's arrival and its read no allocator is called, as long as the vector has room:
//!    glibc's fork holds malloc's locks until its FORK message was read.
//!
//! Kernel counterpart: `read(2)` and `poll(2)` on `userfaultfd(2)`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use userfault_abi::{Message, MessageEvent};
use userfault_client::{Errno, Event, Fault, UffdError, Wait};

use crate::context::{Context, system};
use crate::foreign::Forked;
use crate::inline::Handover;
use crate::sys;

/// A reader that always finds full batches leaves after so many, to let its caller work.
const BATCHES: usize = 32;

impl Context {
    /// As `client::Uffd::read`.
    pub(crate) fn read(&self, wait: Wait, events: &mut Vec<Event<Forked>>) -> Result<usize, UffdError> {
        self.check_process()?;
        let deadline = match wait {
            Wait::AtMost(time) => Instant::now().checked_add(time),
            Wait::Forever | Wait::Never => None,
        };
        loop {
            match self.read_now(events)? {
                0 if self.is_shut_down() => return Err(UffdError::ShutDown),
                0 => {}
                added => return Ok(added),
            }
            let timeout = match (wait, deadline) {
                (Wait::Never, _) => return Ok(0),
                (Wait::AtMost(_), Some(deadline)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(0);
                    }
                    Timespec::try_from(left).ok()
                }
                (Wait::Forever | Wait::AtMost(_), _) => None,
            };
            self.wait_readable(timeout.as_ref())?;
        }
    }

    /// Takes what is there, in batches.
    fn read_now(&self, events: &mut Vec<Event<Forked>>) -> Result<usize, UffdError> {
        let mut added = 0;
        for _ in 0..BATCHES {
            let room = events.capacity() - events.len();
            let limit = if room == 0 { sys::BATCH } else { room.min(sys::BATCH) };
            let batch = match sys::read(self.fd(), limit) {
                Ok(batch) => batch,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                // What there is else is delivered first; the error repeats itself.
                Err(_) if added > 0 || self.take_handed(&mut added, events) => return Ok(added),
                Err(errno) => return Err(system("read", errno)),
            };
            let taken = batch.len();
            events.extend(batch.into_messages().map(|(message, child)| self.event(message, child)));
            added += taken;
            if taken < limit {
                break;
            }
        }
        self.take_handed(&mut added, events);
        Ok(added)
    }

    /// What SIGBUS handlers handed over, as far as there is room for it; whether there was any.
    fn take_handed(&self, added: &mut usize, events: &mut Vec<Event<Forked>>) -> bool {
        let Some(handover) = self.handed_over() else { return false };
        let room = events.capacity() - events.len();
        let limit = if room == 0 && *added == 0 { sys::BATCH } else { room };
        if limit == 0 {
            return false;
        }
        // Before they are taken: what is filed later rings again.
        handover.drain();
        let before = events.len();
        let handed = core::iter::from_fn(|| handover.take()).take(limit);
        events.extend(handed.map(|handed| Event::Fault(self.told(handed))));
        let taken = events.len() - before;
        if taken == limit {
            handover.ring();
        }
        *added += taken;
        taken > 0
    }

    fn event(&self, message: Message, child: Option<OwnedFd>) -> Event<Forked> {
        match (message.event(), child) {
            (MessageEvent::Pagefault { flags, address, thread }, _) => {
                let fault = Fault::from_message(flags, address, thread);
                self.note_read(&fault);
                Event::Fault(fault)
            }
            (MessageEvent::Fork { .. }, Some(child)) => Event::Fork(Forked::new(child, self.features())),
            (MessageEvent::Remap { from, to, len }, _) => Event::Remap { from, to, len },
            (MessageEvent::Remove { start, end }, _) => Event::Remove { start, end },
            (MessageEvent::Unmap { start, end }, _) => Event::Unmap { start, end },
            _ => Event::Unknown(message.to_bytes()),
        }
    }

    /// Sleeps until a message, the shutdown or the end of `timeout`; may return early.
    fn wait_readable(&self, timeout: Option<&Timespec>) -> Result<(), UffdError> {
        let (descriptor, shutdown) = (self.fd(), self.shutdown_fd());
        // Twice the same where nothing is handed over.
        let handed = self.handed_over().and_then(Handover::bell).unwrap_or(shutdown);
        let mut fds = [&descriptor, &shutdown, &handed].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("poll", sys::errno(error))),
        }
        let [descriptor, shutdown, _handed] = fds;
        if shutdown.revents().contains(PollFlags::IN) {
            // Perhaps by a forked relative, who shares the eventfd but not the flag.
            self.note_shutdown();
        }
        if descriptor.revents().contains(PollFlags::ERR) {
            // Somebody who shares the open file took O_NONBLOCK away (`m/poll/blocking`).
            set_nonblocking(self.fd())?;
        }
        Ok(())
    }
}

/// Sets `O_NONBLOCK`, for every holder of the open file.
pub(crate) fn set_nonblocking(descriptor: impl AsFd) -> Result<(), UffdError> {
    let lost = |error| system("fcntl(F_SETFL)", sys::errno(error));
    let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(lost)?;
    rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK).map_err(lost)
}
