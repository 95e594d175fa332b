//! SIGSEGV and SIGBUS handlers: install, chain, masks, alternate stacks.
//!
//! For a provider that answers page faults inside its signal handler, or parks there until a monitor has.
//! What runs in a handler may have interrupted anything, malloc and the provider itself included: it must
//! not allocate, lock what the interrupted code may hold, panic, or initialise thread locals. A type that
//! implements the unsafe trait [`FaultHandler`] promises this, so that [`install`] is safe.
//!
//! ```text
//!  kernel ──▶ entry ──▶ FaultHandler::handle(&mut FaultContext) ── Handled ──▶ instruction repeats
//!               │                            │
//!               │ NotOurs                    ├─ parked(futex_wait …)   interrupted mask, L3
//!               ▼                            └─ raise_bus_error(…)     SIGBUS at the same instruction
//!    previous handler, or SIG_DFL and repeat
//! ```
//!
//! Asynchronous signals are blocked inside the handler, and outside of it while a [`SignalsBlocked`] token
//! lives: so no handler ever interrupts a holder of a provider's lock. SIGSEGV and SIGBUS stay deliverable
//! in both: a blocked fault would kill without a word.
//!
//! Separate from the providers because two of them, and the pager, answer inline.
//!
//! For those who build such a provider, or share the process with one: `userfault-process` and `userfault-linux` use it.
//! Of use to programs of `userfault` are [`AlternateStack`] and [`unblock_faults`].
//!
//! Kernel counterpart: `force_sig_fault`, `get_signal`, `sigreturn`.
//!
//! # Examples
//!
//! ```
//! use std::ptr;
//! use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
//! use userfault_signal::{Disposition, FaultContext, FaultHandler, Signal, handler_address, install, still_installed};
//!
//! static PAGE: AtomicUsize = AtomicUsize::new(0);
//!
//! /// Allows everything on `PAGE` as soon as somebody touches it.
//! struct Opener;
//!
//! // SAFETY: an atomic and a system call: nothing is allocated, locked, or waited for, and nothing panics.
//! unsafe impl FaultHandler for Opener {
//!     fn handle(context: &mut FaultContext<'_>) -> Disposition {
//!         let page = PAGE.load(Relaxed);
//!         if !context.is_page_fault() || !(page..page.wrapping_add(4096)).contains(&context.address()) {
//!             return Disposition::NotOurs;
//!         }
//!         let allowed = libc::PROT_READ | libc::PROT_WRITE;
//!         // SAFETY: the page is one that was mapped for this, below.
//!         let answer = unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(page), 4096, allowed) };
//!         if answer == 0 { Disposition::Handled } else { Disposition::NotOurs }
//!     }
//! }
//!
//! let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
//! // SAFETY: a fresh mapping.
//! let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
//! PAGE.store(page.expose_provenance(), Relaxed);
//!
//! install::<Opener>(Signal::Segv)?;
//! assert!(still_installed(Signal::Segv).is_ok() && handler_address(Signal::Segv).is_some());
//! // SAFETY: mapped, and accessible once the handler has returned.
//! unsafe { page.cast::<u8>().write_volatile(7) };
//! # Ok::<(), userfault_signal::InstallError>(())
//! ```

mod arch;
mod context;
mod error;
mod generation;
mod handler;
mod inline;
mod known;
mod line;
mod mask;
mod park;
mod raise;
mod request;
mod room;
mod stack;
mod sys;
mod turn;

pub use context::FaultContext;
pub use error::{InstallError, Replaced, RequestError, StackError};
pub use generation::fork_generation;
pub use handler::{Disposition, FaultHandler, Signal, handler_address, install, still_installed};
pub use inline::{
    Answers, AnswersError, AskMonitor, Bytes, Entered, FileBytes, InlineCounts, InlineSource, Place, ReadError, Zeros,
};
pub use known::alternate_stack_in;
pub use line::Line;
pub use mask::{SignalSet, SignalsBlocked, block_all_in_this_thread, is_blocked, unblock_faults};
pub use park::{FutexWait, futex_wait, futex_wake};
pub use request::{OnSignal, on_signal};
pub use stack::{AlternateStack, LARGE_STACK_BYTES};
pub use turn::{Taken, Turn};
