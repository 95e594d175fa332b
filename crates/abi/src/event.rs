//! The event numbers: first byte of every message.
//!
//! Kernel counterpart: `UFFD_EVENT_*`.

/// A thread faulted (`UFFD_EVENT_PAGEFAULT`).
///
/// # Source
///
/// `userfaultfd(2)`, `<linux/userfaultfd.h>`.
pub const PAGEFAULT: u8 = 0x12;

/// The process forked (`UFFD_EVENT_FORK`).
///
/// # Source
///
/// `userfaultfd(2)`, `<linux/userfaultfd.h>`.
pub const FORK: u8 = 0x13;

/// Registered memory was moved by `mremap` (`UFFD_EVENT_REMAP`).
///
/// # Source
///
/// `userfaultfd(2)`, `<linux/userfaultfd.h>`.
pub const REMAP: u8 = 0x14;

/// Pages of registered memory were dropped by `madvise` (`UFFD_EVENT_REMOVE`).
///
/// # Source
///
/// `userfaultfd(2)`, `<linux/userfaultfd.h>`.
pub const REMOVE: u8 = 0x15;

/// Registered memory was unmapped (`UFFD_EVENT_UNMAP`).
///
/// # Source
///
/// `userfaultfd(2)`, `<linux/userfaultfd.h>`.
pub const UNMAP: u8 = 0x16;
