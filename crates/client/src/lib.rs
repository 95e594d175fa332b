//! What a monitor may do, whoever provides the faults.
//!
//! A [`Uffd`] hands out [`Region`]s of memory whose pages are missing until somebody fills them, and
//! [`Event`]s that say which page a thread is waiting for. The kernel's userfaultfd and the engine
//! hosted in this process both implement these traits; code that answers faults is written once
//! against them. The crate is separate so that such code (a monitor, a pager) knows no provider.
//!
//! ```text
//! Uffd ── map ──> Region ── window ──> Window   (lends &[u8], exclusive)
//!  │                │  └──── shared ──> Shared   (copies out, any number)
//!  read             copy, zeropage, writeprotect, poison, wake, unregister
//!  │                │
//!  v                v
//! Event           Progress
//! ```
//!
//! For libraries that answer faults whoever provides them. Programs use `userfault`, which re-exports this crate as
//! `userfault::client` and picks a provider: `userfault-linux` or `userfault-process`.
//!
//! Kernel counterpart: the descriptor of `userfaultfd(2)` and the ioctls of `ioctl_userfaultfd(2)`,
//! with the traps of those interfaces (partial progress in a result field, `EAGAIN` with two
//! meanings, descriptors inside messages) turned into owned values.
//!
//! # Examples
//!
//! ```
//! use userfault_client::{Event, FaultKind, Region, Uffd, UffdError, Wait, WriteProtect};
//!
//! /// Answers what is asked of `region`, at any provider, until the descriptor is shut down.
//! fn answer<U: Uffd>(uffd: &U, region: &U::Region, contents: &[u8]) -> Result<(), UffdError> {
//!     let page_size = region.page_size();
//!     let mut events = Vec::new();
//!     loop {
//!         match uffd.read(Wait::Forever, &mut events) {
//!             Err(UffdError::ShutDown) => return Ok(()),
//!             other => other?,
//!         };
//!         for event in events.drain(..) {
//!             let Event::Fault(fault) = event else { continue };
//!             let Some(page) = region.page_at(fault.address) else { continue };
//!             if fault.kind == FaultKind::WriteProtect {
//!                 region.writeprotect(page..page + 1, WriteProtect::Lift)?;
//!             } else {
//!                 // Messages are hints: the page may be there by now.
//!                 let _progress = region.copy_missing(page, &contents[page * page_size..][..page_size])?;
//!             }
//!         }
//!     }
//! }
//! ```
#![forbid(unsafe_code)]

mod adopt;
mod error;
mod event;
mod options;
mod progress;
mod sleeper;
mod uffd;

pub use adopt::AdoptError;
pub use error::{Refusal, UffdError};
pub use event::{Event, Fault, FaultKind};
pub use options::{Capabilities, KernelFaults, Options, Provider};
pub use progress::{Incomplete, Progress, Stopped};
pub use sleeper::{Place, Sleeper, Told};
pub use uffd::{Region, Shared, Uffd, Wait, WriteProtect};
pub use userfault_abi as abi;
pub use userfault_abi::errno::Errno;
pub use userfault_abi::{Features, IoctlMask, PagefaultFlags, RegisterModes};
pub use userfault_memory::Unfit;
