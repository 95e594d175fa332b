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
//! Kernel counterpart: `userfaultfd(2)`, `ioctl_userfaultfd(2)`, `/dev/userfaultfd`.
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

pub mod raw {
    //! The system calls themselves, for conformance tests and for what has no safe form.

    pub use crate::sys::{create, create_from_device, ioctl};
}
