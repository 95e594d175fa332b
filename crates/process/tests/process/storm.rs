//! Never lose a page: everything at once, against a model of each page's contents.
//!
//! A mutator holds the models of the pages it changes, so it knows what each operation must answer; threads
//! that touch pages hold nothing and compare what they see with the generations between which they looked.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use userfault_abi::errno::Errno;
use userfault_abi::{CopyModes, Features, MessageEvent, PagefaultFlags};
use userfault_process::raw::Memory;
use userfault_process::{Tuning, statistics, tune};

use crate::access::{add, load};
use crate::alone::{alone_both_ways, tuning};
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{CHUNK, PAGE, Random, contents, until, word};

const MISSING_AND_WP: u64 = 3;
const MUTATORS: usize = 3;
const MONITORS: usize = 2;
const TOUCHERS: usize = 3;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Missing,
    /// Zeros.
    Zeros,
    /// The generation.
    Filled(u64),
}

struct Page {
    model: Mutex<Model>,
    /// What readers may see: generations from the settled one to the newest begun; when zeros began last.
    settled: AtomicU64,
    newest: AtomicU64,
    zeros: AtomicU64,
}

struct World {
    door: Door,
    memory: Memory,
    pages: Vec<Page>,
    is_over: AtomicBool,
    touches: AtomicUsize,
    answers: AtomicUsize,
}

type Held<'a> = Vec<MutexGuard<'a, Model>>;

impl World {
    fn new(count: usize) -> Self {
        let world = Self {
            door: Door::open(Features::NONE),
            memory: Memory::map(count).unwrap(),
            pages: (0..count)
                .map(|_| Page {
                    model: Mutex::new(Model::Missing),
                    settled: AtomicU64::new(1),
                    newest: AtomicU64::new(1),
                    zeros: AtomicU64::new(0),
                })
                .collect(),
            is_over: AtomicBool::new(false),
            touches: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
        };
        world.door.0.set_nonblocking(false);
        world.door.register(pages(&world.memory, 0..count), MISSING_AND_WP).unwrap();
        world
    }

    fn address(&self, page: usize) -> usize {
        self.memory.base() + page * PAGE
    }

