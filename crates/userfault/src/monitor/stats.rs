//! What a monitor counts, where messages arrive and pages leave.
//!
//! # Ordering
//!
//! Relaxed: each number is exact for itself; a snapshot may show one ahead of another.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use userfault_signal::InlineCounts;

/// What a monitor has done, in all its threads.
///
/// Example: [`MonitorBuilder`](crate::MonitorBuilder).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MonitorStats {
    /// Messages about missing pages.
    pub faults: u64,
    /// Faults that the faulting threads answered themselves, without a message.
    pub faults_inline: u64,
    /// Messages about writes to protected pages.
    pub write_faults: u64,
    /// Pages brought, by the monitor or inline.
    pub pages_filled: u64,
    /// Pages that somebody else had brought meanwhile.
    pub pages_present: u64,
    /// Pages whose sleepers got SIGBUS.
    pub pages_poisoned: u64,
    /// Errors.
    pub errors: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    faults: AtomicU64,
    write_faults: AtomicU64,
    filled: AtomicU64,
    present: AtomicU64,
    poisoned: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    pub(crate) fn write_fault(&self) {
        self.write_faults.fetch_add(1, Relaxed);
    }

    pub(crate) fn filled(&self, pages: usize) {
        self.filled.fetch_add(pages as u64, Relaxed);
    }

    pub(crate) fn present(&self) {
        self.present.fetch_add(1, Relaxed);
    }

    pub(crate) fn poisoned(&self) {
        self.poisoned.fetch_add(1, Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Together with what was answered inline.
    pub(crate) fn now(&self, inline: InlineCounts) -> MonitorStats {
        MonitorStats {
            faults: self.faults.load(Relaxed),
            faults_inline: inline.faults,
            write_faults: self.write_faults.load(Relaxed),
            pages_filled: self.filled.load(Relaxed) + inline.pages_filled,
            pages_present: self.present.load(Relaxed),
            pages_poisoned: self.poisoned.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}
