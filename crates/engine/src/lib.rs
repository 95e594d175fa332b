//! userfaultfd's behaviour as state machines that return decisions.
//!
//! The engine *is* userfaultfd — contexts, registrations, wait queues, the descriptor's protocol,
//! every errno — without the machine underneath. It decides and never acts: each operation takes
//! the one lock, changes state, leaves the lock and hands the effects (sleep, wake these, make the
//! descriptor readable) to its embedder as `#[must_use]` values. So the same code runs hosted in an
//! ordinary process, in a simulator, under loom and Miri, and in somebody else's kernel.
//!
//! ```text
//! addr fault error host      what an address, an access, an error, an embedder is
//! context/                   opening, handshake, release, fdinfo
//! registration/              which context wants the faults of which pages
//! wait/                      who sleeps on what, and who must wake; opens with the ordering argument
//! fill/                      claim → bytes by the embedder → commit or abort
//! page tree                  page states and their legal transitions · the one ordered tree
//! read poll ioctl/           the descriptor's doors: bytes in, typed call, bytes out
//! ```
//!
//! No unsafe, no std, no allocation, no I/O, no clock, no panic. Storage comes from the embedder.
//!
//! Kernel counterpart: the behaviour of `userfaultfd(2)` as written down in `spec/`.
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

mod addr;
mod context;
mod error;
mod fault;
mod fill;
mod host;
mod ioctl;
mod page;
mod poll;
mod read;
mod registration;
mod space;
mod tree;
mod wait;

pub use addr::{Limits, Page, PageRange, RangeError};
pub use context::fdinfo::FdInfo;
pub use context::handshake::{HandshakeError, Offer};
pub use context::open::{OpenError, Opening, Privilege};
pub use context::release::Released;
pub use context::{ContextId, Protocol, Rules};
pub use error::{EngineError, errno};
pub use fault::{Access, Origin, Patience, Verdict};
pub use fill::claim::{Claim, End, Step};
pub use fill::{Cause, Fill, FillError, FillStop, Filling};
pub use host::{Embedder, Lock, Pages, Storage};
pub use ioctl::{Answer, Call, Outcome, Reply, Settled};
pub use page::{AtomicByte, PageState, StateTable};
pub use read::{ReadError, Taken};
pub use registration::register::RegisterError;
pub use registration::unregister::UnregisterError;
pub use registration::{Mapping, MappingKind, Registration};
pub use space::{AddressSpace, Capacities};
pub use wait::list::{Sleeper, Sleepers, Told};
pub use wait::slots::WaiterId;
pub use wait::wake::{Rest, Woken};
pub use wait::{Left, Why};