    fn hold(&self, range: std::ops::Range<usize>) -> Held<'_> {
        range.map(|page| self.pages[page].model.lock().unwrap()).collect()
    }

    fn range(&self, range: std::ops::Range<usize>) -> userfault_abi::Range {
        pages(&self.memory, range)
    }

    /// Begins a new generation of a page, which readers may see from now on.
    fn begin(&self, page: usize, zeros: bool) -> u64 {
        let generation = self.pages[page].newest.load(SeqCst) + 1;
        if zeros {
            self.pages[page].zeros.store(generation, SeqCst);
        }
        self.pages[page].newest.store(generation, SeqCst);
        generation
    }

    /// Readers see this generation or a later one from now on.
    fn settle(&self, page: usize, generation: u64) {
        self.pages[page].settled.store(generation, SeqCst);
    }

    /// Copies or fills with zeros, and compares the answer with the models.
    fn fill(&self, range: std::ops::Range<usize>, held: &mut Held<'_>, zeros: bool, modes: u64) {
        let generations: Vec<_> = range.clone().map(|page| self.begin(page, zeros)).collect();
        let target = self.range(range.clone());
        let result = if zeros {
            self.door.zeropage(target)
        } else {
            let bytes: Vec<u8> =
                range.clone().zip(&generations).flat_map(|(page, generation)| contents(page, *generation)).collect();
            self.door.copy(target, &bytes, modes)
        };
        let done = held.iter().take_while(|model| ***model == Model::Missing).count();
        let expected = match done {
            done if done == range.len() => Ok(()),
            0 => Err(Errno::EEXIST),
            _ => Err(Errno::EAGAIN),
        };
        assert_eq!(result, expected, "{range:?} {held:?}");
        for (at, page) in range.enumerate().take(done) {
            *held[at] = if zeros { Model::Zeros } else { Model::Filled(generations[at]) };
            self.settle(page, generations[at]);
        }
    }

    fn discard(&self, range: std::ops::Range<usize>, held: &mut Held<'_>) {
        discard(&self.memory, range).unwrap();
        held.iter_mut().for_each(|model| **model = Model::Missing);
    }

    /// Every byte of pages that are there, while nobody changes them.
    fn compare(&self, range: std::ops::Range<usize>, held: &Held<'_>) {
        for (model, page) in held.iter().zip(range) {
            let expected = match **model {
                Model::Missing => continue,
                Model::Zeros => 0,
                Model::Filled(generation) => word(page, generation),
            };
            let wrong = (0..PAGE).step_by(8).find(|at| load(self.address(page) + at) != expected);
            assert_eq!(wrong, None, "page {page} {model:?}: {:#x}", load(self.address(page)));
        }
    }

    /// For a while the pages are plain memory: missing ones are zeros then, and stay so.
    fn unregister_for_a_while(&self, range: std::ops::Range<usize>, held: &mut Held<'_>, random: &mut Random) {
        let generations: Vec<_> = range
            .clone()
            .zip(held.iter())
            .map(|(page, model)| if **model == Model::Missing { self.begin(page, true) } else { 0 })
            .collect();
        self.door.unregister(self.range(range.clone())).unwrap();
        for ((model, page), generation) in held.iter_mut().zip(range.clone()).zip(generations) {
            if **model == Model::Missing {
                **model = Model::Zeros;
                self.settle(page, generation);
            }
        }
        self.compare(range.clone(), held);
        if random.below(3) == 0 {
            let part = range.start..range.start + 1 + random.below(range.len());
            let generations: Vec<_> = part.clone().map(|page| self.begin(page, true)).collect();
            discard(&self.memory, part.clone()).unwrap();
            for (at, page) in part.enumerate() {
                *held[at] = Model::Zeros;
                self.settle(page, generations[at]);
                // Touched, so that it is present when it is registered again.
                assert_eq!(add(self.address(page), 0), 0);
            }
        }
        self.door.register(self.range(range), MISSING_AND_WP).unwrap();
    }

    fn mutate(&self, random: &mut Random) {
        let start = random.below(self.pages.len());
        let most = if random.below(8) == 0 { 600 } else { 6 };
        let range = start..self.pages.len().min(start + 1 + random.below(most));
        let mut held = self.hold(range.clone());
        match random.below(12) {
            0..3 => self.fill(range, &mut held, false, 0),
            3 => self.fill(range, &mut held, false, CopyModes::WP.bits()),
            4 => self.fill(range, &mut held, true, 0),
            5 | 6 => self.discard(range, &mut held),
            7 => self.door.writeprotect(self.range(range), true).unwrap(),
            8 => self.door.writeprotect(self.range(range), false).unwrap(),
            9 => self.unregister_for_a_while(range, &mut held, random),
            10 => self.door.wake(self.range(range)).unwrap(),
            _ => self.compare(range, &held),
        }
    }

    /// Reads or adds nothing at a random place, and says whether what was there may have been.
    fn touch(&self, page: usize, at: usize, write: bool) {
        let Page { settled, newest, zeros, .. } = &self.pages[page];
        let from = settled.load(SeqCst);
        let address = self.address(page) + at;
        let seen = if write { add(address, 0) } else { load(address) };
        let (until, zeros) = (newest.load(SeqCst), zeros.load(SeqCst));
        let generation = seen >> 32;
        let is_right = if seen == 0 {
            // Zeros may have begun again since: a later generation excuses what an earlier one did.
            zeros >= from
        } else {
            seen == word(page, generation) && (from..=until).contains(&generation)
        };
        if !is_right {
            WRONG.fetch_add(1, SeqCst);
            FIRST_WRONG.compare_exchange(0, seen | 1, SeqCst, SeqCst).ok();
        }
        self.touches.fetch_add(1, SeqCst);
    }

    fn answer(&self) {
        loop {
            let messages = self.door.read(16);
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let MessageEvent::Pagefault { flags, address, .. } = message.event() else { panic!("{message:?}") };
                let page = (usize::try_from(address).unwrap() - self.memory.base()) / PAGE;
                let mut held = self.hold(page..page + 1);
                self.answers.fetch_add(1, SeqCst);
                if flags.contains(PagefaultFlags::WP) {
                    self.door.writeprotect(self.range(page..page + 1), false).unwrap();
                } else if *held[0] == Model::Missing {
                    self.fill(page..page + 1, &mut held, false, 0);
                } else {
                    self.door.wake(self.range(page..page + 1)).unwrap();
                }
            }
        }
    }

    /// Nothing is registered any more: what was there is there, what was missing reads zero.
    fn compare_plain(&self) {
        for (page, held) in self.pages.iter().enumerate() {
            let mut held = vec![held.model.lock().unwrap()];
            if *held[0] == Model::Missing {
                *held[0] = Model::Zeros;
            }
            self.compare(page..page + 1, &held);
        }
    }
}

