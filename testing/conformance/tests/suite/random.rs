//! Random programs do the same in the simulator and on the kernel.
//!
//! Threads use words of their own, so that no result depends on who runs first, and messages are read
//! sorted. `USERFAULT_SEEDS=10000` runs more of them; a seed that failed is printed and can be run alone
//! with `USERFAULT_SEED=n`.

use userfault_conformance::place::Place;
use userfault_conformance::places::kernel::{Flavour, Kernel};
use userfault_conformance::places::process::Process;
use userfault_conformance::places::simulator::Simulated;
use userfault_conformance::record::Record;
use userfault_conformance::suite::skipped;
use userfault_conformance::world::{Region, Span, World};
use userfault_engine::Protocol;

const PAGES: u64 = 6;
const THREADS: u64 = 4;
const STEPS: u32 = 40;

/// xorshift64*
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn span(&mut self, region: Region) -> Span {
        let first = self.below(PAGES);
        let most = if self.below(2) == 0 { 1 } else { PAGES - first };
        region.span(first, 1 + self.below(most))
    }

    fn of(&mut self, choices: &[u64]) -> u64 {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

fn run(seed: u64, place: &mut dyn Place) -> Record {
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new(place, Protocol::Modern);
    let w = &mut world;
    let fds = [0, 1].map(|_| {
        let features =
            numbers.of(&[0, 0, 0x100, 0x800]) | numbers.of(&[0, 0x2000]) | numbers.of(&[0, 0, 0, 0, 0, 0x80]);
        w.ready(features)
    });
    let region = w.map(PAGES);
    let source = w.source(PAGES);
    // The kernel joins equal mappings for certain only if they come from one that was touched.
    w.populate(region.all(), 1);
    w.discard(region.all());
    w.register(fds[0], region.all(), numbers.of(&[1, 2, 3, 3]));
    for _ in 0..STEPS {
        step(w, &mut numbers, &fds, region, source);
    }
    for fd in fds {
        w.close(fd);
    }
    for page in 0..PAGES {
        w.load(0, region.at(page));
        w.load(0, region.at(page) + 8);
    }
    world.into_record()
}

fn step(w: &mut World<'_>, numbers: &mut Numbers, fds: &[usize], region: Region, source: Region) {
    let fd = fds[usize::try_from(numbers.below(4) / 3).unwrap()];
    let span = numbers.span(region);
    let thread = numbers.below(THREADS);
    // Each thread has words of its own; the first two words of a page are nobody's.
    let address = region.at(numbers.below(PAGES)) + 64 + thread * 64;
    let thread = usize::try_from(thread).unwrap();
    match numbers.below(20) {
        // Not 1: protection that outlives its registration comes back on the kernel, and not here.
        0..=2 => {
            w.register(fd, span, numbers.of(&[2, 3, 3, 4, 0]));
        }
        3 => {
            // Whether this wakes writers of memory that is only protected is a deviation: wake them.
            w.unregister(fd, span);
            for fd in fds {
                w.wake(*fd, region.all());
            }
        }
        4 => {
            w.wake(fd, span);
        }
        5 | 6 => {
            w.zeropage(fd, span, numbers.of(&[0, 0, 1]));
        }
        7 | 8 => {
            w.copy(fd, span, source.at(0), numbers.of(&[0, 0, 1, 2, 3]));
        }
        9 => {
            w.poison(fd, span, numbers.of(&[0, 1]));
        }
        10 | 11 => {
            w.writeprotect(fd, span, numbers.of(&[0, 1, 1, 2]));
        }
        12 => {
            w.discard(span);
        }
        13 => {
            w.read_sorted(fd);
        }
        14 if w.is_asleep(thread) => {
            w.signal(thread);
        }
        _ if w.is_asleep(thread) => {}
        15 => {
            w.add(thread, address, 3);
        }
        16 | 17 => {
            w.store(thread, address, 7);
        }
        _ => {
            w.load(thread, address);
        }
    }
}

/// What differs, apart from whom an UNREGISTER or the wakes right after it wake.
fn difference(simulated: &Record, real: &Record) -> Option<String> {
    let (mut one, mut two) = (simulated.clone(), real.clone());
    for record in [&mut one, &mut two] {
        let mut loose = 0;
        for entry in &mut record.entries {
            if entry.call.contains("unregister") {
                loose = 3;
            } else if entry.call.contains("register") && entry.result.starts_with("0 ") {
                // The answer is a deviation: `m/register/answer`.
                entry.result.truncate(1);
            }
            if loose > 0 {
                entry.effects.clear();
                loose -= 1;
            }
        }
    }
    one.difference(&two, ("simulator", "other"))
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    number("USERFAULT_SEED").map_or(0..number("USERFAULT_SEEDS").unwrap_or(usual), |seed| seed..seed + 1)
}

fn compare(seed: u64, place: &mut dyn Place) {
    let real = run(seed, place);
    let simulated = run(seed, &mut Simulated::new(Protocol::Modern, 0));
    if let Some(text) = difference(&simulated, &real) {
        panic!("seed {seed}, second: {}: {text}", place.name());
    }
}

// spec(simulator,kernel): m/fault/missing, m/fault/wp, m/register/again, m/fill/result, m/fill/wake, m/writeprotect/anon
#[test]
fn random_programs_do_the_same_in_the_simulator_and_on_the_kernel() {
    for seed in seeds(300) {
        match Kernel::new(Flavour::Call) {
            Ok(mut kernel) => compare(seed, &mut kernel),
            Err(why) => return skipped(&why),
        }
    }
}

// spec(simulator,process): m/fault/missing, m/fault/wp, m/register/again, m/fill/result, m/fill/wake, m/writeprotect/anon
#[test]
fn random_programs_do_the_same_in_the_simulator_and_in_the_process() {
    for seed in seeds(100) {
        compare(seed, &mut Process::new(Protocol::Modern));
    }
}
