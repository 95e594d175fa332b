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
//! For authors of kernels, sandboxes, emulators and test doubles. Programs use `userfault`; `userfault-process` is this
//! engine's host in an ordinary process.
//!
//! Kernel counterpart: the behaviour of `userfaultfd(2)` as written down in `spec/`.
//!
//! # Examples
//!
//! An embedder, and a fault from its message to its answer:
//!
//! ```
//! use std::sync::Mutex;
//! use std::sync::atomic::AtomicU8;
//!
//! use userfault_abi::{Api, CopyModes, OpenFlags, RegisterModes, request};
//! use userfault_engine::*;
//!
//! /// All that the engine asks for: a lock, a byte for each page, and vectors that do not grow.
//! struct Small;
//! struct Guarded<T>(Mutex<T>);
//! struct Records<T>(Vec<T>, usize);
//!
//! impl Embedder for Small {
//!     type Lock<T> = Guarded<T>;
//!     type Pages = StateTable<Vec<AtomicU8>>;
//!     type Storage<T: Copy + Default> = Records<T>;
//!
//!     fn storage<T: Copy + Default>(capacity: usize) -> Option<Records<T>> {
//!         Some(Records(Vec::with_capacity(capacity), capacity))
//!     }
//! }
//!
//! impl<T> Lock<T> for Guarded<T> {
//!     fn new(value: T) -> Self {
//!         Self(Mutex::new(value))
//!     }
//!
//!     fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
//!         critical(&mut self.0.lock().unwrap())
//!     }
//! }
//!
//! impl<T> Storage<T> for Records<T> {
//!     fn as_slice(&self) -> &[T] {
//!         &self.0
//!     }
//!
//!     fn as_mut_slice(&mut self) -> &mut [T] {
//!         &mut self.0
//!     }
//!
//!     fn capacity(&self) -> usize {
//!         self.1
//!     }
//!
//!     fn push(&mut self, value: T) -> Result<(), T> {
//!         if self.0.len() == self.1 {
//!             return Err(value);
//!         }
//!         self.0.push(value);
//!         Ok(())
//!     }
//! }
//!
//! let states = StateTable::new(Page::new(16), (0..8).map(|_| AtomicU8::new(0)).collect());
//! let capacities = Capacities { waiters: 4, registrations: 4, contexts: 2 };
//! let space = AddressSpace::<Small>::new(Limits::X86_64, states, capacities).unwrap();
//!
//! // A descriptor, and its handshake by bytes: call, the embedder's part, answer, settle.
//! let context = space.open(OpenFlags::NONE, Protocol::Modern, Privilege::Full).unwrap().publish();
//! let asked = Api { api: request::UFFD_API, ..Api::default() }.encode();
//! let call = space.ioctl(context, request::API, &asked).unwrap();
//! let reply = space.answer(call, Outcome::Done);
//! assert!(Api::decode(reply.answer().bytes()).is_some());
//! assert_eq!(space.settle(reply, true).result, Ok(()));
//!
//! // Two pages whose absence raises faults.
//! let range = PageRange::new(Page::new(16), Page::new(18)).unwrap();
//! let mapping = Mapping { range, kind: MappingKind::PrivateAnonymous, tag: 0 };
//! space.register(context, range, RegisterModes::MISSING, &[mapping]).unwrap();
//!
//! // A thread touches the first: it is to sleep, and a message waits to be read.
//! let access = Access { address: 0x1_0008, write: false, patience: Patience::Wait, origin: Origin::User, thread: 1 };
//! let Verdict::Sleep { waiter, ring } = space.fault(&access) else { panic!() };
//! assert_eq!(ring, Some(context));
//! let taken = space.take(context, 32).unwrap();
//! assert_eq!(taken.len(), 1);
//! space.delivered(taken);
//! assert!(space.sleepers(0).iter().all(|sleeper| sleeper.told == Told::Read));
//!
//! // Its monitor fills the page. The embedder cannot at first: nothing has changed then.
//! let copy = Fill::Copy(CopyModes::NONE);
//! let mut failing = space.fill(context, range, copy).unwrap();
//! let Step::Write(claim) = space.next(&mut failing, 1) else { panic!() };
//! assert!(space.abort(&mut failing, claim, Cause::NoMemory).is_empty());
//!
//! let mut filling = space.fill(context, PageRange::one(Page::new(16)), copy).unwrap();
//! let Step::Write(claim) = space.next(&mut filling, 1) else { panic!() };
//! // Here the embedder brings the bytes of `claim.range()` and makes them accessible.
//! let _nobody_met_the_claim = space.commit(&mut filling, claim);
//! let Step::End(End { pages_done: 1, wake: Some((context, pages)), .. }) = space.next(&mut filling, 1) else { panic!() };
//! assert!(space.wake(context, pages).iter().eq([waiter]));
//! assert_eq!(space.leave(waiter, Why::Check), Left::Woken);
//! assert_eq!(space.fault(&access), Verdict::Present(Page::new(16)));
//!
//! // The last close.
//! assert!(space.begin_release(context));
//! assert_eq!(space.release_range(context, Page::new(0)).map(|released| released.range), Some(range));
//! assert!(space.finish_release(context).is_empty());
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
