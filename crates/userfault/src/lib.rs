//! Page faults handled in userland, over the kernel's userfaultfd or without it.
//!
//! What a program adds to its `Cargo.toml`. It opens a descriptor at whichever provider this machine
//! permits ([`open`], [`Builder`]), maps memory whose pages are missing, and has a [`Monitor`] bring each
//! page from wherever it lives when it is first touched.
//!
//! ```text
//! Builder ── open ──> Uffd ── map ──> Region ── window, shared ──> Window, Shared
//!                      │ monitor(&region)
//!                      v
//!               MonitorBuilder ── serve(Source) ──> Monitor   threads that answer, joined on drop
//! ```
//!
//! [`Uffd`], [`Region`], [`Window`] and [`Shared`] are whichever provider's; their operations are the
//! traits in [`client`], which [`prelude`] brings into scope. What only one provider has is reached
//! through [`linux`], [`process`] and [`Either`].
//!
//! Kernel counterpart: `userfaultfd(2)`.
//!
//! ---
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod adopt;
pub mod doctor;
mod either;
mod file;
mod inline;
mod monitor;
mod open;
mod report;
mod shared;
mod source;
mod uffd;

pub use either::{Either, Region, Shared, Window};
pub use file::FileSource;
pub use inline::{AnswerInline, Bytes, Inline, Zeros};
pub use monitor::{Monitor, MonitorBuilder, MonitorError, MonitorStats};
pub use open::{Builder, Choice, OpenError, Refused, open};
pub use report::{SleeperReport, report_sleepers_on};
pub use shared::FileRegion;
pub use source::{Source, SourceError};
pub use uffd::{Forked, Uffd};

pub use userfault_client as client;
pub use userfault_client::{
    AdoptError, Capabilities, Errno, Event, Fault, FaultKind, Features, Incomplete, IoctlMask, KernelFaults, Options,
    PagefaultFlags, Progress, Provider, Refusal, RegisterModes, Sleeper, Stopped, Told, UffdError, Unfit, Wait,
    WriteProtect,
};
pub use userfault_linux as linux;
pub use userfault_memory::{populate, populate_mut};
pub use userfault_process as process;
pub use userfault_process::Protocol;
pub use userfault_signal::{
    AlternateStack, AskMonitor, FileBytes, InlineCounts, InlineSource, LARGE_STACK_BYTES, RequestError, StackError,
    unblock_faults,
};

pub mod prelude {
    //! The operations of descriptors, regions and what they lend, for `use userfault::prelude::*`.

    pub use userfault_client::{Region as _, Shared as _, Uffd as _};
}

/// The blocks of code in the documents beside the README, compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/from-userfaultfd-rs.md")]
struct Documents;
