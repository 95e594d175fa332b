//! The crate against the kernel it runs on.
//!
//! Method: real descriptors, real faults, every byte compared. Nothing sleeps and no clock decides; a
//! thread is asleep when the descriptor's fdinfo counts it. What needs a process of its own (other
//! credentials, fork, a fatal signal, a count of open descriptors) starts this binary again for one
//! test. Where the machine has no userfaultfd a test prints why it is skipped, and fails if
//! `USERFAULT_REQUIRE_KERNEL=1`.
#![expect(clippy::unwrap_used, reason = "a call that fails unexpectedly fails the test")]

mod adopt;
mod events;
mod fills;
mod fork;
mod given;
mod hammer;
mod inline;
mod opening;
mod outside;
mod readers;
mod shared;
mod sleepers;
mod support;
mod writeprotect;
