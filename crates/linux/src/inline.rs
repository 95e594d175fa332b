//! Faults of private memory that the thread answers itself, in a SIGBUS handler.
//!
//! The descriptor has the SIGBUS feature, so the kernel tells nobody of a missing page, and raises the signal.
//! The handler finds the region by the address, fetches the bytes and copies them. What it cannot answer it hands
//! over (`handed.rs`): the descriptor then has an event for it, as without the feature.
//!
//! ```text
//! SIGBUS ── slot_of(address) ──> large stack, Inline there: Answers ── UFFDIO_COPY ──> return, repeat
//!                                  └─ else, or AskMonitor: file · still missing? · ring · park
//! Uffd::read ── messages of the kernel, then what was filed
//! ```
//!
//! A context with the feature has one of the static slots below, whether it ever answers inline or not: its readers
//! may be asleep before it does. What a forked child must not share is in `home.rs`.
//!
//! Adopted memory is not answered inline: a bus error there may be about what the program has put in its place, and
//! nobody could tell.
//!
//! Invariants:
//!
//! 1. Nothing called from `BusErrors::handle` allocates, panics, locks or initialises a thread local.
//! 2. `start` and `end` of a slot name a region of the slot's context, or are 0. Who reads them while they change
//!    may see a range that never was: nothing is done on their word alone. The answers say themselves which pages
//!    they are for, and a fault is looked at again once it was filed.
//!
//! # Ordering
//!
//! A region ends by clearing the range, then waking; a sleeper files, then looks at the range. All are `SeqCst`
//! or separated by such fences, so one sees the other.
//!
//! Kernel counterpart: `UFFD_FEATURE_SIGBUS`.
#![expect(unsafe_code, reason = "promises what a signal handler may do; the two invariants above are the proof")]

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::epoll;
use userfault_abi::{CopyModes, Features, PagefaultFlags, RegisterModes};
use userfault_client::{Errno, Fault, Progress, Stopped, UffdError};
use userfault_memory::page_size;
use userfault_signal::{
    Answers, AskMonitor, Disposition, FaultContext, FaultHandler, InlineCounts, InlineSource, InstallError, Place,
    Signal, install, is_blocked, still_installed,
};

use crate::context::{Context, system};
use crate::handed::{self, Handed};
use crate::home::{Home, is_readable};
use crate::pages::Pages;
use crate::region::Region;
use crate::sys;

/// Contexts with the SIGBUS feature at a time.
pub(crate) const SLOTS: usize = 1024;

struct Slot {
    taken: AtomicBool,
    /// The region whose faults are ours: the addresses of its first byte and of the first one behind it.
    start: AtomicUsize,
    end: AtomicUsize,
    place: Place<Here>,
    /// Some page may be poisoned. Kernels without memory failure raise the same signal for those.
    may_be_poisoned: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        place: Place::new(),
        may_be_poisoned: AtomicBool::new(false),
    }
}; SLOTS];
/// No slot from here on was ever taken.
static HIGH: AtomicUsize = AtomicUsize::new(0);
/// The handler is installed; a forked child has its parent's.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// What a thread needs to answer itself.
#[derive(Debug)]
pub(crate) struct Here {
    pages: Arc<Pages>,
    answers: Answers,
}

/// Has faulting threads answer themselves, for as long as it lives: see [`Region::answer_inline`].
///
/// Example: [`Region::answer_inline`](crate::Region::answer_inline).
#[must_use = "dropped, it ends the inline answers"]
pub struct Inline {
    slot: &'static Slot,
    here: Arc<Here>,
}

/// The slot of a context.
#[derive(Debug)]
pub(crate) struct Handover {
    index: u32,
    slot: &'static Slot,
    poller: OnceLock<OwnedFd>,
}

