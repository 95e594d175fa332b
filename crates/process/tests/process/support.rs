//! What the tests share: random numbers, patterns, waiting, filling.

use std::time::{Duration, Instant};

use userfault_client::{Event, Options, Region as _, RegisterModes, Uffd as _, Wait};
use userfault_process::{Region, Tuning, Uffd, statistics, tune};

use crate::alone::tuning;

pub(crate) const PAGE: usize = 4096;
/// Pages of a small region's chunk.
pub(crate) const CHUNK: usize = 512;
/// Only ever ends a test by failing it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) type Events = Vec<Event<core::convert::Infallible>>;

/// How the host makes and fills missing pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// PROT_NONE, as long as a chunk has at most two open runs (M1).
    Plain,
    /// Guard markers (M2): the chunk is filled scattered first.
    Guarded,
    /// PROT_NONE only, present pages closed again at a tiny budget (M5).
    Soft,
}

/// Random numbers from a seed that is printed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let given = std::env::var("USERFAULT_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) << 32 | u64::from(std::process::id())
        });
        println!("USERFAULT_SEED={seed}");
        Self::from(seed)
    }

    pub(crate) fn from(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % limit
    }

    /// `0..len` in random order.
    pub(crate) fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for at in (1..len).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

/// The word that fills page `page` in its `generation`; never 0.
pub(crate) fn word(page: usize, generation: u64) -> u64 {
    generation << 32 | (page as u64) << 8 | 0xA5
}

/// Page contents that name the page and the generation in every word.
pub(crate) fn contents(page: usize, generation: u64) -> Vec<u8> {
    word(page, generation).to_ne_bytes().repeat(PAGE / 8)
}

/// The contents of consecutive pages.
pub(crate) fn contents_of(pages: std::ops::Range<usize>, generation: u64) -> Vec<u8> {
    pages.flat_map(|page| contents(page, generation)).collect()
}

pub(crate) fn open() -> Uffd {
    Uffd::open(&Options::default()).unwrap()
}

/// Opens a host that works in `mode`; once per process, before anything else.
pub(crate) fn open_in(mode: Mode) -> Uffd {
    if mode == Mode::Soft {
        tune(Tuning { mapping_budget: Some(2), without_guards: true, ..tuning() }).unwrap();
    }
    open()
}

pub(crate) fn map(uffd: &Uffd, pages: usize) -> Region {
    uffd.map(pages, RegisterModes::MISSING).unwrap()
}

pub(crate) fn map_protectable(uffd: &Uffd, pages: usize) -> Region {
    uffd.map(pages, RegisterModes::MISSING | RegisterModes::WP).unwrap()
}

pub(crate) fn fill(region: &Region, page: usize, generation: u64) {
    assert_eq!(region.copy(page, &contents(page, generation)).unwrap().complete(), Ok(1), "page {page}");
}

/// Makes the chunk of `pages` a guarded one, by fills of every other of these pages.
pub(crate) fn scatter(region: &Region, pages: std::ops::Range<usize>, generation: u64) {
    pages.step_by(2).for_each(|page| fill(region, page, generation));
}

/// Repeats until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WATCHDOG, "watchdog: {what}: {:?}", statistics());
        std::thread::yield_now();
    }
}

pub(crate) fn asleep() -> usize {
    statistics().map_or(0, |statistics| statistics.asleep)
}

pub(crate) fn until_asleep(count: usize) {
    until("threads fall asleep", || asleep() == count);
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

/// The page of the region that a fault is about.
pub(crate) fn page_of(region: &Region, event: &Event<core::convert::Infallible>) -> usize {
    let Event::Fault(fault) = event else { panic!("{event:?}") };
    region.page_at(fault.address).unwrap()
}

/// How many mappings this process has.
pub(crate) fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// A line of `/proc/self/status` in kB.
pub(crate) fn status_kb(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
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
