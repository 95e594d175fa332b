//! Faults that a SIGBUS handler hands over to the monitor, and the threads that sleep for them.
//!
//! With the SIGBUS feature the kernel tells nobody of a missing page. Where a thread cannot answer itself, its
//! handler files the fault here, rings, and parks; a reader of the descriptor finds it beside the kernel's
//! messages, and who fills the page unparks it. The table is static, has no lock and is never cleaned up by
//! anybody but its sleepers: it is written in handlers.
//!
//! A row's word is its state and its generation. Who moves it from one to the other by a compare-exchange has
//! seen the fields that belong to that generation.
//!
//! ```text
//! Free ── file ──> Filing ──> Unread ── read ──> Read          (files: the sleeper; reads: a reader)
//!   ^                            └────── wake ────┴──> Woken
//!   └──────── leave: the sleeper, or its thread when it files anew; the generation goes up
//! ```
//!
//! # Ordering
//!
//! ```text
//! sleeper                                who fills the page
//! J1  word := Unread                     C1  the page is there (a system call)
//! J2  is the page there? (system call)   C2  look for sleepers; word := Woken, futex wake
//! J3  not there: ring, park              
//! ```
//!
//! 1. A `SeqCst` fence stands between J1 and J2, and between C1 and C2: one of J2 and C2 sees what the other
//!    side did. The kernel changes and reads the page table under locks within the calls.
//! 2. A wake that comes between J2 and the park changed the word: the futex does not sleep.
//! 3. A reader drains the eventfd before it looks for unread rows; J1 comes before the ring. So a row that it
//!    misses leaves the eventfd readable.
//! 4. `IN_USE` and `HIGH` go up before J1, so C2 and readers look far enough.
//!
//! Kernel counterpart: `fault_pending_wqh` and `fault_wqh`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use userfault_signal::{FaultContext, FutexWait, futex_wake};

/// More faults than these wait for a free row.
const ROWS: usize = 4096;

const FREE: u32 = 0;
const FILING: u32 = 1;
const UNREAD: u32 = 2;
const READ: u32 = 3;
const WOKEN: u32 = 4;
const STATE: u32 = 7;
const GENERATION: u32 = STATE + 1;

struct Row {
    word: AtomicU32,
    slot: AtomicU32,
    thread: AtomicU32,
    write: AtomicBool,
    address: AtomicU64,
    /// The order in which rows were filed.
    arrival: AtomicU64,
}

static TABLE: [Row; ROWS] = [const {
    Row {
        word: AtomicU32::new(FREE),
        slot: AtomicU32::new(0),
        thread: AtomicU32::new(0),
        write: AtomicBool::new(false),
        address: AtomicU64::new(0),
        arrival: AtomicU64::new(0),
    }
}; ROWS];
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static HIGH: AtomicUsize = AtomicUsize::new(0);
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

/// A fault that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    /// The slot of its context.
    pub(crate) slot: u32,
    pub(crate) address: u64,
    pub(crate) write: bool,
    pub(crate) thread: u32,
}

/// A filed fault: its row, in one generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    row: &'static Row,
    generation: u32,
}

impl core::fmt::Debug for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Row").field("word", &self.word).finish_non_exhaustive()
    }
}

const fn is_asleep(word: u32) -> bool {
    matches!(word & STATE, UNREAD | READ)
}

fn rows() -> &'static [Row] {
    TABLE.get(..HIGH.load(Ordering::SeqCst)).unwrap_or_default()
}

