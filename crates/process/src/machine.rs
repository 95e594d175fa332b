//! What this machine lets us do to pages, and how many mappings we may make of them.
//!
//! Each page that differs from its neighbour in what it allows costs a mapping, and the kernel has a
//! limit for these. So the host counts what it causes and stays below a budget, half of what the
//! machine has left when the host starts (H4).
//!
//! # Invariants
//!
//! 1. `memory` is written to only by the process that opened it: in a forked child the descriptor
//!    would write the *parent* (H10). A page that the kernel empties at fork tells.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use userfault_abi::errno::Errno;
use userfault_memory::{Advice, Fixed, Mapping, Protection, Shared};

use crate::sys::{self, Span};

/// How many of the most recently lifted pages are never taken back (H7): more than one instruction
/// can need at once.
const RECENT: usize = 64;

/// Settings for unusual machines and for tests; in force if given before the first open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// At most this many mappings; `None` for half of what `vm.max_map_count` leaves.
    pub mapping_budget: Option<usize>,
    /// Work as on kernels without guard markers (before 6.13).
    pub without_guards: bool,
}

pub(crate) struct Machine {
    memory: File,
    opener: Opener,
    /// Guard markers can be installed.
    pub(crate) guards: bool,
    budget: usize,
    mappings: AtomicUsize,
    recent: [AtomicU64; RECENT],
    recent_at: AtomicUsize,
    /// Where `relieve` looks next.
    pub(crate) hand: AtomicUsize,
    /// Host calls until one is made to fail, for tests; 0 for never.
    pub(crate) failing: AtomicUsize,
}

/// A word that is 1 in the process that wrote it and 0 in its forked children.
struct Opener {
    word: Shared,
}

impl Opener {
    fn new() -> Option<Self> {
        let mapping = std::sync::Arc::new(Mapping::reserve(1, Protection::ReadWrite).ok()?);
        mapping.advise(mapping.range(), Advice::WipeOnFork).ok()?;
        let word = mapping.shared(mapping.range()).ok()?;
        word.write(0, &[1]).ok()?;
        Some(Self { word })
    }

    fn is_here(&self) -> bool {
        let mut byte = [0];
        self.word.read(0, &mut byte).is_ok() && byte == [1]
    }
}

impl Machine {
    /// Opens what is needed and reads the limits. Must not run under a lock: it allocates.
    pub(crate) fn open(tuning: Tuning) -> Result<Self, Errno> {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/proc/self/mem")
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let limit = read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530);
        let now = std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
        Ok(Self {
            memory,
            opener: Opener::new().ok_or(Errno::ENOMEM)?,
            guards: !tuning.without_guards,
            budget: tuning.mapping_budget.unwrap_or(limit.saturating_sub(now) / 2),
            mappings: AtomicUsize::new(0),
            recent: [const { AtomicU64::new(u64::MAX) }; RECENT],
            recent_at: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            failing: AtomicUsize::new(0),
        })
    }

    /// Whether this is the process that opened the host, and not a forked child of it.
    pub(crate) fn is_opener(&self) -> bool {
        self.opener.is_here()
    }

    /// Writes through `/proc/self/mem`.
    pub(crate) fn write(&self, source: *const u8, target: Span) -> Result<usize, Errno> {
        if !self.is_opener() {
            return Err(Errno::EIO);
        }
        sys::forced_write(self.memory.as_fd(), source, target)
    }

    pub(crate) fn protect(&self, span: Span, access: sys::Access) -> Result<(), Errno> {
        self.may_fail()?;
        sys::protect(span, access)
    }

    pub(crate) fn guard(&self, span: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::guard(span)
    }

    pub(crate) fn unguard(&self, span: Span) -> Result<(), Errno> {
        self.may_fail()?;
        sys::unguard(span)
    }

    /// A chunk now has `new` borders instead of `old`.
    pub(crate) fn count(&self, old: usize, new: usize) {
        if new >= old {
            self.mappings.fetch_add(new - old, Relaxed);
        } else {
            self.mappings.fetch_sub(old - new, Relaxed);
        }
    }

    /// How many mappings we cause, and how many we may.
    pub(crate) fn mappings(&self) -> (usize, usize) {
        (self.mappings.load(Relaxed), self.budget)
    }

    pub(crate) fn is_over_budget(&self) -> bool {
        let (used, budget) = self.mappings();
        used > budget
    }

    /// Notes that these pages were lifted just now.
    pub(crate) fn lifted(&self, pages: std::ops::Range<u64>) {
        for page in pages.rev().take(RECENT) {
            let at = self.recent_at.fetch_add(1, Relaxed) % RECENT;
            if let Some(slot) = self.recent.get(at) {
                slot.store(page, Relaxed);
            }
        }
    }

    /// Whether one of the most recently lifted pages lies in `pages`.
    pub(crate) fn was_lifted_recently(&self, pages: &std::ops::Range<u64>) -> bool {
        self.recent.iter().any(|page| pages.contains(&page.load(Relaxed)))
    }

    /// Fails once if a test asked for it (H5).
    fn may_fail(&self) -> Result<(), Errno> {
        if self.failing.load(Relaxed) == 0 || self.failing.fetch_sub(1, Relaxed) != 1 {
            return Ok(());
        }
        Err(Errno::ENOMEM)
    }
}

fn read_number(path: &str) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Storage for the engine outside the malloc heap (D13).
pub(crate) struct Room<T>(Fixed<T>);

impl<T> Room<T> {
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        Fixed::with_capacity(capacity).ok().map(Self)
    }
}

impl<T> userfault_engine::Storage<T> for Room<T> {
    fn as_slice(&self) -> &[T] {
        self.0.as_ref()
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self.0.as_mut()
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn push(&mut self, value: T) -> Result<(), T> {
        self.0.push(value)
    }
}
