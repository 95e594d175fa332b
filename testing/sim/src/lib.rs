//! A deterministic simulator that hosts the engine.
//!
//! Memory, threads and descriptors are values; nothing runs by itself. A thread does one thing at a
//! time and is observed as asleep, done or killed; time is the order of the calls. So every test of
//! it says exactly what happened, and the same scenarios run against real memory elsewhere.
//!
//! ```text
//! embedder   lock, page states, storage: checked and counted
//! memory     mappings and contents
//! thread     what a thread does, and why it stopped
//! door       descriptors: open, ioctl with arguments that may be bad, read, poll, close
//! fill       claims carried out · layout      munmap, mprotect, discard and what they tell the engine
//! ```
//!
//! Kernel counterpart: the rest of the kernel, as far as userfaultfd sees it.

#![forbid(unsafe_code)]

mod door;
mod embedder;
mod fill;
mod layout;
mod memory;
mod thread;

use userfault_engine::{AddressSpace, Capacities, ContextId, Limits, Woken};

pub use door::{Descriptor, Place};
pub use embedder::{CheckedLock, Counted, PageTable, Simulated, steps};
pub use memory::{PAGE, Protection, pages};
pub use thread::{Activity, State, thread_id};

use door::Open;
use memory::Memory;
use thread::Thread;

/// One address space with its threads and descriptors.
pub struct Simulator {
    space: AddressSpace<Simulated>,
    memory: Memory,
    threads: Vec<Thread>,
    descriptors: Vec<Option<Open>>,
    /// Threads in the order in which they were unparked.
    unparked: Vec<usize>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Default for Simulator {
    fn default() -> Self {
        Self::new(Capacities { waiters: 256, registrations: 256, contexts: 16 })
    }
}

impl Simulator {
    /// An empty address space with room for so many records.
    ///
    /// # Panics
    ///
    /// Never: a simulator always has storage.
    #[must_use]
    pub fn new(capacities: Capacities) -> Self {
        let space = AddressSpace::new(Limits::X86_64, PageTable::default(), capacities);
        Self {
            space: space.unwrap_or_else(|| panic!("the simulator has storage")),
            memory: Memory::default(),
            threads: Vec::new(),
            descriptors: Vec::new(),
            unparked: Vec::new(),
        }
    }

    /// The engine, for tests that drive it step by step.
    #[must_use]
    pub const fn space(&self) -> &AddressSpace<Simulated> {
        &self.space
    }

    /// The threads that were unparked since the last call, in order.
    pub fn take_unparked(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unparked)
    }

    /// Unparks threads batch by batch and lets them run on.
    pub fn unpark(&mut self, mut woken: Woken) {
        loop {
            for waiter in woken.iter().collect::<Vec<_>>() {
                self.unpark_one(waiter);
            }
            let Some(rest) = woken.rest.take() else { return };
            woken = self.space.wake_rest(rest);
        }
    }

    /// Tells pollers of the context; one blocked reader of it looks again.
    pub fn ring(&mut self, context: Option<ContextId>) {
        let Some(context) = context else { return };
        let of_context = |open: &&mut Open| open.context == context;
        if let Some(open) = self.descriptors.iter_mut().flatten().find(of_context) {
            open.rings += 1;
        }
        self.wake_reader(context);
    }
}
