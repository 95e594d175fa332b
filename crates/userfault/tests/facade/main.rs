//! The facade at both providers: opening, serving, and what happens when contents cannot be had.
//!
//! Method: real faults, every byte compared. Nothing sleeps and no clock decides. What ends a process or
//! needs other credentials starts this binary again for one test. Where the machine has no userfaultfd, the
//! part of a test that needs it prints why it is skipped, and fails if `USERFAULT_REQUIRE_KERNEL=1`.
#![expect(clippy::unwrap_used, reason = "a call that fails unexpectedly fails the test")]

mod adopting;
mod doctor;
mod examples;
mod failing;
mod forking;
mod hard;
mod inline;
mod kernel_access;
mod opening;
mod order;
mod report;
mod sandbox;
mod serving;
mod shared;
mod support;
