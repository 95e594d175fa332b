//! Threads: each does one thing at a time, and is observed.
//!
//! Kernel counterpart: tasks, the page-fault handler's retry loop, and parking.

use userfault_abi::Errno;
use userfault_engine::{
    Access, ContextId, Left, Origin, Page, PageRange, PageState, Pages, Patience, Verdict, WaiterId, Why,
};

use crate::memory::page_of;
use crate::{Descriptor, Place, Simulator};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Loads eight bytes.
    Load {
        /// Of the first byte.
        address: u64,
    },
    /// Stores eight bytes.
    Store {
        /// Of the first byte.
        address: u64,
        /// The bytes.
        value: u64,
    },
    /// Adds to eight bytes at once; the old value is the result.
    Add {
        /// Of the first byte.
        address: u64,
        /// What is added.
        value: u64,
    },
    /// Reads messages, blocking if the descriptor does.
    Read {
        /// From where.
        descriptor: Descriptor,
        /// Length of the buffer in bytes.
        count: usize,
        /// Where the buffer is.
        at: Place,
    },
}

/// What can be seen of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has nothing to do.
    #[default]
    Idle,
    /// Asleep in a fault.
    Asleep(WaiterId),
    /// Asleep in a read.
    Reading,
    /// The access is over, with this value (loads and adds).
    Done(u64),
    /// The read is over.
    Read(Result<Vec<u8>, Errno>),
    /// The access ended in a bus error at this address.
    Bus(u64),
    /// The access ended in a segmentation fault at this address.
    Segv(u64),
    /// Killed.
    Killed,
    /// Told to retry again and again: a change does not end, or there is no room.
    Spinning,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    activity: Option<Activity>,
    state: State,
    signals: u32,
}

/// A thread that is told to retry this often is spinning.
const PATIENCE: u32 = 100;

impl Simulator {
    /// Lets a thread begin something and run as far as it gets.
    pub fn start(&mut self, thread: usize, activity: Activity) {
        if self.threads.len() <= thread {
            self.threads.resize_with(thread + 1, Thread::default);
        }
        let entry = &mut self.threads[thread];
        assert!(
            !matches!(entry.state, State::Asleep(_) | State::Reading | State::Killed),
            "thread {thread} is busy: {:?}",
            entry.state
        );
        entry.activity = Some(activity);
        entry.signals = 0;
        self.run(thread);
    }

    /// What the thread does now.
    pub fn observe(&self, thread: usize) -> State {
        self.threads.get(thread).map(|thread| thread.state.clone()).unwrap_or_default()
    }

    /// How many signals the thread has handled during its current activity.
    pub fn signals(&self, thread: usize) -> u32 {
        self.threads.get(thread).map_or(0, |thread| thread.signals)
    }

    /// A signal with a handler: the thread leaves its sleep, runs the handler, and does it again.
    pub fn signal(&mut self, thread: usize) {
        self.threads[thread].signals += 1;
        let state = self.observe(thread);
        if let State::Asleep(waiter) = state {
            let _left = self.space.leave(waiter, Why::Interrupted);
            self.run(thread);
        } else if state == State::Reading {
            let descriptor = self.reading(thread);
            self.threads[thread].state = State::Read(Err(Errno::EINTR));
            // It may have been woken for a word: the next reader gets its chance.
            if let Some(context) = descriptor.and_then(|descriptor| self.context(descriptor)) {
                self.wake_reader(context);
            }
        }
    }

    /// A fatal signal.
    pub fn kill(&mut self, thread: usize) {
        if let State::Asleep(waiter) = self.observe(thread) {
            let _left = self.space.leave(waiter, Why::Killed);
        }
        self.threads[thread].state = State::Killed;
    }

    /// A wake-up for no reason.
    pub fn stray_unpark(&mut self, thread: usize) {
        if let State::Asleep(waiter) = self.observe(thread) {
            self.unpark_one(waiter);
        }
    }

    /// A sleeper asks whether it may go, and goes on if so.
    pub(crate) fn unpark_one(&mut self, waiter: WaiterId) {
        let is_it = |thread: &Thread| thread.state == State::Asleep(waiter);
        let Some(thread) = self.threads.iter().position(is_it) else { return };
        match self.space.leave(waiter, Why::Check) {
            Left::Asleep => {}
            Left::Woken | Left::Released | Left::Interrupted | Left::Stale => {
                self.unparked.push(thread);
                self.run(thread);
            }
        }
    }

