//! What is read from a descriptor, as owned values.
//!
//! Messages are hints: signals, wakes and races may repeat one or let its cause disappear, so
//! answering a fault must be idempotent (a page may be present already).
//!
//! Kernel counterpart: `struct uffd_msg`.

use userfault_abi::PagefaultFlags;

/// Why an access could not complete.
///
/// Example: [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The page has no contents: fill it.
    Missing,
    /// A write met a write-protected page: lift the protection (after saving what is needed).
    WriteProtect,
    /// The page has contents in the file but is not mapped: `continue_pages` maps it.
    Minor,
}

/// One thread that cannot go on until its page is answered.
///
/// # Examples
///
/// ```
/// use userfault_client::{Fault, FaultKind, PagefaultFlags};
///
/// let fault = Fault::from_message(PagefaultFlags::WRITE | PagefaultFlags::WP, 0x7000, 0);
/// assert_eq!(fault.kind, FaultKind::WriteProtect);
/// assert!(fault.write);
/// assert_eq!(fault.thread, None, "thread 0 is: not told");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// First byte of the page, or the exact byte with `EXACT_ADDRESS`.
    pub address: u64,
    /// What the monitor is asked to do.
    pub kind: FaultKind,
    /// The access was a write.
    pub write: bool,
    /// The faulting thread's id, with `THREAD_ID`.
    pub thread: Option<u32>,
    /// The flags as they came, unknown bits included.
    pub flags: PagefaultFlags,
}

impl Fault {
    /// Builds a fault from the fields of a `PAGEFAULT` message; `thread` 0 means "not told".
    #[must_use]
    pub fn from_message(flags: PagefaultFlags, address: u64, thread: u32) -> Self {
        let kind = if flags.contains(PagefaultFlags::WP) {
            FaultKind::WriteProtect
        } else if flags.contains(PagefaultFlags::MINOR) {
            FaultKind::Minor
        } else {
            FaultKind::Missing
        };
        let thread = (thread != 0).then_some(thread);
        Self { address, kind, write: flags.contains(PagefaultFlags::WRITE), thread, flags }
    }
}

/// One message. `F` is the provider's value for a forked child: an owned descriptor, closed on drop.
///
/// Example: [`crate`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<F> {
    /// A thread waits for a page.
    Fault(Fault),
    /// The process forked; the child's ranges are registered with this new context.
    Fork(F),
    /// A registered range moved. Addresses and length in bytes.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The contents of `[start, end)` are about to be dropped; fills wait until this was read.
    Remove {
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// `[start, end)` was unmapped; may cover more than what was registered.
    Unmap {
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// A message this library has no name for, as it came.
    Unknown([u8; 32]),
}