impl Region {
    /// From now on a thread that touches a missing page of this region brings it from `source` itself, in a
    /// SIGBUS handler, together with the other missing ones of an aligned group of `window` pages, at least 1.
    /// Nobody is told.
    ///
    /// Where it cannot, the fault is an event as without the SIGBUS feature: if the source says [`AskMonitor`],
    /// if the thread's alternate signal stack is smaller than
    /// [`LARGE_STACK_BYTES`](userfault_signal::LARGE_STACK_BYTES) (those that Rust gives its threads are: see
    /// [`AlternateStack`](userfault_signal::AlternateStack)), or if [`Answers::AT_ONCE`] others are at it. That
    /// goes on when the result is dropped, until the region ends. So there is to be a monitor, with a source of
    /// the same contents.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotInline`] without the SIGBUS feature, for memory registered for more than missing pages, for
    /// adopted memory, while a region of the descriptor is answered inline already, where the calling thread blocks SIGBUS, and
    /// where another handler was installed after ours; [`UffdError::System`] without memory.
    pub fn answer_inline(&self, source: impl InlineSource, window: usize) -> Result<Inline, UffdError> {
        let pages = self.inner();
        let context = pages.context();
        context.check_process()?;
        let Some(handover) = context.handed_over() else {
            return refused(
                "the descriptor was opened without the SIGBUS feature; open it by Builder::answer_inline, or with Features::SIGBUS",
            );
        };
        if pages.modes() != RegisterModes::MISSING {
            return refused("the memory is registered for more than missing pages; leave write protection out");
        }
        if pages.adopted().is_some() {
            return refused("a bus error in adopted memory may be the program's own; serve it by a monitor");
        }
        let answers = Answers::new(source, pages.count(), page_size(), window)
            .map_err(|error| system("mmap", Errno::from_raw(error.errno)))?;
        let here = Arc::new(Here { pages: Arc::clone(pages), answers });
        let slot = handover.slot;
        let (home, _turn) = Home::begin(forget)?;
        take_signal(home)?;
        let served = slot.start.load(Ordering::SeqCst);
        if served != 0 && served != pages.base() || slot.place.publish(Arc::clone(&here)).is_err() {
            return refused("a region of this descriptor is, or was, answered inline; open a descriptor for this one");
        }
        slot.end.store(pages.base() + pages.count() * page_size(), Ordering::SeqCst);
        slot.start.store(pages.base(), Ordering::SeqCst);
        Ok(Inline { slot, here })
    }
}

fn refused(reason: &'static str) -> Result<Inline, UffdError> {
    Err(UffdError::NotInline { reason })
}

/// In a forked child: the slots, and who sleeps for them, are its parent's.
fn forget() {
    for slot in &TABLE {
        slot.start.store(0, Ordering::SeqCst);
    }
    handed::forget();
}

/// Makes SIGBUS come to us; for whose turn it is.
fn take_signal(home: &Home) -> Result<(), UffdError> {
    let not_inline = |reason| Err(UffdError::NotInline { reason });
    if is_blocked(Signal::Bus.number()) {
        return not_inline("this thread blocks SIGBUS, so its first fault would end the process; unblock it");
    }
    home.make_pagemap()?;
    if !IS_INSTALLED.load(Ordering::Relaxed) {
        install::<BusErrors>(Signal::Bus).map_err(|error| {
            let errno = if let InstallError::Os { errno } = error { Errno::from_raw(errno) } else { Errno::EBUSY };
            system("installing a SIGBUS handler", errno)
        })?;
        IS_INSTALLED.store(true, Ordering::Relaxed);
    }
    match still_installed(Signal::Bus) {
        Ok(()) => Ok(()),
        Err(_) => not_inline("SIGBUS went to another handler after ours; install that one first"),
    }
}

impl Inline {
    /// What was answered inline.
    #[must_use]
    pub fn counts(&self) -> InlineCounts {
        self.here.answers.counts()
    }

    /// Ends it, as a drop does, and tells what was answered in all.
    ///
    /// # Blocking
    ///
    /// Until the source has returned to every thread that is in it.
    #[must_use]
    pub fn end(self) -> InlineCounts {
        let here = Arc::clone(&self.here);
        drop(self);
        here.answers.counts()
    }
}

