//! One monitor thread: events in, batches of pages to answer out.
//!
//! Messages are hints. A batch is put in order and each window filled once; a message whose page turns out
//! to be there is answered by a wake.
//!
//! Kernel counterpart: none.

use core::ops::Range;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use userfault_client::{Event, Fault, FaultKind, Region, Uffd, UffdError, Wait};
use userfault_signal::AlternateStack;

use super::answer::{Installed, Patience};
use super::{MonitorError, Plan};
use crate::source::Source;

/// Room for events that are read at once without asking the allocator.
const EVENTS: usize = 256;

pub(super) struct Worker<U: Uffd, S> {
    pub(super) plan: Arc<Plan<U>>,
    /// Gone after a panic.
    source: Option<S>,
    events: Vec<Event<U::Forked>>,
    /// Pages that somebody waits for, in this batch.
    missing: Vec<usize>,
    buffer: Vec<u8>,
}

impl<U: Uffd, S: Source> Worker<U, S> {
    pub(super) fn new(plan: Arc<Plan<U>>, source: S) -> Self {
        let buffer = vec![0; plan.window * plan.region.page_size()];
        let events = Vec::with_capacity(EVENTS);
        Self { plan, source: Some(source), events, missing: Vec::with_capacity(EVENTS), buffer }
    }

    pub(super) fn run(mut self) {
        userfault_signal::block_all_in_this_thread();
        // Where it touches memory that is answered inline, by mistake, it can answer itself, instead of waiting for
        // itself.
        let _large = self.plan.answers_inline.then(|| AlternateStack::ensure(0));
        self.plan.uffd.enter_monitor();
        self.plan.running.fetch_add(1, Ordering::Release);
        let end = catch_unwind(AssertUnwindSafe(|| self.answer_until_shut_down()));
        match end {
            Ok(UffdError::ShutDown) => {}
            Ok(error) => self.give_up(MonitorError::Read(error)),
            // From `on_error`, or a bug of ours.
            Err(panic) => self.give_up(MonitorError::Panicked { message: message(&*panic) }),
        }
        self.plan.uffd.leave_monitor();
    }

    fn answer_until_shut_down(&mut self) -> UffdError {
        let mut patience = Patience::new();
        loop {
            match self.plan.uffd.read(Wait::Forever, &mut self.events) {
                Ok(_) => patience = Patience::new(),
                Err(UffdError::System { .. }) if patience.wait() => {}
                Err(error) => return error,
            }
            while !self.events.is_empty() {
                self.answer_batch();
            }
        }
    }

    /// Answers all events that were read. Others may arrive meanwhile.
    fn answer_batch(&mut self) {
        let mut events = core::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Event::Fault(fault) = event {
                self.sort_in(fault);
            }
            // The contents of a removed range come from the source again; a forked context is closed.
        }
        // What arrives while this batch is answered is kept behind it, in the vector with room.
        // Answering may have read on, too: what it read then comes next.
        events.append(&mut self.events);
        self.events = events;
        self.missing.sort_unstable();
        let mut missing = core::mem::take(&mut self.missing);
        let mut rest = missing.as_slice();
        while let Some(first) = rest.first() {
            let window = self.plan.window_of(*first);
            let (here, others) = rest.split_at(rest.partition_point(|page| *page < window.end));
            self.answer_window(window, here);
            rest = others;
        }
        missing.clear();
        self.missing = missing;
    }

    fn sort_in(&mut self, fault: Fault) {
        let counters = &self.plan.record.counters;
        match fault.kind {
            FaultKind::Missing => counters.fault(),
            FaultKind::WriteProtect => counters.write_fault(),
            FaultKind::Minor => {}
        }
        match (self.plan.region.page_at(fault.address), fault.kind) {
            (Some(page), FaultKind::Missing) => self.missing.push(page),
            (Some(page), FaultKind::WriteProtect) => self.answer_write(page),
            (Some(_), FaultKind::Minor) => self.plan.report(MonitorError::Unanswerable { address: fault.address }),
            (None, _) => self.plan.report(MonitorError::OutsideRegion { address: fault.address }),
        }
    }

    /// Answers those who wait for `asked`, pages of `window` in ascending order, perhaps repeated.
    fn answer_window(&mut self, window: Range<usize>, asked: &[usize]) {
        let installed = match self.fill(window.clone(), asked.first().copied().unwrap_or(window.start)) {
            Ok(()) => self.install(window),
            // Perhaps only a page that nobody asked for cannot be had.
            Err(MonitorError::Source { .. }) if window.len() > 1 => return self.answer_singly(asked),
            Err(error) => Installed::Failed(error),
        };
        match installed {
            Installed::Done => self.wake_each(asked),
            Installed::Failed(error) => {
                self.plan.report(error);
                self.poison_each(asked);
            }
        }
    }

    fn answer_singly(&mut self, asked: &[usize]) {
        for asked in asked.chunk_by(|one, next| one == next) {
            if let Some(page) = asked.first() {
                self.answer_window(*page..page + 1, asked);
            }
        }
    }

    /// Gets the contents of `pages` into the buffer, for who waits for `page`.
    fn fill(&mut self, pages: Range<usize>, page: usize) -> Result<(), MonitorError> {
        let into = self.buffer.get_mut(..pages.len() * self.plan.region.page_size()).unwrap_or_default();
        into.fill(0);
        let Some(source) = self.source.as_mut() else {
            return Err(MonitorError::SourcePanicked { page, message: "it did so before".to_owned() });
        };
        match catch_unwind(AssertUnwindSafe(|| source.fill(pages, into))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(MonitorError::Source { page, error }),
            Err(panic) => {
                self.source = None;
                Err(MonitorError::SourcePanicked { page, message: message(&*panic) })
            }
        }
    }

    fn install(&mut self, pages: Range<usize>) -> Installed {
        let buffer = core::mem::take(&mut self.buffer);
        let installed = self.plan.install(pages, &buffer, &mut self.events);
        self.buffer = buffer;
        installed
    }

    /// Where an installation wakes nobody, each message that was read is woken for.
    fn wake_each(&self, asked: &[usize]) {
        if self.plan.install.is_some() {
            for page in asked {
                self.plan.wake(*page);
            }
        }
    }

    fn poison_each(&mut self, asked: &[usize]) {
        for page in asked {
            self.plan.poison(*page..page + 1, &mut self.events);
        }
    }

    fn answer_write(&mut self, page: usize) {
        if let Some(save) = &self.plan.on_write
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| save(page)))
        {
            self.plan.report(MonitorError::WritePanicked { page, message: message(&*panic) });
        }
        self.plan.lift(page, &mut self.events);
    }

    /// Nobody will answer any more: whoever waits or will wait gets SIGBUS.
    fn give_up(&mut self, error: MonitorError) {
        // `on_error` may be what panicked.
        let reported = catch_unwind(AssertUnwindSafe(|| self.plan.report(error)));
        drop(reported);
        self.plan.poison(0..self.plan.region.pages(), &mut self.events);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message").to_owned()
}
