//! Threads that answer the faults of a region from a [`Source`].
//!
//! ```text
//! MonitorBuilder ── serve ──> Monitor ── drop or join: shut the descriptor down, join the threads
//!                               └─ n × worker.rs: read events → source → install → wake
//! ```
//!
//! What can go wrong while a thread sleeps in a fault is decided here once: it is reported first, then the
//! sleeper gets SIGBUS. It never sleeps for ever, and never sees zeros that nobody wrote.
//!
//! Kernel counterpart: the program in `userfaultfd(2)`, EXAMPLES.

mod answer;
mod error;
mod stats;
mod worker;

use core::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use userfault_client::{Progress, Region, Uffd, UffdError};
use userfault_signal::{InlineCounts, fork_generation};

pub use error::MonitorError;
pub use stats::MonitorStats;

use crate::inline::{AnswerInline, Inline};
use crate::source::Source;
use stats::Counters;
use worker::Worker;

/// What a monitor does, prepared; [`serve`](Self::serve) starts it.
///
/// # Examples
///
/// ```
/// use userfault::{RegisterModes, prelude::*};
///
/// let uffd = userfault::open()?;
/// let region = uffd.map(64, RegisterModes::MISSING)?;
/// let ones = |_: std::ops::Range<usize>, into: &mut [u8]| {
///     into.fill(1);
///     Ok(())
/// };
/// let monitor = uffd.monitor(&region).with_window(16).serve(ones)?;
/// let window = region.window(0..64)?;
/// assert_eq!(window.as_ref()[5 * region.page_size()], 1);
/// assert_eq!(monitor.join()?.pages_filled, 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MonitorBuilder<U: Uffd> {
    plan: Plan<U>,
    /// Set once a monitor has taken the descriptor.
    taken: Arc<AtomicBool>,
}

/// What all threads of a monitor share.
pub(crate) struct Plan<U: Uffd> {
    uffd: Arc<U>,
    region: U::Region,
    window: usize,
    on_error: Option<OnError>,
    on_write: Option<OnWrite>,
    /// Fills protected.
    protects: bool,
    /// Other threads bring most pages themselves.
    answers_inline: bool,
    /// How many threads were ever ready to read.
    running: AtomicUsize,
    /// Installs without waking; each message read is then woken for by itself.
    install: Option<Install<U::Region>>,
    record: Arc<Record>,
}

type OnError = Box<dyn Fn(&MonitorError) + Send + Sync>;
type OnWrite = Box<dyn Fn(usize) + Send + Sync>;
type Install<R> = fn(&R, usize, &[u8]) -> Result<Progress, UffdError>;

/// What a monitor has done.
#[derive(Debug, Default)]
pub(crate) struct Record {
    counters: Counters,
    first_error: Mutex<Option<MonitorError>>,
}

