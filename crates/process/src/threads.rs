//! What the fault handler remembers of each thread.
//!
//! A table in its own mapping, searched by thread pointer, since thread locals may be initialised
//! lazily and allocate. A row is read and written only by its own thread and the handlers that
//! interrupt it, so its fields need no order among threads.
//!
//! Rows are never given back: a later thread with the same thread pointer takes the row over.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use userfault_engine::{ContextId, WaiterId};
use userfault_memory::{MapError, Zeroed};

use crate::sys;

/// Twice the number of sleepers there can be.
const ROWS: usize = 1 << 17;
/// Words per row: thread pointer, sleeper, last vain fault, their count, monitor of, monitor's thread id.
const WORDS: usize = 6;

pub(crate) struct Threads {
    rows: Zeroed<AtomicU64Row>,
}

type AtomicU64Row = [AtomicU64; WORDS];

/// The calling thread's row.
pub(crate) struct Thread<'a> {
    row: &'a AtomicU64Row,
}

impl Threads {
    pub(crate) fn new() -> Result<Self, MapError> {
        Ok(Self { rows: Zeroed::new(ROWS)? })
    }

    /// The calling thread's row; `None` if the table is full.
    pub(crate) fn mine(&self) -> Option<Thread<'_>> {
        let pointer = sys::thread_pointer();
        let name = u64::try_from(pointer).ok().filter(|name| *name != 0)?;
        // Thread pointers differ in their middle bits: mix them down.
        let first = (pointer >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - 17);
        (0..ROWS).map(|step| (first + step) % ROWS).find_map(|index| {
            let row = self.rows.get(index)?;
            let [owner, ..] = row;
            let found = match owner.load(Relaxed) {
                0 => owner.compare_exchange(0, name, Relaxed, Relaxed).unwrap_or_else(|other| other),
                other => other,
            };
            (found == 0 || found == name).then_some(Thread { row })
        })
    }
}

impl Thread<'_> {
    /// Notes the slot this thread sleeps in, and returns the one it left behind, if any.
    ///
    /// A thread that faults anew is not asleep in an earlier fault any more: either a handler
    /// interrupted that sleep, which ends it (`m/fault/signal`), or it jumped out and will never come
    /// back to leave by itself (H29).
    pub(crate) fn sleeps_in(&self, waiter: WaiterId) -> Option<WaiterId> {
        let [_, sleeper, ..] = self.row;
        match sleeper.swap(waiter.to_bits(), Relaxed) {
            0 => None,
            bits => Some(WaiterId::from_bits(bits)),
        }
    }

    /// The slot this thread sleeps in.
    pub(crate) fn sleeper(&self) -> Option<WaiterId> {
        let [_, sleeper, ..] = self.row;
        Some(sleeper.load(Relaxed)).filter(|bits| *bits != 0).map(WaiterId::from_bits)
    }

    /// The sleep in `waiter` is over.
    pub(crate) fn sleeps_no_more(&self, waiter: WaiterId) {
        let [_, sleeper, ..] = self.row;
        // A nested fault's slot stays noted.
        let _left_alone = sleeper.compare_exchange(waiter.to_bits(), 0, Relaxed, Relaxed);
    }

    /// Counts faults in a row at `address` although the page is accessible and nothing has changed
    /// since (`stamp`); from the third on it is the program's own protection (H24).
    pub(crate) fn faults_in_vain(&self, address: usize, stamp: u64) -> bool {
        let [_, _, last, count, ..] = self.row;
        let here = (address as u64).rotate_left(17) ^ stamp;
        if last.swap(here, Relaxed) != here {
            count.store(0, Relaxed);
        }
        count.fetch_add(1, Relaxed) >= 2
    }

    /// Progress was made: the count of vain faults starts again.
    pub(crate) fn got_on(&self) {
        let [_, _, last, ..] = self.row;
        last.store(0, Relaxed);
    }

    /// Says that this thread answers the faults of `context`, or no longer any.
    pub(crate) fn monitors(&self, context: Option<ContextId>) {
        let [.., monitor, id] = self.row;
        monitor.store(context.map_or(0, name), Relaxed);
        id.store(u64::from(sys::thread_id()), Relaxed);
    }

    /// Whether this thread was to answer the faults of `context` itself (W35).
    pub(crate) fn is_monitor_of(&self, context: ContextId) -> bool {
        let [.., monitor, id] = self.row;
        // A later thread with the same thread pointer is somebody else.
        monitor.load(Relaxed) == name(context) && id.load(Relaxed) == u64::from(sys::thread_id())
    }
}

/// The context as a number that is never 0.
fn name(context: ContextId) -> u64 {
    context.to_bits()
}
