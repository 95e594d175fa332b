//! Threads that do one thing at a time and can be seen asleep.
//!
//! "Asleep" is what the kernel says of the thread (`wchan`), never a guess by time: whoever wakes a
//! thread makes it runnable before the waking call returns, and a runnable thread has no `wchan`.
//! The watchdog can only fail.
//!
//! Kernel counterpart: `/proc/self/task/TID/wchan`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::access::{self, Access};
use super::sys;
use crate::place::Thread;

/// What a worker runs.
pub type Job = Box<dyn FnOnce() -> Thread + Send>;

const IDLE: u32 = 0;
const GIVEN: u32 = 1;
const STARTED: u32 = 2;
const DONE: u32 = 3;

struct Shared {
    phase: AtomicU32,
    job: Mutex<Order>,
    called: Condvar,
}

enum Order {
    Nothing,
    Run(Job),
    End,
    Result(Thread),
}

/// A thread.
pub struct Worker {
    /// Its id.
    pub id: i32,
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

/// Longest time until a thread sleeps or is done.
const WATCHDOG: Duration = Duration::from_secs(20);

/// What a thread that has begun its job but not ended it is found doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It may still move.
    No,
    /// In a fault.
    InFault,
    /// In a read.
    InRead,
}

fn lock(mutex: &Mutex<Order>) -> MutexGuard<'_, Order> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Starts a thread without a job.
    ///
    /// # Panics
    ///
    /// If no thread can be started.
    #[must_use]
    pub fn spawn() -> Self {
        access::install();
        let shared =
            Arc::new(Shared { phase: AtomicU32::new(IDLE), job: Mutex::new(Order::Nothing), called: Condvar::new() });
        let (sender, receiver) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let handle = std::thread::spawn(move || {
            // The one that std makes is too small to sleep on with signals open.
            sys::without_alternate_stack();
            let _sent = sender.send(sys::thread_id());
            theirs.serve();
        });
        let id = receiver.recv().unwrap_or_else(|error| panic!("a thread did not start: {error}"));
        Self { id, shared, handle: Some(handle) }
    }

    /// Gives it a job.
    pub fn start(&self, job: Job) {
        self.shared.phase.store(GIVEN, Ordering::SeqCst);
        *lock(&self.shared.job) = Order::Run(job);
        self.shared.called.notify_one();
    }

    /// What the thread does once it does not move any more; `waits` judges its `wchan`.
    ///
    /// # Panics
    ///
    /// If that never happens.
    pub fn settle(&self, waits: impl Fn(&str) -> Waits) -> Thread {
        let started = Instant::now();
        loop {
            match self.shared.phase.load(Ordering::SeqCst) {
                IDLE => return Thread::Idle,
                DONE => {
                    return match &*lock(&self.shared.job) {
                        Order::Result(thread) => thread.clone(),
                        Order::Nothing | Order::Run(_) | Order::End => Thread::Idle,
                    };
                }
                STARTED => match waits(&self.wchan()) {
                    Waits::InFault => return Thread::Asleep,
                    Waits::InRead => return Thread::Reading,
                    Waits::No => {}
                },
                _ => {}
            }
            assert!(started.elapsed() < WATCHDOG, "thread {} neither sleeps nor ends: {}", self.id, self.wchan());
            std::thread::yield_now();
        }
    }

    /// Whether it has nothing to do, or is found waiting in this way.
    pub fn is_quiet(&self, waits: impl Fn(&str) -> bool) -> bool {
        match self.shared.phase.load(Ordering::SeqCst) {
            IDLE | DONE => true,
            STARTED => waits(&self.wchan()),
            _ => false,
        }
    }

    /// Whether it has begun its job and not ended it.
    pub fn is_busy(&self) -> bool {
        self.shared.phase.load(Ordering::SeqCst) == STARTED
    }

    fn wchan(&self) -> String {
        std::fs::read_to_string(format!("/proc/self/task/{}/wchan", self.id)).unwrap_or_default()
    }

    /// A signal with a handler.
    pub fn signal(&self) {
        sys::signal(self.id, libc::SIGUSR1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let started = Instant::now();
        let Some(handle) = self.handle.take() else { return };
        while matches!(self.shared.phase.load(Ordering::SeqCst), GIVEN | STARTED) {
            // A thread that blocks in a read ends it; one in a fault has been released.
            self.signal();
            if started.elapsed() > WATCHDOG {
                return;
            }
            std::thread::yield_now();
        }
        *lock(&self.shared.job) = Order::End;
        self.shared.called.notify_one();
        let _joined = handle.join();
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            let mut order = lock(&self.job);
            let job = loop {
                match std::mem::replace(&mut *order, Order::Nothing) {
                    Order::Run(job) => break job,
                    Order::End => return,
                    other @ (Order::Nothing | Order::Result(_)) => {
                        *order = other;
                        order = self.called.wait(order).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(order);
            self.phase.store(STARTED, Ordering::SeqCst);
            let result = job();
            *lock(&self.job) = Order::Result(result);
            self.phase.store(DONE, Ordering::SeqCst);
        }
    }
}

/// An access as a thread's end.
#[must_use]
pub fn ended(access: Access) -> Thread {
    match i32::try_from(access.signal & 0xFFFF_FFFF) {
        Ok(0) => Thread::Done(access.value),
        Ok(libc::SIGBUS) => Thread::Bus(access.value),
        Ok(_) | Err(_) => Thread::Segv(access.value),
    }
}