impl<U: Uffd + 'static> MonitorBuilder<U>
where
    U::Region: 'static,
{
    /// A monitor of `region`, which `uffd` mapped.
    ///
    /// It reads all events of the descriptor; a fault outside the region is an error.
    #[must_use]
    pub fn new(uffd: Arc<U>, region: U::Region) -> Self {
        let record = Arc::new(Record::default());
        let (on_error, on_write, install) = (None, None, None);
        let (protects, answers_inline) = (false, false);
        let running = AtomicUsize::new(0);
        let plan =
            Plan { uffd, region, window: 1, on_error, on_write, protects, answers_inline, running, install, record };
        Self { plan, taken: Arc::default() }
    }

    /// With the mark that all monitors of this descriptor share.
    pub(crate) fn sharing(mut self, taken: &Arc<AtomicBool>) -> Self {
        self.taken = Arc::clone(taken);
        self
    }

    /// Fills `pages` pages for a fault in one of them: aligned groups, the last cut at the end of the
    /// region. At least 1.
    #[must_use]
    pub fn with_window(mut self, pages: usize) -> Self {
        self.plan.window = pages.clamp(1, self.plan.region.pages());
        self
    }

    /// Called in the monitor's thread with each error, before the threads that wait for the page get
    /// SIGBUS; who exits the process here decides what its user reads.
    #[must_use]
    pub fn on_error(mut self, report: impl Fn(&MonitorError) + Send + Sync + 'static) -> Self {
        self.plan.on_error = Some(Box::new(report));
        self
    }

    /// Called with the page, counted from the start of the region, when a write meets write protection,
    /// before the protection is lifted: the contents are still the old ones.
    ///
    /// The monitor lifts it, page by page; [`Region::writeprotect`](userfault_client::Region::writeprotect)
    /// sets it again. A page that is missing when its region is protected is filled unprotected, and its first
    /// write is not told, unless [`fill_protected`](Self::fill_protected) is asked for.
    ///
    /// Messages are hints: it may be called for a page whose protection was lifted already.
    #[must_use]
    pub fn on_write(mut self, save: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.plan.on_write = Some(Box::new(save));
        self
    }

    /// The pages it fills are write-protected from the start, so that the first write to each is told to
    /// [`on_write`](Self::on_write), whether the page was there when its region was protected or not.
    ///
    /// For regions registered for [`WP`](userfault_client::RegisterModes::WP), too; of others each fill fails with
    /// [`UffdError::ModesUnsupported`].
    #[must_use]
    pub fn fill_protected(mut self) -> Self {
        self.plan.protects = true;
        self
    }

    /// Brings pages by `install`, which wakes nobody, and wakes for each message that was read: the
    /// original protocol.
    #[must_use]
    pub fn install_with(mut self, install: Install<U::Region>) -> Self {
        self.plan.install = Some(install);
        self
    }

    /// Starts a thread that answers from `source`.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Spawn`]; [`MonitorError::AlreadyServed`] if the descriptor has had a monitor.
    pub fn serve(self, source: impl Source) -> Result<Monitor, MonitorError> {
        let mut monitor = self.idle()?;
        monitor.0.add(monitor.1, source)?;
        Ok(monitor.0)
    }

    /// Starts `threads` threads, each with a clone of `source`; at least 1.
    ///
    /// # Errors
    ///
    /// [`MonitorError::AlreadyServed`] if the descriptor has had a monitor. [`MonitorError::Spawn`]: no
    /// thread is left, and the descriptor is shut down.
    pub fn serve_with_threads(self, threads: usize, source: impl Source + Clone) -> Result<Monitor, MonitorError> {
        let (mut monitor, plan) = self.idle()?;
        for _ in 1..threads {
            monitor.add(Arc::clone(&plan), source.clone())?;
        }
        monitor.add(plan, source)?;
        Ok(monitor)
    }

    /// A monitor without threads.
    fn idle(self) -> Result<(Monitor, Arc<Plan<U>>), MonitorError> {
        // Wakes nobody who does not look again; of a parent's region a forked child is told so.
        if self.plan.region.wake(0..1) == Err(UffdError::Forked) {
            return Err(MonitorError::Forked);
        }
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(MonitorError::AlreadyServed);
        }
        let plan = Arc::new(self.plan);
        let record = Arc::clone(&plan.record);
        let uffd = Arc::clone(&plan.uffd);
        let shut_down = Box::new(move || uffd.shut_down());
        let monitor = Monitor {
            shut_down,
            inline: None,
            ended: InlineCounts::default(),
            threads: Vec::new(),
            record,
            started_in: fork_generation(),
        };
        Ok((monitor, plan))
    }
}

impl MonitorBuilder<crate::Uffd> {
    /// As [`serve`](Self::serve), and threads that touch a missing page bring its window from `source`
    /// themselves, in their signal handler: without a message, a second thread, or a sleep.
    ///
    /// The monitor answers those that cannot: whose alternate signal stack is too small (so it is with threads
    /// of Rust's; [`AlternateStack::ensure`](userfault_signal::AlternateStack::ensure) helps), or for whom the
    /// source cannot say. So errors are reported as ever, before anybody gets SIGBUS.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve); [`MonitorError::Inline`], with the reason: see
    /// [`Builder::answer_inline`](crate::Builder::answer_inline).
    pub fn serve_inline(self, source: impl AnswerInline) -> Result<Monitor, MonitorError> {
        let (mut monitor, plan) = self.inline(&source)?;
        monitor.add(plan, source)?;
        Ok(monitor)
    }

    /// As [`serve_inline`](Self::serve_inline), with `threads` threads for what the others cannot; at least 1.
    ///
    /// # Errors
    ///
    /// As [`serve_with_threads`](Self::serve_with_threads) and [`serve_inline`](Self::serve_inline).
    pub fn serve_inline_with_threads(
        self,
        threads: usize,
        source: impl AnswerInline + Clone,
    ) -> Result<Monitor, MonitorError> {
        let (mut monitor, plan) = self.inline(&source)?;
        for _ in 1..threads {
            monitor.add(Arc::clone(&plan), source.clone())?;
        }
        monitor.add(plan, source)?;
        Ok(monitor)
    }

