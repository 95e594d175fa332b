//! A plain chunk becomes a guarded one under the eyes of threads and of system calls.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use userfault_abi::Features;
use userfault_client::{Region as _, Shared as _};
use userfault_process::raw::Memory;
use userfault_process::{Region, Shared};

use crate::access::{load, store};
use crate::alone::alone_both_ways;
use crate::door::{Door, pages};
use crate::os;
use crate::support::{CHUNK, PAGE, Random, contents, contents_of, fill, map, mappings, open, word};

/// Two runs of present pages: with one more the chunk is converted.
const PRESENT: [std::ops::Range<usize>; 2] = [0..24, 200..224];
/// Pages that nobody fills.
const ABSENT: std::ops::Range<usize> = 440..CHUNK;

fn rounds() -> usize {
    std::env::var("USERFAULT_ROUNDS").ok().map_or(150, |text| text.parse().unwrap())
}

/// Reads present pages until told to stop; how many values were wrong.
fn read(shared: &Shared, is_over: &AtomicBool, seed: u64) -> u64 {
    let mut random = Random::from(seed);
    let mut bad = 0;
    while !is_over.load(Relaxed) {
        for page in PRESENT.into_iter().flatten() {
            let mut seen = [0; 8];
            shared.read(page * PAGE + random.below(PAGE / 8) * 8, &mut seen);
            bad += u64::from(u64::from_ne_bytes(seen) != word(page, 1));
        }
    }
    bad
}

/// Passes pages to system calls until told to stop: how many present ones were refused, how many absent
/// ones were not, of how many.
fn write_out(region: &Region, is_over: &AtomicBool) -> (u64, u64, u64) {
    let file = os::memory_file();
    let (mut refused, mut admitted, mut tried) = (0, 0, 0);
    while !is_over.load(Relaxed) {
        for page in PRESENT.into_iter().flatten() {
            tried += 1;
            refused += u64::from(os::write_from(&file, region.base() + page * PAGE, PAGE) != Ok(PAGE));
        }
        for page in ABSENT {
            admitted += u64::from(os::write_from(&file, region.base() + page * PAGE, 8) != Err(libc::EFAULT));
        }
    }
    (refused, admitted, tried)
}

// spec: H3
#[test]
fn present_pages_stay_readable_for_threads_and_system_calls_while_their_chunk_is_converted() {
    alone_both_ways(|| {
        let uffd = open();
        let mut random = Random::new();
        let [bad, refused, admitted, tried] = [const { AtomicU64::new(0) }; 4];
        for _ in 0..rounds() {
            let region = map(&uffd, CHUNK);
            let shared = region.shared(0..CHUNK).unwrap();
            for run in PRESENT {
                assert_eq!(region.copy(run.start, &contents_of(run, 1)).unwrap().complete(), Ok(24));
            }
            let (is_over, begin, seed) = (AtomicBool::new(false), Barrier::new(3), random.next());
            thread::scope(|scope| {
                scope.spawn(|| {
                    begin.wait();
                    bad.fetch_add(read(&shared, &is_over, seed), Relaxed);
                });
                scope.spawn(|| {
                    begin.wait();
                    let (lost, seen, all) = write_out(&region, &is_over);
                    refused.fetch_add(lost, Relaxed);
                    admitted.fetch_add(seen, Relaxed);
                    tried.fetch_add(all, Relaxed);
                });
                begin.wait();
                let before = mappings();
                fill(&region, 300 + random.below(100), 1);
                assert!(mappings() < before, "the chunk was converted: its mappings merged");
                for page in (26..200).step_by(4) {
                    fill(&region, page, 1);
                }
                is_over.store(true, Relaxed);
            });
        }
        println!(
            "measured: {} conversions, bad reads {bad:?}, refused {refused:?} of {tried:?}, absent {admitted:?}",
            rounds()
        );
        assert_eq!((bad.into_inner(), refused.into_inner(), admitted.into_inner()), (0, 0, 0));
        assert!(tried.into_inner() > 0);
    });
}

// spec: H3
#[test]
fn contents_of_pages_that_nobody_registered_outlive_the_conversion_of_their_chunk() {
    alone_both_ways(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(CHUNK).unwrap();
        let address = |page: usize| memory.base() + page * PAGE;
        (0..CHUNK).for_each(|page| store(address(page), word(page, 1)));
        // Registered, unregistered as a whole, then in part: whatever was known of the pages is old.
        for registered in [0..16, 0..CHUNK, 100..140] {
            door.register(pages(&memory, registered.clone()), 1).unwrap();
            crate::door::discard(&memory, registered.clone()).unwrap();
            for page in registered.clone().step_by(2) {
                door.copy(pages(&memory, page..page + 1), &contents(page, 2), 0).unwrap();
            }
            let others = (0..CHUNK).filter(|page| !registered.contains(page));
            let lost: Vec<_> = others.filter(|page| load(address(*page)) >> 32 == 0).collect();
            assert_eq!(lost, [], "of {registered:?}");
            door.unregister(pages(&memory, registered.clone())).unwrap();
            for page in registered {
                let expected = if page % 2 == 0 { word(page, 2) } else { 0 };
                assert_eq!(load(address(page)), expected, "page {page}");
                store(address(page), word(page, 3));
            }
        }
    });
}
