//! A real fault: from the signal to the engine's verdict to what the thread does about it.
//!
//! Runs in the SIGSEGV handler with asynchronous signals blocked: no allocation, no lock that the
//! interrupted code may hold, less than 4 KiB of stack (H22).
//!
//! Invariants:
//!
//! 1. Nothing called from `Faults::handle` allocates, panics or initialises a thread local.
//! 2. Holders of the host's locks have asynchronous signals blocked and never fault, so a lock found
//!    held belongs to another, running thread; a fault under the engine's lock ends the process with a
//!    sentence.
#![expect(unsafe_code, reason = "promises what a signal handler may do; the two invariants above are the proof")]

use std::sync::atomic::Ordering;

use userfault_abi::RegisterModes;
use userfault_engine::{Access, ContextId, Left, Origin, Page, PageRange, Patience, Verdict, WaiterId, Why};
use userfault_signal::{AskMonitor, Disposition, FaultContext, FaultHandler, FutexWait, SignalsBlocked};

use crate::fill::Bytes;
use crate::fork::Found;
use crate::host::Host;
use crate::region::Reopened;
use crate::states::PAGE_SIZE;
use crate::sys;

/// The handler that the host installs.
pub(crate) struct Faults;

// SAFETY: invariants 1 and 2.
unsafe impl FaultHandler for Faults {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        // A general protection fault (a non-canonical address) has no page: not ours (H23).
        if !context.is_page_fault() {
            return Disposition::NotOurs;
        }
        let is_nested = context.stack_left().is_some_and(|left| left < SLEEP_BYTES);
        let step = context.with_room(|context| {
            let step = decide(context);
            if let (true, Step::Sleep { host, waiter, ring }) = (is_nested, &step) {
                host.sleep(context, *waiter, *ring);
                return Step::Done;
            }
            step
        });
        match step {
            Step::NotOurs => return Disposition::NotOurs,
            Step::Done => {}
            Step::Fail => context.raise_bus_error(context.address()),
            // On the handler's own stack, if there is any left: it may take long, and a handler may jump out of it.
            Step::Sleep { host, waiter, ring } => host.sleep(context, waiter, ring),
        }
        Disposition::Handled
    }
}

/// What a sleep may need of stack. A handler of the program's that faults on a small alternate stack leaves less.
const SLEEP_BYTES: usize = 4096;

/// What is left to do about a fault.
enum Step {
    NotOurs,
    /// The access repeats.
    Done,
    /// The access raises SIGBUS.
    Fail,
    Sleep {
        host: &'static Host,
        waiter: WaiterId,
        ring: Option<ContextId>,
    },
}

impl From<Disposition> for Step {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Handled => Self::Done,
            Disposition::NotOurs => Self::NotOurs,
        }
    }
}

fn decide(context: &FaultContext<'_>) -> Step {
    let here = Host::get().map(|host| host.fault(context));
    if let Some(step @ (Step::Done | Step::Fail | Step::Sleep { .. })) = here {
        return step;
    }
    Host::of_ancestors().find_map(|host| host.fault_in_child(context)).unwrap_or(Step::NotOurs)
}

impl Host {
    fn fault(&'static self, context: &FaultContext<'_>) -> Step {
        let address = context.address();
        let write = context.is_write();
        if self.engine(context.signals_blocked()).is_locked_by_caller() {
            sys::die("userfault: a fault under the engine's lock; this is a bug in userfault-process\n");
        }
        if self.has_shared.load(Ordering::Relaxed) && self.has_appeared(context.signals_blocked(), address) {
            return Step::Done;
        }
        let thread = if self.wants_threads.load(Ordering::Relaxed) { sys::thread_id() } else { 0 };
        let patience = if context.has_large_stack() { Patience::Answer } else { Patience::Wait };
        let access = Access { address: address as u64, write, patience, origin: Origin::User, thread };
        let mut step = Step::Done;
        match self.decide(context.signals_blocked(), &access) {
            Verdict::NotOurs => return self.unregistered(context.signals_blocked(), address).into(),
            Verdict::Present(page) => return self.present(context.signals_blocked(), page, address, write).into(),
            Verdict::Sleep { waiter, ring } => return Step::Sleep { host: self, waiter, ring },
            Verdict::Retry | Verdict::Full => sys::yield_now(),
            Verdict::Bus => step = Step::Fail,
            Verdict::Zero(page) => self.zero(context.signals_blocked(), page),
            Verdict::Unprotect(page) => self.unprotect(context.signals_blocked(), page),
            Verdict::Inline { .. } => {}
        }
        self.got_on();
        step
    }

