//! The Linux kernel's own userfaultfd behind the client API.
//!
//! Separate from the hosted engine because here the kernel decides: this crate finds a way to open a
//! descriptor ([`Way`]), turns requests into ioctls and answers into values, and owns what must be
//! owned. What the kernel offers is found at run time, never by version.
//!
//! ```text
//! Uffd ── map ────────> Region       private memory ── Window (slices), Shared (copies)
//!  │ ├─── map_shared ─> FileRegion   shared memory  ── Shared
//!  │ └─── adopt ──────> Region       the program's own memory, where it stands
//!  │ read
//!  v
//! Event::Fork(Forked) ── into_foreign ──> Foreign    another process's memory, by address
//!           Received (over a socket) ────────┘
//! ```
//!
//! Left out: hugetlb memory; [`raw`] reaches it.
//!
//! Programs use `userfault`, which takes this provider where the machine permits it, and has monitors. This crate alone is
//! for those who want the kernel's and no other, and for what only the kernel has: moves, minor faults, asynchronous
//! write protection, events, other processes' memory.
//!
//! Kernel counterpart: `userfaultfd(2)`, `ioctl_userfaultfd(2)`, `/dev/userfaultfd`.
//!
//! # Examples
//!
//! ```
//! use userfault_client::abi::MoveModes;
//! use userfault_client::{Features, Options, Region as _, RegisterModes, Uffd as _, WriteProtect};
//! use userfault_linux::Uffd;
//!
//! let options = Options { require: Features::MOVE | Features::WP_ASYNC, ..Options::default() };
//! let uffd = match Uffd::open(&options) {
//!     Ok(uffd) => uffd,
//!     Err(refused) => {
//!         println!("{refused}"); // each way that was tried, and what to do about it
//!         return Ok(());
//!     }
//! };
//! let (from, to) = (uffd.map(2, RegisterModes::WP)?, uffd.map(2, RegisterModes::MISSING)?);
//! let mut window = from.window(0..2)?;
//! window.as_mut().fill(3);
//! from.writeprotect(0..2, WriteProtect::Protect)?;
//! window.as_mut()[from.page_size()] = 4;
//! assert_eq!(from.take_written(0..2)?, [1..2], "and nobody had to answer a fault");
//!
//! let _all_moved = to.move_from(0, &mut window, 1..2, MoveModes::NONE)?;
//! assert_eq!(to.window(0..1)?.as_ref()[0], 4);
//! # Ok::<(), userfault_client::UffdError>(())
//! ```
#![deny(unsafe_code)]

mod adopt;
mod context;
mod fdinfo;
mod file;
mod fill;
mod foreign;
mod gate;
mod given;
mod handed;
mod home;
mod inline;
mod open;
mod ops;
mod pages;
mod read;
mod region;
mod sleepers;
mod sys;
#[doc(hidden)]
pub mod trial;
mod uffd;

pub use fdinfo::FdInfo;
pub use file::FileRegion;
pub use foreign::{Foreign, Forked};
pub use given::{Handshake, Received};
pub use inline::Inline;
pub use open::{Probe, Way, probe};
pub use region::{Region, Shared, Window};
pub use sleepers::print_sleepers;
pub use uffd::Uffd;

/// The system calls themselves, for conformance tests and for what has no safe form.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use userfault_client::abi::{Api, OpenFlags, request};
/// use userfault_linux::raw::{create, ioctl};
///
/// if let Ok(descriptor) = create(OpenFlags::USER_MODE_ONLY | OpenFlags::CLOEXEC) {
///     let mut api = Api { api: request::UFFD_API, ..Api::default() }.encode();
///     // SAFETY: the structure is `api`, as long as what API reads and writes.
///     unsafe { ioctl(descriptor.as_fd(), request::API, api.as_mut_ptr())? };
///     assert_ne!(Api::decode(&api).unwrap().features, 0);
/// }
/// # Ok::<(), userfault_client::Errno>(())
/// ```
pub mod raw {
    pub use crate::sys::{create, create_from_device, ioctl};
}
