//! Hosts the userfaultfd engine in an ordinary process: real memory, real faults, no privilege.
//!
//! Missing pages are inaccessible; a touch raises SIGSEGV, whose handler asks the engine and parks the
//! thread. A fill brings the bytes through `/proc/self/mem`, or by way of a mirror where that is refused,
//! and makes the page accessible last. No system call is used that a container's default seccomp profile refuses.
//!
//! ```text
//! SIGSEGV → fault.rs ── engine.fault ──> Verdict::Sleep → bell.rs (tell the monitor) → park
//!                             Verdict::Inline → inline.rs (the thread brings the page itself)
//! monitor → uffd.rs::read ── engine.take
//!         → handle.rs::copy → fill.rs ── engine.fill, next ──> Claim
//!                                     region.rs: write, then lift     (plain, guarded or soft chunks)
//!                                   ── engine.commit, wake ──> unpark
//! ```
//!
//! What it cannot do: a *system call* on a missing page fails with `EFAULT` instead of waiting (H32), as
//! with `UFFD_USER_MODE_ONLY`.
//!
//! Programs use `userfault`, which takes this provider where the kernel's is refused, and has monitors. This crate alone is
//! for those who want it in any case, with nothing else, or its settings ([`tune`], [`statistics`]).
//!
//! Kernel counterpart: the page-fault path and `mm/`.
//!
//! # Examples
//!
//! ```
//! use userfault_client::{Event, FaultKind, Options, Region as _, RegisterModes, Uffd as _, Wait, WriteProtect};
//! use userfault_process::Uffd;
//!
//! let uffd = Uffd::open(&Options::default())?;
//! let region = uffd.map(2, RegisterModes::MISSING | RegisterModes::WP)?;
//! region.copy(1, &vec![1; region.page_size()])?.complete()?;
//! region.writeprotect(1..2, WriteProtect::Protect)?;
//!
//! let mut window = region.window(0..2)?;
//! let page_size = region.page_size();
//! let writer = std::thread::spawn(move || {
//!     window.as_mut_slice()[page_size] += 1;
//!     (window.as_slice()[0], window.as_slice()[page_size])
//! });
//! let (mut events, mut kinds) = (Vec::new(), Vec::new());
//! while kinds.len() < 2 {
//!     uffd.read(Wait::Forever, &mut events)?;
//!     for event in events.drain(..) {
//!         let Event::Fault(fault) = event else { continue };
//!         kinds.push(fault.kind);
//!         match fault.kind {
//!             FaultKind::WriteProtect => region.writeprotect(1..2, WriteProtect::Lift)?,
//!             _ => drop(region.copy(0, &vec![7; page_size])?),
//!         }
//!     }
//! }
//! assert_eq!(kinds, [FaultKind::WriteProtect, FaultKind::Missing]);
//! assert_eq!(writer.join().unwrap(), (7, 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adopt;
mod bell;
mod door;
mod etiquette;
mod fault;
mod fill;
mod fork;
mod handle;
mod host;
mod inline;
mod layout;
mod lent;
mod lock;
mod machine;
mod pagemap;
mod probe;
mod region;
mod regions;
mod shared;
mod sleepers;
mod states;
mod sys;
mod threads;
mod uffd;
mod writer;

pub use etiquette::{accept_handler, check_signals};
pub use handle::{Region, Shared, Window};
pub use host::tune;
pub use inline::Inline;
pub use machine::Tuning;
pub use probe::{Mechanism, probe};
pub use shared::FileRegion;
pub use sleepers::print_sleepers;
pub use uffd::{Statistics, Uffd, statistics};
pub use userfault_engine::Protocol;

pub mod raw {
    //! The descriptor as an ABI: requests and arguments by address, errno out.
    //!
    //! For conformance tests, and for those who bring a foreign program's calls.

    pub use crate::door::{Descriptor, Memory};
    pub use userfault_engine::{FdInfo, Privilege, Protocol};
}

#[doc(hidden)]
pub mod testing {
    //! For this crate's tests: host calls that are counted, and that fail on request (H5). Nothing here
    //! before the first open.

    use crate::host::Host;

    /// Calls that changed what pages allow or hold, so far.
    #[must_use]
    pub fn host_calls() -> usize {
        Host::get().map_or(0, |host| host.machine.calls())
    }

    /// Lets `skip` more such calls pass, then makes `count` fail as if the machine were out of mappings.
    pub fn fail_host_calls(skip: usize, count: usize) {
        if let Some(host) = Host::get() {
            host.machine.fail(skip, count);
        }
    }
}