    /// The thread is past what it may have tried in vain.
    fn got_on(&self) {
        if let Some(thread) = self.threads.mine() {
            thread.got_on();
        }
    }

    /// The engine's verdict; `Inline` once the page was brought.
    fn decide(&self, blocked: &SignalsBlocked, access: &Access) -> Verdict {
        let verdict = self.engine(blocked).fault(access);
        let Verdict::Inline { context, page } = verdict else { return verdict };
        match self.answer_inline(blocked, context, page) {
            Ok(()) => verdict,
            // The monitor behind it meets the reason in an ordinary thread, and reports it.
            Err(AskMonitor) => self.engine(blocked).fault(&Access { patience: Patience::Wait, ..*access }),
        }
    }

    /// A fault in a forked child of the process whose host this is; `None` if it is not one of ours.
    fn fault_in_child(&self, context: &FaultContext<'_>) -> Option<Step> {
        let address = context.address();
        match self.find_in_child(context.signals_blocked(), Page::new((address / PAGE_SIZE) as u64))? {
            Found::Poisoned => Some(Step::Fail),
            // Nobody had told this process that it is a child (H18), or another thread was faster.
            Found::Plain => Some(Step::Done).filter(|_| self.unless_in_vain(address, 0) == Disposition::Handled),
        }
    }

    /// No registration covers the page: a stranger's fault, a change of layout in progress, or plain
    /// memory of ours that could not be opened.
    fn unregistered(&self, blocked: &SignalsBlocked, address: usize) -> Disposition {
        // Waits for the change to end.
        let layout = self.layout.read(blocked);
        let page = Page::new((address / PAGE_SIZE) as u64);
        let Some(region) = layout.find(page) else { return self.given_back(address) };
        if self.engine(blocked).registration(page).is_some() {
            return Disposition::Handled;
        }
        if let Some(run) = region.run(PageRange::one(page)) {
            region.open_plain(&self.machine, run.start);
        }
        self.unless_in_vain(address, self.layout_changes())
    }

    /// Memory of others. If it was adopted once, perhaps until a moment ago: what it allows now, only the
    /// access itself can tell.
    fn given_back(&self, address: usize) -> Disposition {
        let changes = self.layout_changes();
        let is_new = |thread: crate::threads::Thread<'_>| !thread.faults_in_vain(address, changes);
        if self.once_adopted.contains(address) && self.threads.mine().is_some_and(is_new) {
            return Disposition::Handled;
        }
        Disposition::NotOurs
    }

    /// The engine says the page has contents: we closed it ourselves, or somebody was faster, or the
    /// program forbade the access (H24).
    fn present(&self, blocked: &SignalsBlocked, page: Page, address: usize, write: bool) -> Disposition {
        let layout = self.layout.read(blocked);
        let registration = self.engine(blocked).registration(page);
        let region = registration.and_then(|(_, registration)| layout.get(registration.tag));
        let Some((region, run)) = region.and_then(|region| Some((region, region.run(PageRange::one(page))?))) else {
            return Disposition::Handled;
        };
        if self.machine.is_over_budget() {
            // One chunk at a time: bounded work in a fault.
            let _nothing_to_give = layout.relieve(&self.machine, self.states());
        }
        match region.reopen(&self.machine, self.states(), run.start, write) {
            Reopened::Retry => Disposition::Handled,
            Reopened::WasOpen { stamp } => self.unless_in_vain(address, stamp),
            Reopened::NoMemory => {
                if !layout.relieve(&self.machine, self.states()) {
                    sys::yield_now();
                }
                Disposition::Handled
            }
        }
    }

