//! Numbers and layouts of userfaultfd: ioctls, structures, feature bits, messages.
//!
//! Separate, because the engine (which answers these bytes) and the clients (which ask with them)
//! must agree on them and on nothing else. There is no behaviour here, only encoding.
//!
//! 1. Nothing is dropped: bits, events and request numbers that have no name here survive a round
//!    trip, so that a newer kernel can be talked to through this crate.
//! 2. Structures become bytes field by field, never by reinterpreting memory, so no padding can
//!    leak and no byte of an answer is undetermined.
//! 3. Integers are native-endian and 64 bits wide where the kernel says so, whatever the target.
//! 4. Nothing here can panic, allocate or fail except by returning `None`.
//!
//! The modern protocol is at the root; what differs in the original one (May 2015) is in
//! [`original`]. Constants stay in their modules: [`request`], [`event`], [`original`].
//!
//! Programs use `userfault`, which re-exports these types as `userfault::client::abi`. This crate alone is for those
//! who speak the protocol themselves, from either side: kernels, emulators, tracers, other bindings.
//!
//! Kernel counterpart: `include/uapi/linux/userfaultfd.h`.
//!
//! # Examples
//!
//! ```
//! use userfault_abi::{Copy, CopyModes, Message, MessageEvent, request};
//!
//! // A reader of the descriptor:
//! let bytes = Message::pagefault(Default::default(), 0x7000, 0).to_bytes(); // as if read
//! let MessageEvent::Pagefault { address, .. } = Message::from_bytes(bytes).event() else { panic!() };
//!
//! // The argument of `ioctl(descriptor, request::COPY, …)` that answers:
//! let argument = Copy { dst: address, src: 0x1000, len: 4096, mode: CopyModes::NONE.bits(), copy: 0 }.encode();
//! assert_eq!((argument.len(), request::COPY), (40, 0xC028_AA03));
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::std_instead_of_core,
        clippy::std_instead_of_alloc
    )
)]

#[cfg(test)]
extern crate std;

pub mod bits;
pub mod errno;
pub mod event;
pub mod message;
pub mod original;
pub mod poll;
pub mod request;
pub mod structs;
#[cfg(test)]
mod testing;
mod words;

pub use bits::{
    ContinueModes, CopyModes, Features, IoctlMask, MoveModes, OpenFlags, PagefaultFlags, PoisonModes, RegisterModes,
    WriteprotectModes, ZeropageModes,
};
pub use errno::Errno;
pub use message::{Message, MessageEvent};
pub use poll::PollEvents;
pub use structs::{Api, Continue, Copy, Move, Poison, Range, Register, Writeprotect, Zeropage};
