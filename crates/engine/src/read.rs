//! Reading messages: take, copy out, then say whether they arrived.
//!
//! Taking marks a fault as read under the lock, so each goes to exactly one reader; copying happens
//! without it. What could not be delivered is unread again at its old place (original, W14) or lost
//! (modern, `m/read/efault`).
//!
//! Kernel counterpart: `read(2)` on a userfaultfd.

use userfault_abi::original::Word;
use userfault_abi::{Features, Message};

use crate::context::{Context, ContextId, Protocol};
use crate::host::{Embedder, Lock};
use crate::space::{AddressSpace, State};
use crate::wait::slots::WaiterId;
use crate::wait::{Phase, Waiter};

const BATCH: usize = 32;

/// Why nothing was read.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// No such context, or no handshake yet.
    NotEnabled,
    /// There is no room for one message.
    TooSmall,
    /// No fault is unread, and none is to be waited for: the context was shut down.
    ShutDown,
    /// No fault is unread: sleep, or answer `EAGAIN`.
    Empty,
}

/// Messages on their way to a reader; [`AddressSpace::delivered`] or [`AddressSpace::give_back`]
/// ends it.
///
/// Example: [`crate`].
#[must_use = "say whether the messages were delivered"]
#[derive(Debug)]
pub struct Taken {
    context: ContextId,
    message_size: usize,
    items: [(WaiterId, [u8; Message::SIZE]); BATCH],
    len: usize,
}

impl Taken {
    /// The messages, oldest first, each as long as the protocol says.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().take(self.len).filter_map(|(_, bytes)| bytes.get(..self.message_size))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: an empty read is an error.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Takes as many messages as `room_bytes` holds, at most 32, oldest first.
    ///
    /// # Errors
    ///
    /// One [`ReadError`] per broken rule, tested in declaration order.
    pub fn take(&self, context: ContextId, room_bytes: usize) -> Result<Taken, ReadError> {
        self.state.with(|state| state.take(context, room_bytes, self.limits.page_shift))
    }

    /// All of them arrived.
    pub fn delivered(&self, taken: Taken) {
        drop(taken);
    }

    /// The first `arrived` of them did, the next could not be copied out; those after it were not
    /// tried and are unread again.
    ///
    /// Returns the context to ring, if words are unread that another reader may be waiting for.
    pub fn give_back(&self, taken: Taken, arrived: usize) -> Option<ContextId> {
        self.state.with(|state| {
            let rules = state.rules(taken.context)?;
            // Modern: the one that failed is lost.
            let keep = if rules.undelivered_is_unread { arrived } else { arrived.saturating_add(1) };
            for (waiter, _) in taken.items.iter().take(taken.len).skip(keep) {
                state.unread_again(*waiter);
            }
            (keep < taken.len).then_some(taken.context)
        })
    }

    /// Whether a fault is unread; 0 if there is no such context.
    pub fn unread(&self, context: ContextId) -> u64 {
        self.state.with(|state| state.contexts.get(context.0).map_or(0, |context| context.unread.len))
    }

    /// The byte door: fills `buffer` with whole messages, as many as are there and fit.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take), if not even one was read.
    pub fn read(&self, context: ContextId, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut done = 0_usize;
        loop {
            let room = buffer.get_mut(done..).unwrap_or_default();
            let taken = match self.take(context, room.len()) {
                Ok(taken) => taken,
                Err(error) => return if done > 0 { Ok(done) } else { Err(error) },
            };
            let size = taken.message_size;
            for (target, message) in room.chunks_exact_mut(size.max(1)).zip(taken.messages()) {
                target.iter_mut().zip(message).for_each(|(target, byte)| *target = *byte);
                done = done.saturating_add(size);
            }
            self.delivered(taken);
        }
    }
}

impl<E: Embedder> State<E> {
    fn take(&mut self, id: ContextId, room_bytes: usize, page_shift: u32) -> Result<Taken, ReadError> {
        let context = *self.contexts.get(id.0).ok_or(ReadError::NotEnabled)?;
        if !context.is_running() {
            return Err(ReadError::NotEnabled);
        }
        let message_size = context.rules.message_size;
        let most = room_bytes.checked_div(message_size).unwrap_or(0).min(BATCH);
        if most == 0 {
            return Err(ReadError::TooSmall);
        }
        let mut taken =
            Taken { context: id, message_size, items: [(WaiterId::default(), [0; Message::SIZE]); BATCH], len: 0 };
        for slot in taken.items.iter_mut().take(most) {
            let Some(waiter) = self.queue_head(id, Phase::Unread) else { break };
            let Some(record) = self.waiters.get(waiter.0) else { break };
            *slot = (waiter, encode(&context, record, page_shift));
            self.requeue(waiter, Phase::Read);
            taken.len = taken.len.saturating_add(1);
        }
        match taken.len {
            0 if context.is_shut_down => Err(ReadError::ShutDown),
            0 => Err(ReadError::Empty),
            _ => Ok(taken),
        }
    }
}

/// The bytes of a fault's message; of a word only the first eight are used.
fn encode(context: &Context, waiter: &Waiter, page_shift: u32) -> [u8; Message::SIZE] {
    let page_address = waiter.place.page.number().wrapping_shl(page_shift);
    match context.rules.protocol {
        Protocol::Original { .. } => {
            let write = waiter.flags.contains(userfault_abi::PagefaultFlags::WRITE);
            let protect = waiter.flags.contains(userfault_abi::PagefaultFlags::WP);
            let mut bytes = [0; Message::SIZE];
            let word = Word::new(page_address, write, protect).to_bytes();
            for (target, byte) in bytes.iter_mut().zip(word) {
                *target = byte;
            }
            bytes
        }
        Protocol::Modern => {
            let exact = context.features.contains(Features::EXACT_ADDRESS);
            let address = if exact { waiter.address } else { page_address };
            let thread = if context.features.contains(Features::THREAD_ID) { waiter.thread } else { 0 };
            Message::pagefault(waiter.flags, address, thread).to_bytes()
        }
    }
}
