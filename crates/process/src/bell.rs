//! How readers and pollers of a descriptor hear of a fault (H30, H31).
//!
//! Readers inside the process wait on a futex. An eventfd exists only once somebody asked for a
//! descriptor to poll; from then on every announced fault is written to it, since pollers cannot be
//! seen and edge-triggered ones need an edge a fault.
//!
//! # Ordering
//!
//! ```text
//! faulting thread                 reader                           poller
//! A1  queue the fault (lock)      R1  read the bell's count        P1  poll the eventfd
//! A2  count += 1, futex wake      R2  drain the eventfd            P2  readable: read messages
//! A3  write the eventfd           R3  take messages (lock)
//!                                 R4  none: futex wait on R1's count
//!                                 R5  some left: write the eventfd again
//! ```
//!
//! 1. R3 misses a fault only if A1 comes after it; then A2 comes after R1, and R4 does not sleep.
//! 2. R2 swallows the edge of a fault only if A1 came before R2, so R3 takes it, or leaves it and R5
//!    makes the edge again. Draining after taking would lose the edge of a fault queued in between.
//! 3. Whoever asks for the descriptor stores `polled`, then writes the eventfd; whoever rings queues, then
//!    loads `polled` (A3). In one order of these (`SeqCst`), either A3 sees it, or the fault was queued
//!    before the asker's own write.
//! 4. Whoever is woken at A2 and leaves without taking (interrupted, timed out) hands the wake on.
//!
//! The eventfd belongs to the context's *slot* and is never closed: a thread that rings late writes to
//! an eventfd of ours, never to a stranger's file. A later context of the slot may see it readable for
//! no reason, which pollers must expect anyway.
//!
//! Kernel counterpart: `fd_wqh`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use userfault_abi::errno::Errno;
use userfault_engine::ContextId;
use userfault_memory::{Fixed, MapError};
use userfault_signal::{SignalsBlocked, futex_wake};

use crate::host::Host;

/// One context slot's.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    pub(crate) count: AtomicU32,
    eventfd: OnceLock<OwnedFd>,
    /// This context's descriptor was asked for.
    polled: AtomicBool,
    /// The slot has had a context.
    is_used: AtomicBool,
}

impl Bell {
    /// One for each context slot.
    pub(crate) fn table(len: usize) -> Result<Fixed<Self>, MapError> {
        let mut table = Fixed::with_capacity(len)?;
        while table.push(Self::default()).is_ok() {}
        Ok(table)
    }

    /// A new context takes the slot.
    pub(crate) fn begin(&self) {
        self.polled.store(false, Ordering::Release);
        self.is_used.store(true, Ordering::Release);
    }

    /// Whether somebody may wait here.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// The descriptor to poll; made at the first call.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        if self.eventfd.get().is_none() {
            let fresh = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
            // If two ask at once, the other's stays and this one is closed: nobody has seen it.
            let _first_wins = self.eventfd.set(fresh);
        }
        self.polled.store(true, Ordering::SeqCst);
        self.eventfd.get().map(AsFd::as_fd).ok_or(Errno::ENOMEM)
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.polled.load(Ordering::SeqCst)
    }

    /// R2.
    pub(crate) fn drain(&self) {
        if let Some(eventfd) = self.eventfd.get().filter(|_| self.is_polled()) {
            let mut count = [0; 8];
            let _empty_is_fine = rustix::io::read(eventfd, &mut count);
        }
    }

    /// A3, R5.
    pub(crate) fn show(&self) {
        if let Some(eventfd) = self.eventfd.get().filter(|_| self.is_polled()) {
            // Full means readable, too.
            let _written = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// A2 and A3: wakes `readers` of those that wait here.
    pub(crate) fn ring(&self, readers: u32) {
        self.count.fetch_add(1, Ordering::Release);
        futex_wake(&self.count, readers);
        self.show();
    }
}

impl Host {
    /// Ends all waiting for events of the context.
    pub(crate) fn shut_down(&self, context: ContextId) {
        let blocked = SignalsBlocked::new();
        self.engine(&blocked).shut_down(context);
        if let Some(bell) = self.bells.as_ref().get(context.index()) {
            bell.ring(u32::MAX >> 1);
        }
    }

    /// A fault was queued.
    pub(crate) fn ring(&self, context: ContextId) {
        if let Some(bell) = self.bells.as_ref().get(context.index()) {
            bell.ring(1);
        }
    }
}