impl Row {
    fn change(&self, from: u32, to: u32) -> bool {
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The word, and what was filed under it if it is still that when it is changed.
    fn look(&self) -> (u32, Handed) {
        let word = self.word.load(Ordering::Acquire);
        let handed = Handed {
            slot: self.slot.load(Ordering::Relaxed),
            address: self.address.load(Ordering::Relaxed),
            write: self.write.load(Ordering::Relaxed),
            thread: self.thread.load(Ordering::Relaxed),
        };
        (word, handed)
    }

    /// Gives up what was filed in this generation, by whoever comes first.
    fn free(&self, generation: u32) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & !STATE != generation || word & STATE <= FILING {
                return;
            }
            if self.change(word, generation.wrapping_add(GENERATION) | FREE) {
                IN_USE.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

/// Files a fault (J1); `None` if the table is full. Async-signal-safe.
///
/// An earlier row of the thread is given up: a handler interrupted that sleep, or jumped out of it.
pub(crate) fn file(handed: &Handed) -> Option<Ticket> {
    for row in rows() {
        let (word, earlier) = row.look();
        if word & STATE > FILING && earlier.thread == handed.thread {
            row.free(word & !STATE);
        }
    }
    let (index, row, generation) = take_row().or_else(|| {
        free_rows_of_the_dead();
        take_row()
    })?;
    row.slot.store(handed.slot, Ordering::Relaxed);
    row.thread.store(handed.thread, Ordering::Relaxed);
    row.write.store(handed.write, Ordering::Relaxed);
    row.address.store(handed.address, Ordering::Relaxed);
    row.arrival.store(ARRIVALS.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    IN_USE.fetch_add(1, Ordering::SeqCst);
    HIGH.fetch_max(index + 1, Ordering::SeqCst);
    row.word.store(generation | UNREAD, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    Some(Ticket { row, generation })
}

fn take_row() -> Option<(usize, &'static Row, u32)> {
    TABLE.iter().enumerate().find_map(|(index, row)| {
        let word = row.word.load(Ordering::Relaxed);
        (word & STATE == FREE && row.change(word, word | FILING)).then_some((index, row, word))
    })
}

/// Handlers jumped out of these sleeps, and then their threads ended.
fn free_rows_of_the_dead() {
    for row in rows() {
        let (word, handed) = row.look();
        if word & STATE > FILING && !thread_exists(handed.thread) {
            row.free(word & !STATE);
        }
    }
}

fn thread_exists(thread: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let id = i32::try_from(thread).ok().and_then(Pid::from_raw);
    id.is_some_and(|id| test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

impl Ticket {
    /// Sleeps until it is woken, or a signal was delivered or waits for that (J3): then the access faults again, as
    /// the kernel's does (`m/fault/signal`).
    pub(crate) fn park(self, context: &mut FaultContext<'_>) {
        loop {
            let seen = self.row.word.load(Ordering::Acquire);
            if seen & !STATE != self.generation || !is_asleep(seen) {
                return;
            }
            match context.signals_blocked_mut().sleep_on(&self.row.word, seen) {
                FutexWait::Interrupted => return,
                FutexWait::Woken | FutexWait::Changed | FutexWait::TimedOut => {}
            }
        }
    }

    /// Takes it out again.
    pub(crate) fn leave(self) {
        self.row.free(self.generation);
    }
}

/// Wakes who sleeps for `slot` in the `len` bytes at `start` (C2). Async-signal-safe.
pub(crate) fn wake(slot: u32, start: u64, len: u64) {
    fence(Ordering::SeqCst);
    if IN_USE.load(Ordering::SeqCst) == 0 {
        return;
    }
    for row in rows() {
        let (mut word, handed) = row.look();
        // A word that is Read by now instead of Unread is still the same sleeper's.
        while is_asleep(word) && handed.slot == slot && handed.address.wrapping_sub(start) < len {
            if row.change(word, word & !STATE | WOKEN) {
                futex_wake(&row.word, 1);
                break;
            }
            let now = row.word.load(Ordering::Acquire);
            if now & !STATE != word & !STATE {
                break;
            }
            word = now;
        }
    }
}

/// The oldest fault for `slot` that was not read, if there is one; it is read then.
pub(crate) fn take(slot: u32) -> Option<Handed> {
    loop {
        let unread = rows().iter().filter_map(|row| {
            let (word, handed) = row.look();
            let is_it = word & STATE == UNREAD && handed.slot == slot;
            is_it.then(|| (row.arrival.load(Ordering::Relaxed), row, word, handed))
        });
        let (_, row, word, handed) = unread.min_by_key(|(arrival, ..)| *arrival)?;
        if row.change(word, word & !STATE | READ) {
            return Some(handed);
        }
    }
}

/// In a forked child, before anybody files: gives up what its parent's threads had filed.
pub(crate) fn forget() {
    for row in &TABLE {
        let word = row.word.load(Ordering::Relaxed);
        if word & STATE != FREE {
            row.word.store((word & !STATE).wrapping_add(GENERATION) | FREE, Ordering::Relaxed);
        }
    }
    IN_USE.store(0, Ordering::SeqCst);
}

/// Calls `found` with each fault that somebody sleeps for, and whether it was read. Allocates nothing.
pub(crate) fn for_each(mut found: impl FnMut(Handed, bool)) {
    for row in rows() {
        let (word, handed) = row.look();
        if is_asleep(word) && row.word.load(Ordering::Acquire) & !STATE == word & !STATE {
            found(handed, word & STATE == READ);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Handed, Ticket, file, for_each, is_asleep, take, wake};
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    fn fault(slot: u32, address: u64, thread: u32) -> Handed {
        Handed { slot, address, write: false, thread }
    }

    fn sleeps(ticket: Ticket) -> bool {
        let word = ticket.row.word.load(Relaxed);
        word & !super::STATE == ticket.generation && is_asleep(word)
    }

    /// The table is one per process, and the threads here exist nowhere: one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn faults_are_read_once_oldest_first_by_their_own_context() {
        let _alone = alone();
        let all: Vec<_> = [5, 3, 4].map(|page| fault(1001, u64::from(page) << 12, 0x1_0000 + page)).to_vec();
        let tickets: Vec<_> = all.iter().map(|handed| file(handed).unwrap()).collect();
        assert_eq!(take(1002), None);
        assert_eq!([take(1001), take(1001), take(1001), take(1001)], [Some(all[0]), Some(all[1]), Some(all[2]), None]);
        assert!(tickets.iter().all(|ticket| sleeps(*ticket)), "being read wakes nobody");
        tickets.into_iter().for_each(Ticket::leave);
        let mut left = 0;
        for_each(|handed, _| left += usize::from(handed.slot == 1001));
        assert_eq!(left, 0);
    }

    #[test]
    fn a_wake_reaches_the_sleepers_of_its_bytes_read_or_not_and_nobody_else() {
        let _alone = alone();
        let [low, high, other] =
            [fault(1003, 0x1000, 0x2_0001), fault(1003, 0x2fff, 0x2_0002), fault(1004, 0x1000, 0x2_0003)]
                .map(|handed| file(&handed).unwrap());
        assert_eq!(take(1003).map(|handed| handed.address), Some(0x1000));
        wake(1003, 0x1001, 0x1ffe);
        assert_eq!([low, high, other].map(sleeps), [true, true, true]);
        wake(1003, 0x1000, 1);
        assert_eq!([low, high, other].map(sleeps), [false, true, true]);
        wake(1003, 0, u64::MAX);
        assert_eq!([low, high, other].map(sleeps), [false, false, true]);
        assert_eq!(take(1003), None, "who was woken is not told any more");
        [low, high, other].into_iter().for_each(Ticket::leave);
    }

    #[test]
    fn a_thread_that_files_anew_gives_up_its_earlier_sleep_and_a_late_leave_hurts_nobody() {
        let _alone = alone();
        let first = file(&fault(1005, 0x1000, 0x3_0001)).unwrap();
        let second = file(&fault(1005, 0x2000, 0x3_0001)).unwrap();
        assert_eq!([first, second].map(sleeps), [false, true]);
        first.leave();
        assert!(sleeps(second));
        second.leave();
        second.leave();
        let third = file(&fault(1005, 0x3000, 0x3_0001)).unwrap();
        second.leave();
        assert!(sleeps(third));
        third.leave();
    }

    #[test]
    fn rows_of_threads_that_ended_are_given_to_others() {
        let _alone = alone();
        // More than the kernel numbers threads by.
        const NOBODY: u32 = 0x7000_0000;
        for thread in 0..u32::try_from(super::ROWS).unwrap() {
            let _jumped_out_of = file(&fault(1006, 0x1000, NOBODY + thread)).unwrap();
        }
        let ticket = file(&fault(1006, 0x1000, std::process::id())).unwrap();
        assert!(sleeps(ticket));
        ticket.leave();
    }
}
