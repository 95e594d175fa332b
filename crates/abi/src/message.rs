//! The messages a monitor reads from the descriptor (modern protocol).
//!
//! A message is its 32 bytes; [`Message::event`] looks into them. So an event that has no name here
//! can still be passed on unchanged.
//!
//! Kernel counterpart: `struct uffd_msg`.

use crate::bits::PagefaultFlags;
use crate::{event, words};

/// One message, as it travels.
///
/// # Source
///
/// `userfaultfd(2)`, `struct uffd_msg`; that the unused bytes are zero: observed on Linux 6.18.
///
/// # Examples
///
/// ```
/// use userfault_abi::{Message, MessageEvent, PagefaultFlags};
///
/// let message = Message::pagefault(PagefaultFlags::WRITE, 0x7000, 1234);
/// let fault = MessageEvent::Pagefault { flags: PagefaultFlags::WRITE, address: 0x7000, thread: 1234 };
/// assert_eq!(Message::from_bytes(message.to_bytes()).event(), fault);
///
/// let mut bytes = [0; Message::SIZE];
/// bytes[0] = 0x7f; // an event that has no name here survives
/// assert_eq!(Message::from_bytes(bytes).event(), MessageEvent::Unknown { event: 0x7f });
/// assert_eq!(Message::from_bytes(bytes).to_bytes(), bytes);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Message([u8; Self::SIZE]);

/// What a message says.
///
/// # Source
///
/// `userfaultfd(2)`, `struct uffd_msg`.
///
/// Example: [`Message`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MessageEvent {
    /// A thread faulted and sleeps.
    Pagefault {
        /// What kind of fault.
        flags: PagefaultFlags,
        /// Where; rounded down to the page unless `EXACT_ADDRESS` was asked for.
        address: u64,
        /// The thread's id if `THREAD_ID` was asked for, else 0.
        thread: u32,
    },
    /// The process forked.
    Fork {
        /// A descriptor for the child's memory, which the reader now owns.
        descriptor: u32,
    },
    /// Registered memory moved.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Pages in `[start, end)` were dropped.
    Remove {
        /// First address.
        start: u64,
        /// First address after the range.
        end: u64,
    },
    /// `[start, end)` was unmapped.
    Unmap {
        /// First address.
        start: u64,
        /// First address after the range.
        end: u64,
    },
    /// An event that has no name here; the bytes are in the message.
    Unknown {
        /// The event number.
        event: u8,
    },
}

impl Message {
    /// Length of a message, in bytes.
    pub const SIZE: usize = 32;

    /// Takes the bytes as read from the descriptor.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// The bytes, as given or built.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        self.0
    }

    /// What the message says; bytes that the event does not use are not looked at.
    #[must_use]
    pub fn event(&self) -> MessageEvent {
        let [number, ..] = self.0;
        let [_, first, second, third] = words::from_bytes(&self.0);
        match number {
            event::PAGEFAULT => MessageEvent::Pagefault {
                flags: PagefaultFlags::from_bits(first),
                address: second,
                thread: first_half(third),
            },
            event::FORK => MessageEvent::Fork { descriptor: first_half(first) },
            event::REMAP => MessageEvent::Remap { from: first, to: second, len: third },
            event::REMOVE => MessageEvent::Remove { start: first, end: second },
            event::UNMAP => MessageEvent::Unmap { start: first, end: second },
            event => MessageEvent::Unknown { event },
        }
    }

    /// Announces a fault; every byte that the event does not use is 0.
    #[must_use]
    pub fn pagefault(flags: PagefaultFlags, address: u64, thread: u32) -> Self {
        Self::build(event::PAGEFAULT, [flags.bits(), address, in_first_half(thread)])
    }

    /// Hands over a descriptor for the child's memory; every byte that the event does not use is 0.
    #[must_use]
    pub fn fork(descriptor: u32) -> Self {
        Self::build(event::FORK, [in_first_half(descriptor), 0, 0])
    }

    /// Announces a move of `len` bytes; every byte that the event does not use is 0.
    #[must_use]
    pub fn remap(from: u64, to: u64, len: u64) -> Self {
        Self::build(event::REMAP, [from, to, len])
    }

    /// Announces that `[start, end)` was dropped; every byte that the event does not use is 0.
    #[must_use]
    pub fn remove(start: u64, end: u64) -> Self {
        Self::build(event::REMOVE, [start, end, 0])
    }

    /// Announces that `[start, end)` was unmapped; every byte that the event does not use is 0.
    #[must_use]
    pub fn unmap(start: u64, end: u64) -> Self {
        Self::build(event::UNMAP, [start, end, 0])
    }

    fn build(event: u8, [first, second, third]: [u64; 3]) -> Self {
        let head = u64::from_ne_bytes([event, 0, 0, 0, 0, 0, 0, 0]);
        Self(words::to_bytes([head, first, second, third]))
    }
}

/// The `u32` in the first four bytes of a word, which is its low half only on little-endian targets.
fn first_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// A word whose first four bytes are `half` and whose last four are 0.
fn in_first_half(half: u32) -> u64 {
    let [a, b, c, d] = half.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests;