impl Drop for Inline {
    /// # Blocking
    ///
    /// Until the source has returned to every thread that is in it.
    fn drop(&mut self) {
        // In a forked child those that were inside are gone, and would be waited for in vain.
        if self.here.pages.context().check_process().is_ok() {
            let _ours = self.slot.place.withdraw();
        }
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("start", &self.start).finish_non_exhaustive()
    }
}

struct BusErrors;

// SAFETY: invariant 1.
unsafe impl FaultHandler for BusErrors {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        let Some(home) = Home::get().filter(|_| context.is_bus_error()) else { return Disposition::NotOurs };
        let address = context.address();
        let known = TABLE.get(..HIGH.load(Ordering::SeqCst)).unwrap_or_default();
        let Some((index, slot)) = (0..).zip(known).find(|(_, slot)| slot.has(address)) else {
            return Disposition::NotOurs;
        };
        if slot.may_be_poisoned.load(Ordering::Relaxed) && home.is_lost(address) {
            return Disposition::NotOurs;
        }
        let answer = if context.has_large_stack() { slot.answer(address) } else { Err(AskMonitor) };
        match answer {
            Ok(Answered::Brought) => Disposition::Handled,
            // As a rule, by somebody else.
            Ok(Answered::WasThere) if home.is_lost(address) => Disposition::NotOurs,
            Ok(Answered::WasThere) => Disposition::Handled,
            Err(AskMonitor) if home.is_lost(address) => Disposition::NotOurs,
            Err(AskMonitor) => {
                slot.hand_over(home, index, context, address);
                Disposition::Handled
            }
        }
    }
}

/// What came of an answer for the page that a thread waits for.
enum Answered {
    Brought,
    WasThere,
}

impl Slot {
    fn has(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::SeqCst);
        start != 0 && (start..self.end.load(Ordering::SeqCst)).contains(&address)
    }

    /// Not inlined: on small stacks, where nobody comes here, its frame must not be part of the handler's.
    #[inline(never)]
    fn answer(&self, address: usize) -> Result<Answered, AskMonitor> {
        let here = self.place.enter().ok_or(AskMonitor)?;
        let offset = address.checked_sub(here.pages.base()).ok_or(AskMonitor)?;
        let page = offset / page_size();
        let mut answered = Answered::Brought;
        here.answers.answer(page, |first, bytes| here.install(first, page, bytes, &mut answered))?;
        Ok(answered)
    }

    /// Leaves the fault to the monitor, and sleeps until the page is filled.
    fn hand_over(&self, home: &Home, index: u32, context: &mut FaultContext<'_>, address: usize) {
        let (write, thread) = (context.is_write(), thread_id());
        let Some(ticket) = handed::file(&Handed { slot: index, address: address as u64, write, thread }) else {
            // No row is free: the access is repeated until one is.
            return std::thread::yield_now();
        };
        if self.has(address) && !is_readable(address) {
            home.ring(index);
            ticket.park(context);
        }
        ticket.leave();
    }
}

fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

impl Here {
    /// Copies to those pages that are missing; how many. `asked` is the page that the thread waits for.
    fn install(&self, first: usize, asked: usize, bytes: &[u8], answered: &mut Answered) -> Result<usize, AskMonitor> {
        let (size, mut at, mut filled) = (page_size(), first, 0);
        let end = first + bytes.len() / size;
        let mut most = end - first;
        while at < end {
            let rest = bytes.get((at - first) * size..).unwrap_or_default();
            let now = rest.get(..most * size).unwrap_or(rest);
            let Ok(Progress { pages_done, stopped_by }) = self.pages.copy(at, now, CopyModes::NONE) else {
                return Err(AskMonitor);
            };
            filled += pages_done;
            at += pages_done;
            match stopped_by {
                None => {}
                Some(Stopped::AlreadyPresent) => {
                    if at == asked {
                        *answered = Answered::WasThere;
                    }
                    at += 1;
                }
                Some(Stopped::NotRegistered) if most > 1 => most = 1,
                // Plain memory by now.
                Some(Stopped::NotRegistered) => at += 1,
                // Others of the window are wanted by nobody yet.
                Some(_) if asked < at => break,
                Some(_) => return Err(AskMonitor),
            }
        }
        Ok(filled)
    }
}

