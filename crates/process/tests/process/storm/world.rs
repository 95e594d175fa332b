//! Pages with a model of their contents, and what threads do to them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

use userfault_abi::errno::Errno;
use userfault_abi::{CopyModes, Features, MessageEvent, PagefaultFlags};
use userfault_process::raw::Memory;

use crate::access::{add, load};
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{PAGE, Random, contents, word};

const MISSING_AND_WP: u64 = 3;

/// How often a touch saw what cannot have been there, and the first such word.
pub(super) static WRONG: AtomicU64 = AtomicU64::new(0);
pub(super) static FIRST_WRONG: AtomicU64 = AtomicU64::new(0);

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

pub(super) struct World {
    pub(super) door: Door,
    pub(super) memory: Memory,
    pages: Vec<Page>,
    pub(super) is_over: AtomicBool,
    pub(super) touches: AtomicUsize,
    pub(super) answers: AtomicUsize,
    pub(super) operations: AtomicUsize,
}

type Held<'a> = Vec<MutexGuard<'a, Model>>;

impl World {
    /// So many pages that have a model, and behind them some that monitors fill with generation 1.
    pub(super) fn new(count: usize, others: usize) -> Self {
        let world = Self {
            door: Door::open(Features::NONE),
            memory: Memory::map(count + others).unwrap(),
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
            operations: AtomicUsize::new(0),
        };
        world.door.0.set_nonblocking(false);
        world.door.register(pages(&world.memory, 0..count + others), MISSING_AND_WP).unwrap();
        world
    }

    /// How many pages have a model.
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn address(&self, page: usize) -> usize {
        self.memory.base() + page * PAGE
    }

    fn hold(&self, range: std::ops::Range<usize>) -> Held<'_> {
        range.map(|page| self.pages[page].model.lock().unwrap()).collect()
    }

    pub(super) fn range(&self, range: std::ops::Range<usize>) -> userfault_abi::Range {
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

    pub(super) fn mutate(&self, random: &mut Random) {
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
    pub(super) fn touch(&self, page: usize, at: usize, write: bool) {
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

    /// Forks, while nobody changes some of the pages: there the child knows what to find. Of the others it knows
    /// that they are zeros, or one generation that there has been.
    pub(super) fn fork(&self, random: &mut Random) {
        let start = random.below(self.pages.len());
        let range = start..self.pages.len().min(start + 1 + random.below(64));
        let held = self.hold(range.clone());
        let before: Vec<u64> = self.pages.iter().map(|page| page.settled.load(SeqCst)).collect();
        let is_right = |page: usize| {
            let first = load(self.address(page));
            let is_whole = (8..PAGE).step_by(8).all(|at| load(self.address(page) + at) == first);
            let generation = first >> 32;
            let is_known = match range.contains(&page).then(|| *held[page - range.start]) {
                Some(Model::Missing | Model::Zeros) => first == 0,
                Some(Model::Filled(generation)) => first == word(page, generation),
                None => {
                    let until = self.pages[page].newest.load(SeqCst);
                    first == 0 || first == word(page, generation) && (before[page]..=until).contains(&generation)
                }
            };
            is_whole && is_known
        };
        let look = || i32::from(!(0..self.pages.len()).all(is_right));
        let status = if random.below(2) == 0 { os::forked(look) } else { os::cloned(look) };
        assert_eq!(status, 0, "a child found a page that nobody can have left so; held: {range:?}");
    }

    pub(super) fn answer(&self) {
        loop {
            let messages = self.door.read(16);
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let MessageEvent::Pagefault { flags, address, .. } = message.event() else { panic!("{message:?}") };
                let page = (usize::try_from(address).unwrap() - self.memory.base()) / PAGE;
                self.answers.fetch_add(1, SeqCst);
                if page >= self.pages.len() {
                    self.door.copy(self.range(page..page + 1), &contents(page, 1), 0).unwrap();
                    continue;
                }
                let mut held = self.hold(page..page + 1);
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
    pub(super) fn compare_plain(&self) {
        for (page, held) in self.pages.iter().enumerate() {
            let mut held = vec![held.model.lock().unwrap()];
            if *held[0] == Model::Missing {
                *held[0] = Model::Zeros;
            }
            self.compare(page..page + 1, &held);
        }
    }
}
