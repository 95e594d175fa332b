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
//! Kernel counterpart: `force_sig_fault`, `get_signal`, `sigreturn`.

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
