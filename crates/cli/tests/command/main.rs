//! The command as a user runs it.
//!
//! Method: the built binary, real files, exit status and printed words. Nothing sleeps and no clock decides.
//! Where the machine has no userfaultfd, the part of a test that needs it prints why it is skipped, and fails
//! if `USERFAULT_REQUIRE_KERNEL=1`.
#![expect(clippy::unwrap_used, reason = "a call that fails unexpectedly fails the test")]

mod confined;
mod doctor;
mod failures;
mod mapping;
mod raw;
#[path = "../../../userfault/tests/facade/sandbox.rs"]
mod sandbox;
mod support;
mod words;