    /// A monitor without threads, whose region is answered inline.
    fn inline(mut self, source: &impl AnswerInline) -> Result<(Monitor, Arc<Plan<crate::Uffd>>), MonitorError> {
        if self.taken.load(Ordering::Relaxed) {
            return Err(MonitorError::AlreadyServed);
        }
        let inline = self.plan.region.answer_inline(source.inline(), self.plan.window).map_err(MonitorError::Inline)?;
        self.plan.answers_inline = true;
        let (mut monitor, plan) = self.idle()?;
        monitor.inline = Some(inline);
        Ok((monitor, plan))
    }
}

impl<U: Uffd> fmt::Debug for MonitorBuilder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorBuilder").field("window", &self.plan.window).finish_non_exhaustive()
    }
}

/// Running threads that answer the faults of a region.
///
/// Dropped, it answers what has been asked, shuts its descriptor down for good and joins its threads. Who
/// touches a missing page of the region afterwards sleeps until it is filled by other means: drop windows
/// first. In a forked child it is the parent's still, and dropping it there does nothing.
///
/// Example: [`MonitorBuilder`](crate::MonitorBuilder).
#[must_use = "dropped, it stops answering"]
pub struct Monitor {
    shut_down: Box<dyn Fn() + Send + Sync>,
    inline: Option<Inline>,
    /// What was answered inline, once that has ended.
    ended: InlineCounts,
    threads: Vec<JoinHandle<()>>,
    record: Arc<Record>,
    /// The address space that has the threads.
    started_in: Result<u32, i32>,
}

impl Monitor {
    fn add<U: Uffd + 'static>(&mut self, plan: Arc<Plan<U>>, source: impl Source) -> Result<(), MonitorError>
    where
        U::Region: 'static,
    {
        let (already, started) = (plan.running.load(Ordering::Acquire), Arc::clone(&plan));
        let worker = Worker::new(plan, source);
        let thread = thread::Builder::new().name("userfault monitor".to_owned()).spawn(|| worker.run());
        self.threads.push(thread.map_err(MonitorError::Spawn)?);
        // To start, a thread allocates: who faults inside the allocator from now on needs one that has.
        while started.running.load(Ordering::Acquire) == already {
            thread::yield_now();
        }
        Ok(())
    }

    /// What it has done so far; a page may be counted a moment after its sleepers were woken.
    #[must_use]
    pub fn stats(&self) -> MonitorStats {
        self.record.counters.now(self.inline.as_ref().map_or(self.ended, Inline::counts))
    }

    /// Stops it, as a drop does, and tells what it has done, or the first error there was.
    ///
    /// # Errors
    ///
    /// The first [`MonitorError`]; [`MonitorStats::errors`] counts them. In a forked child
    /// [`MonitorError::Forked`].
    ///
    /// # Blocking
    ///
    /// Until the source has returned.
    pub fn join(mut self) -> Result<MonitorStats, MonitorError> {
        if self.is_inherited() {
            // The lock below may be held by a thread that is not here.
            return Err(MonitorError::Forked);
        }
        self.stop();
        let first = self.record.first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| Ok(self.stats()), Err)
    }

    /// Whether this is a forked child of the process that started it.
    fn is_inherited(&self) -> bool {
        fork_generation() != self.started_in
    }

    fn stop(&mut self) {
        if self.is_inherited() {
            // Neither the threads are here, nor is anything to be ended that is the parent's.
            core::mem::forget((self.inline.take(), core::mem::take(&mut self.threads)));
            return;
        }
        // First: what was handed to the monitor meanwhile is answered by it.
        if let Some(inline) = self.inline.take() {
            self.ended = inline.end();
        }
        if self.threads.is_empty() {
            return;
        }
        (self.shut_down)();
        for thread in self.threads.drain(..) {
            // A worker ends by return: what panics in it is caught and reported.
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("threads", &self.threads.len()).field("stats", &self.stats()).finish()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<U: Uffd> Plan<U> {
    /// Tells of an error; before anything is done to those who wait.
    pub(crate) fn report(&self, error: MonitorError) {
        self.record.counters.error();
        match &self.on_error {
            Some(on_error) => on_error(&error),
            // Whoever waits may get SIGBUS for it, or nothing: not without a word.
            None => eprintln!("userfault: {error}"),
        }
        self.record.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}
