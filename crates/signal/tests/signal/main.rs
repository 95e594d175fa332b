//! Real signals in real processes.
//!
//! Handlers are for the whole process and for ever, so each test that installs one runs its body in a
//! child: the same test binary, told by an environment variable to run that one test's closure.
//!
//! Invariants:
//!
//! 1. Handlers use atomics and async-signal-safe calls only, and fail by aborting their child.
//! 2. Pages that fault are mapped by `memory.rs`, and no Rust object lives in them.
//! 3. Memory handed to the kernel as a stack is leaked.
#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "signal handlers, page protection and accesses that fault are what is tested")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod chain;
mod child;
mod generation;
mod inside;
mod memory;
mod raise;
mod request;
mod thread;
