//! The answers to a fault, each repeated past what passes by itself.
//!
//! Kernel counterpart: `UFFDIO_COPY`, `UFFDIO_WAKE`, `UFFDIO_POISON`, `UFFDIO_WRITEPROTECT`.

use core::ops::Range;
use core::time::Duration;
use std::thread;

use userfault_client::{Errno, Event, Progress, Region, Stopped, Uffd, UffdError, Wait, WriteProtect};

use super::{MonitorError, Plan};

/// What came of an installation.
pub(super) enum Installed {
    /// Each page has contents now, or is no longer registered memory.
    Done,
    /// It could not be done.
    Failed(MonitorError),
}

/// How often something that may pass is tried again: at once at first, then for about a second.
pub(super) struct Patience(u32);

impl Patience {
    const YIELDS: u32 = 1000;
    const SLEEPS: u32 = 1000;

    pub(super) const fn new() -> Self {
        Self(Self::YIELDS + Self::SLEEPS)
    }

    /// Waits a little; false if it has been waited long enough.
    pub(super) fn wait(&mut self) -> bool {
        let Some(left) = self.0.checked_sub(1) else { return false };
        self.0 = left;
        if left >= Self::SLEEPS {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// What is to be done after a request stopped.
enum Next {
    /// Go on with the next page.
    Skip,
    /// The same again, after a little while.
    Again,
    /// Page by page: they are not one registered mapping (any more).
    Singly,
    /// There is nobody and nothing to answer any more.
    Gone,
    /// Report it.
    Fail,
}

impl Next {
    fn after(stopped: Stopped) -> Self {
        match stopped {
            Stopped::AlreadyPresent => Self::Skip,
            Stopped::EventPending | Stopped::Other(Errno::ENOMEM | Errno::EBUSY | Errno::EINTR) => Self::Again,
            Stopped::NotRegistered => Self::Singly,
            Stopped::Gone => Self::Gone,
            Stopped::SourceUnreadable | Stopped::Other(_) | _ => Self::Fail,
        }
    }
}

impl<U: Uffd> Plan<U> {
    /// The aligned group of pages that is filled for a fault in `page`.
    pub(super) fn window_of(&self, page: usize) -> Range<usize> {
        let start = page - page % self.window;
        start..(start + self.window).min(self.region.pages())
    }

    /// Installs the first of `bytes` in those of `pages` that are missing, and wakes the sleepers of all,
    /// as [`copy_missing`](Region::copy_missing).
    pub(super) fn install(&self, pages: Range<usize>, bytes: &[u8], events: &mut Vec<Event<U::Forked>>) -> Installed {
        let page_size = self.region.page_size();
        let mut rest = pages;
        let mut bytes = bytes.get(..rest.len() * page_size).unwrap_or_default();
        let mut patience = Patience::new();
        let mut most = rest.len();
        while !rest.is_empty() {
            let page = rest.start;
            let now = bytes.get(..most * page_size).unwrap_or(bytes);
            let progress = match self.install {
                Some(install) => install(&self.region, page, now),
                None if self.protects => self.region.copy_protected(page, now),
                None => self.region.copy(page, now),
            };
            let Progress { pages_done, stopped_by } = match progress {
                Ok(progress) => progress,
                Err(error) => return Installed::Failed(MonitorError::Install { page, error }),
            };
            self.record.counters.filled(pages_done);
            let mut done = pages_done;
            if pages_done > 0 {
                patience = Patience::new();
            }
            if let Some(by) = stopped_by {
                match Next::after(by) {
                    Next::Skip => {
                        self.record.counters.present();
                        self.wake(page + pages_done);
                        done += 1;
                    }
                    Next::Again if self.wait(&mut patience, events) => {}
                    Next::Singly if most > 1 => most = 1,
                    Next::Singly => {
                        // Unregistered meanwhile: who slept there meets plain memory.
                        self.wake(page);
                        done += 1;
                    }
                    Next::Gone => return Installed::Done,
                    Next::Again | Next::Fail => {
                        return Installed::Failed(MonitorError::Stopped { page: page + pages_done, by });
                    }
                }
            }
            rest.start += done;
            bytes = bytes.get(done * page_size..).unwrap_or_default();
        }
        Installed::Done
    }

    pub(super) fn wake(&self, page: usize) {
        // It cannot fail: the page is in the region; in a forked child there are no sleepers.
        let _woken = self.region.wake(page..page + 1);
    }

    /// Makes the missing ones of `pages` raise SIGBUS. Where that cannot be, ends the process: a sleeper
    /// must neither wait for ever nor see zeros that nobody wrote.
    pub(super) fn poison(&self, pages: Range<usize>, events: &mut Vec<Event<U::Forked>>) {
        let mut rest = pages;
        let mut most = rest.len();
        let mut patience = Patience::new();
        while !rest.is_empty() {
            let page = rest.start;
            let now = page..rest.end.min(page + most);
            let Ok(Progress { pages_done, stopped_by }) = self.region.poison(now) else {
                end_process(page);
            };
            rest.start += pages_done;
            (0..pages_done).for_each(|_| self.record.counters.poisoned());
            match stopped_by.map(Next::after) {
                None => {}
                Some(Next::Skip) => {
                    self.wake(rest.start);
                    rest.start += 1;
                }
                Some(Next::Again) if self.wait(&mut patience, events) => {}
                Some(Next::Singly) if most > 1 => most = 1,
                Some(Next::Singly) => {
                    self.wake(rest.start);
                    rest.start += 1;
                }
                Some(Next::Gone) => return,
                Some(Next::Again | Next::Fail) => end_process(rest.start),
            }
        }
    }

    /// Lifts the write protection of a page and wakes its sleepers.
    pub(super) fn lift(&self, page: usize, events: &mut Vec<Event<U::Forked>>) {
        let mut patience = Patience::new();
        loop {
            match self.region.writeprotect(page..page + 1, WriteProtect::Lift) {
                Ok(()) => return,
                Err(UffdError::System { errno: Errno::ENOENT | Errno::ESRCH, .. }) => break,
                Err(UffdError::System { .. }) if self.wait(&mut patience, events) => {}
                Err(error) => {
                    self.report(MonitorError::Lift { page, error });
                    break;
                }
            }
        }
        self.wake(page);
    }

    /// Waits a little, and reads what may be in the way; false if that has lasted long enough.
    fn wait(&self, patience: &mut Patience, events: &mut Vec<Event<U::Forked>>) -> bool {
        // An error is met again by who reads next.
        let _read = self.uffd.read(Wait::Never, events);
        patience.wait()
    }
}

fn end_process(page: usize) -> ! {
    eprintln!(
        "userfault: page {page} has no contents, and this provider cannot make it an error for those who wait \
         for it; the process ends"
    );
    std::process::abort()
}