static WRONG: AtomicU64 = AtomicU64::new(0);
static FIRST_WRONG: AtomicU64 = AtomicU64::new(0);
static WORLD: AtomicUsize = AtomicUsize::new(0);
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Touches a page, over whatever it interrupted.
extern "C" fn touch_another(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let count = SIGNALS.fetch_add(1, SeqCst);
    if let Some(world) = world() {
        world.touch(count.wrapping_mul(7919) % world.pages.len(), count % 512 * 8, count.is_multiple_of(4));
    }
}

/// The world of this process, which lives until its end.
fn world() -> Option<&'static World> {
    crate::access::shared(WORLD.load(SeqCst))
}

fn run(tuning: Tuning, count: usize, operations: usize) {
    os::alarm(60 + u32::try_from(operations / 50).unwrap());
    tune(tuning).unwrap();
    let world: &'static World = Box::leak(Box::new(World::new(count)));
    WORLD.store(std::ptr::from_ref(world).expose_provenance(), SeqCst);
    os::handle(libc::SIGUSR1, touch_another, libc::SA_RESTART);
    let mut random = Random::new();
    let threads: [AtomicI32; TOUCHERS] = [const { AtomicI32::new(0) }; TOUCHERS];
    thread::scope(|scope| {
        for _ in 0..MONITORS {
            scope.spawn(|| {
                os::set_blocked(libc::SIGUSR1, true);
                world.answer();
            });
        }
        let touchers: Vec<_> = threads
            .iter()
            .map(|id| {
                let mut random = Random::from(random.next());
                scope.spawn(move || {
                    os::use_stack(0, 0);
                    id.store(os::thread_id(), SeqCst);
                    while !world.is_over.load(SeqCst) {
                        world.touch(random.below(count), random.below(PAGE / 8) * 8, random.below(3) == 0);
                    }
                    id.store(0, SeqCst);
                })
            })
            .collect();
        let mutators: Vec<_> = (0..MUTATORS)
            .map(|_| {
                let mut random = Random::from(random.next());
                scope.spawn(move || {
                    os::set_blocked(libc::SIGUSR1, true);
                    (0..operations).for_each(|_| world.mutate(&mut random));
                })
            })
            .collect();
        while mutators.iter().any(|mutator| !mutator.is_finished()) {
            let id = threads[random.below(TOUCHERS)].load(SeqCst);
            if id != 0 && random.below(16) == 0 {
                os::send(id, libc::SIGUSR1);
            }
            thread::yield_now();
        }
        world.is_over.store(true, SeqCst);
        let failed = mutators.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        assert_eq!(failed, 0, "what an operation answered, or what a page held, was wrong");
        until("those who touch come to an end", || touchers.iter().all(thread::ScopedJoinHandle::is_finished));
        world.door.0.shut_down();
    });
    let all = statistics().unwrap();
    println!(
        "measured: {} touches, {} answers, {} signals, {all:?}",
        world.touches.load(SeqCst),
        world.answers.load(SeqCst),
        SIGNALS.load(SeqCst)
    );
    assert_eq!((all.asleep, all.slots), (0, 0), "nobody is left asleep");
    world.door.unregister(world.range(0..count)).unwrap();
    world.compare_plain();
    assert_eq!(WRONG.load(SeqCst), 0, "first: {:#x}", FIRST_WRONG.load(SeqCst));
}

const SHORT: usize = 1500;
const LONG: usize = 25_000;
const COUNT: usize = 3 * CHUNK + 100;

fn plenty() -> Tuning {
    tuning()
}

fn few() -> Tuning {
    Tuning { mapping_budget: Some(16), ..tuning() }
}

fn without_guards() -> Tuning {
    Tuning { without_guards: true, ..few() }
}

// spec: H1, H2, H3, H24
#[test]
fn in_a_storm_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), COUNT, SHORT));
}

// spec: H1, H3, H4
#[test]
fn in_a_storm_no_page_is_lost_where_mappings_are_short() {
    alone_both_ways(|| run(few(), COUNT, SHORT));
}

// spec: H1, H4, H7
#[test]
fn in_a_storm_no_page_is_lost_where_mappings_are_short_and_guards_unknown() {
    alone_both_ways(|| run(without_guards(), COUNT, SHORT));
}

// spec: H1, H24
#[test]
fn in_a_storm_on_eight_pages_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), 8, 2 * SHORT));
}

// spec: H1, H2, H3, H24
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), COUNT, LONG));
}

// spec: H1, H3, H4
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost_where_mappings_are_short() {
    alone_both_ways(|| run(few(), COUNT, LONG));
}

// spec: H1, H4, H7
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost_where_mappings_are_short_and_guards_unknown() {
    alone_both_ways(|| run(without_guards(), COUNT, LONG));
}