impl Handover {
    /// A slot that nobody has.
    pub(crate) fn new() -> Result<Self, UffdError> {
        let free = (0..).zip(&TABLE).find(|(_, slot)| !slot.taken.swap(true, Ordering::Acquire));
        let (index, slot) = free.ok_or(system("opening more than 1024 with the SIGBUS feature", Errno::ENOSPC))?;
        HIGH.fetch_max(index as usize + 1, Ordering::SeqCst);
        let handover = Self { index, slot, poller: OnceLock::new() };
        let (home, _turn) = Home::begin(forget)?;
        home.make_bell(index)?;
        Ok(handover)
    }

    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        Home::get()?.bell(self.index)
    }

    /// From now on some page may be poisoned.
    pub(crate) fn note_poison(&self) {
        self.slot.may_be_poisoned.store(true, Ordering::Relaxed);
    }

    /// The oldest fault that was handed over and not read.
    pub(crate) fn take(&self) -> Option<Handed> {
        handed::take(self.index)
    }

    /// There may be more to read.
    pub(crate) fn ring(&self) {
        if let Some(home) = Home::get() {
            home.ring(self.index);
        }
    }

    /// Empties the eventfd; before the faults are taken.
    pub(crate) fn drain(&self) {
        if let Some(bell) = self.bell() {
            let _empty_is_fine = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    /// Wakes those who sleep in the `len` bytes at `start`.
    pub(crate) fn wake(&self, start: u64, len: u64) {
        handed::wake(self.index, start, len);
    }

    /// The region that begins at `start` goes.
    pub(crate) fn end_region(&self, start: usize) {
        if self.slot.start.compare_exchange(start, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.wake(0, u64::MAX);
        }
    }

    /// Polls readable while the kernel has a message or something was handed over; made at the first call.
    pub(crate) fn poller(&self, descriptor: BorrowedFd<'_>) -> Result<BorrowedFd<'_>, UffdError> {
        if self.poller.get().is_none() {
            let lost = |error| system("epoll", sys::errno(error));
            let fresh = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(lost)?;
            for source in [Some(descriptor), self.bell()].into_iter().flatten() {
                epoll::add(&fresh, source, epoll::EventData::new_u64(0), epoll::EventFlags::IN).map_err(lost)?;
            }
            let _first = self.poller.set(fresh);
        }
        self.poller.get().map(AsFd::as_fd).ok_or(system("epoll", Errno::ENOMEM))
    }

    /// Those whose slot this is.
    pub(crate) fn sleepers(&self, mut found: impl FnMut(Handed, bool)) {
        handed::for_each(|handed, is_read| {
            if handed.slot == self.index {
                found(handed, is_read);
            }
        });
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::SeqCst);
        self.wake(0, u64::MAX);
        self.drain();
        self.slot.may_be_poisoned.store(false, Ordering::Relaxed);
        self.slot.taken.store(false, Ordering::Release);
    }
}

impl Context {
    /// The event of a fault that was handed over, as the kernel would tell it.
    pub(crate) fn told(&self, handed: Handed) -> Fault {
        let flags = if handed.write { PagefaultFlags::WRITE } else { PagefaultFlags::NONE };
        let within = if self.features().contains(Features::EXACT_ADDRESS) { 0 } else { page_size() as u64 - 1 };
        let thread = if self.features().contains(Features::THREAD_ID) { handed.thread } else { 0 };
        Fault::from_message(flags, handed.address & !within, thread)
    }
}
