//! What the tests share: skipping, waiting, patterns, processes of their own.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use userfault_client::{Event, KernelFaults, Options, Region as _, Uffd as _, UffdError, Wait};
use userfault_linux::{Forked, Region, Uffd};

pub(crate) type Events = Vec<Event<Forked>>;

/// Only ever ends a test by failing it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Opens as `options` say, or says why the test cannot run here.
pub(crate) fn try_open(options: &Options) -> Option<Uffd> {
    match Uffd::open(options) {
        Ok(uffd) => Some(uffd),
        Err(error @ (UffdError::Refused { .. } | UffdError::FeaturesMissing { .. })) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("USERFAULT_REQUIRE_KERNEL").is_none_or(|value| value != "1"), "cannot run here: {why}");
    println!("skipped: because {why}");
}

/// `try_open(options)` or return from the test.
macro_rules! open {
    () => {
        open!(&userfault_client::Options::default())
    };
    ($options:expr) => {
        match crate::support::try_open($options) {
            Some(uffd) => uffd,
            None => return,
        }
    };
}
pub(crate) use open;

/// Runs the block in a process of its own, started for the test that is named.
macro_rules! alone {
    ($name:ident, $body:block) => {
        if crate::support::is_alone() {
            $body
        } else {
            crate::support::expect_success(&crate::support::start(&crate::support::path_of(&$name)))
        }
    };
}
pub(crate) use alone;

/// With everything that needs privilege.
pub(crate) fn full() -> Options {
    Options { kernel_faults: KernelFaults::Require, ..Options::default() }
}

/// The name libtest has for a test.
pub(crate) fn path_of<F>(_: &F) -> String {
    let path = std::any::type_name::<F>();
    path.split_once("::").map_or(path, |(_, rest)| rest).to_owned()
}

pub(crate) fn is_alone() -> bool {
    std::env::var_os("USERFAULT_ALONE").is_some()
}

pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("USERFAULT_ALONE", "1");
    command
}

pub(crate) fn start(test: &str) -> Output {
    command(test).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn expect_success(output: &Output) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{text}", output.status);
    assert!(text.contains("1 passed"), "the test ran\n{text}");
    if let Some(line) = text.lines().find(|line| line.contains("skipped: because")) {
        println!("{line}");
    }
}

/// Bytes of one page; each depends on its place, the page and the round, and none is 0.
pub(crate) fn pattern(page: usize, round: usize) -> Vec<u8> {
    let size = rustix::param::page_size();
    (0..size).map(|at| u8::try_from((at * 7 + at / 251 + page * 31 + round * 113) % 255 + 1).unwrap()).collect()
}

/// `pattern` of each of these pages.
pub(crate) fn patterns(pages: std::ops::Range<usize>, round: usize) -> Vec<u8> {
    pages.flat_map(|page| pattern(page, round)).collect()
}

/// Repeats until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WATCHDOG, "watchdog: {what}");
        std::thread::yield_now();
    }
}

/// Until exactly `count` threads sleep in faults of `uffd`.
pub(crate) fn until_asleep(uffd: &Uffd, count: u64) {
    until("threads fall asleep", || uffd.info().unwrap().total == count);
}

/// Reads until there are `count` events.
pub(crate) fn read(uffd: &Uffd, count: usize) -> Events {
    let mut events = Events::new();
    while events.len() < count {
        let added = uffd.read(Wait::AtMost(WATCHDOG), &mut events).unwrap();
        assert_ne!(added, 0, "watchdog: {count} events, got {events:?}");
    }
    events
}

/// Until a message waits, without taking it.
pub(crate) fn until_readable(uffd: &Uffd) {
    until("the descriptor is readable", || is_readable(uffd));
}

pub(crate) fn is_readable(uffd: &Uffd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(uffd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}

/// Lets a failing test fail instead of hanging: unregisters, so that sleepers of the region wake.
pub(crate) struct Rescue<'a>(pub(crate) &'a Region);

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.unregister(0..self.0.pages());
        }
    }
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