    /// The oldest blocked reader of the context looks again.
    pub(crate) fn wake_reader(&mut self, context: ContextId) {
        let thread = (0..self.threads.len()).find(|thread| {
            self.threads[*thread].state == State::Reading
                && self.reading(*thread).and_then(|descriptor| self.context(descriptor)) == Some(context)
        });
        if let Some(thread) = thread {
            self.run(thread);
        }
    }

    fn reading(&self, thread: usize) -> Option<Descriptor> {
        match self.threads[thread].activity {
            Some(Activity::Read { descriptor, .. }) => Some(descriptor),
            _ => None,
        }
    }

    fn run(&mut self, thread: usize) {
        let Some(activity) = self.threads[thread].activity else { return };
        let state = match activity {
            Activity::Load { address } => self.access(thread, address, false).unwrap_or_else(|| {
                let mut bytes = [0; 8];
                self.memory.read(address, &mut bytes);
                State::Done(u64::from_ne_bytes(bytes))
            }),
            Activity::Store { address, value } => self.access(thread, address, true).unwrap_or_else(|| {
                self.memory.write(address, &value.to_ne_bytes());
                State::Done(0)
            }),
            Activity::Add { address, value } => self.access(thread, address, true).unwrap_or_else(|| {
                let mut bytes = [0; 8];
                self.memory.read(address, &mut bytes);
                let old = u64::from_ne_bytes(bytes);
                self.memory.write(address, &old.wrapping_add(value).to_ne_bytes());
                State::Done(old)
            }),
            Activity::Read { descriptor, count, at } => match self.read(descriptor, count, at) {
                Err(Errno::EAGAIN) if !self.is_nonblocking(descriptor) => State::Reading,
                result => State::Read(result),
            },
        };
        self.threads[thread].state = state;
    }

    /// Makes eight bytes accessible; `None` once they are.
    fn access(&mut self, thread: usize, address: u64, write: bool) -> Option<State> {
        let last = address + 7;
        let pages = [(page_of(address), address), (page_of(last), last & !(crate::PAGE - 1))];
        let mut tries = 0;
        'again: loop {
            for (page, byte) in pages {
                if self.is_accessible(page, write) {
                    continue;
                }
                tries += 1;
                if tries > PATIENCE {
                    return Some(State::Spinning);
                }
                match self.fault(thread, page, byte, write) {
                    Some(state) => return Some(state),
                    None => continue 'again,
                }
            }
            return None;
        }
    }

    fn is_accessible(&self, page: Page, write: bool) -> bool {
        let allowed = self.memory.protection(page).is_some_and(|protection| protection.allows(write));
        let state = self.space.pages().get(page);
        allowed && (state == PageState::Present || (state == PageState::WriteProtected && !write))
    }

    /// One fault; `None` means try again.
    fn fault(&mut self, thread: usize, page: Page, byte: u64, write: bool) -> Option<State> {
        if !self.memory.protection(page).is_some_and(|protection| protection.allows(write)) {
            return Some(State::Segv(byte));
        }
        let id = thread_id(thread);
        let access = Access { address: byte, write, patience: Patience::Wait, origin: Origin::User, thread: id };
        match self.space.fault(&access) {
            Verdict::NotOurs if self.space.pages().get(page) == PageState::Poisoned => Some(State::Bus(byte)),
            Verdict::NotOurs | Verdict::Zero(_) => {
                self.install(PageRange::one(page));
                None
            }
            Verdict::Unprotect(_) => {
                self.lift(PageRange::one(page));
                None
            }
            // Inline: never, for threads that wait.
            Verdict::Present(_) | Verdict::Retry | Verdict::Full | Verdict::Inline { .. } => None,
            Verdict::Bus => Some(State::Bus(byte)),
            Verdict::Sleep { waiter, ring } => {
                self.threads[thread].state = State::Asleep(waiter);
                self.ring(ring);
                Some(State::Asleep(waiter))
            }
        }
    }
}

/// The id that a thread has in messages.
#[must_use]
pub fn thread_id(thread: usize) -> u32 {
    u32::try_from(thread).unwrap_or(0) + 1_000
}