    fn unless_in_vain(&self, address: usize, stamp: u64) -> Disposition {
        let in_vain = self.threads.mine().is_some_and(|thread| thread.faults_in_vain(address, stamp));
        if in_vain { Disposition::NotOurs } else { Disposition::Handled }
    }

    /// Registered, but not for missing pages: contents are zeros, and nobody is asked.
    fn zero(&self, blocked: &SignalsBlocked, page: Page) {
        let layout = self.layout.read(blocked);
        // Only now does the registration stand still: it may have ended, or want the fault after all.
        let modes = self.engine(blocked).registration(page).map(|(_, registration)| registration.modes);
        if modes.is_none_or(|modes| modes.contains(RegisterModes::MISSING)) {
            return;
        }
        let Some(mut filling) = self.install(blocked, PageRange::one(page)) else { return };
        let _present_now = self.drive(blocked, &layout, &mut filling, Bytes::Zeros);
    }

    /// Protected, but nobody asks for write faults any more.
    fn unprotect(&self, blocked: &SignalsBlocked, page: Page) {
        let layout = self.layout.read(blocked);
        let modes = self.engine(blocked).registration(page).map(|(_, registration)| registration.modes);
        if modes.is_none_or(|modes| modes.contains(RegisterModes::WP)) {
            return;
        }
        let mut filling = self.engine(blocked).unprotect(PageRange::one(page));
        let _writable_now = self.drive(blocked, &layout, &mut filling, Bytes::Zeros);
    }

    /// Parks the thread until it is woken or a signal handler has run; either way the access repeats.
    fn sleep(&self, context: &mut FaultContext<'_>, waiter: WaiterId, ring: Option<ContextId>) {
        let thread = self.threads.mine();
        if let (Some(thread), Some(monitored)) = (&thread, ring)
            && thread.is_monitor_of(monitored)
        {
            sys::warn("userfault: a monitor touched a missing page of its own region; nobody could have answered\n");
            let _left = self.engine(context.signals_blocked()).leave(waiter, Why::Killed);
            context.raise_bus_error(context.address());
            thread.got_on();
            return;
        }
        if let Some(left_behind) = thread.as_ref().and_then(|thread| thread.sleeps_in(waiter)) {
            let _left = self.engine(context.signals_blocked()).leave(left_behind, Why::Interrupted);
            // Its sleeper may come back to the futex: it must find the word changed, and leave.
            self.unpark_one(left_behind);
        }
        self.notes.note(waiter);
        if let Some(ring) = ring {
            self.ring(ring);
        }
        self.park(waiter, context.signals_blocked_mut());
        if let Some(thread) = thread {
            thread.sleeps_no_more(waiter);
            thread.got_on();
        }
    }

    /// Sleeps until the engine lets `waiter` go, or a signal has been delivered, or waits for this handler's end.
    pub(crate) fn park(&self, waiter: WaiterId, blocked: &mut SignalsBlocked) {
        let Some(word) = self.words.get(waiter.index()) else { return };
        // A handler that interrupted the sleep may have forked: in the child there is nothing to leave.
        while self.machine.is_opener() {
            // The word before the mark: an unpark changes it after setting the mark.
            let seen = word.load(Ordering::Acquire);
            if self.engine(blocked).leave(waiter, Why::Check) != Left::Asleep {
                return;
            }
            match blocked.sleep_on(word, seen) {
                // The sleeper leaves and faults again, as the kernel's does (`m/fault/signal`).
                FutexWait::Interrupted if self.machine.is_opener() => {
                    let _left = self.engine(blocked).leave(waiter, Why::Interrupted);
                    return;
                }
                FutexWait::Interrupted | FutexWait::Woken | FutexWait::Changed | FutexWait::TimedOut => {}
            }
        }
    }
}
