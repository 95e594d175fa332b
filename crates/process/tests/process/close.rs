//! The end of descriptors, regions and what is lent from them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use userfault_abi::Features;
use userfault_client::{Region as _, Uffd as _, Wait};
use userfault_process::raw::Memory;
use userfault_process::statistics;

use crate::access::{load, store};
use crate::alone::alone_both_ways;
use crate::door::{Door, pages};
use crate::support::{CHUNK, PAGE, Random, contents, fill, map, open, page_of, scatter, until_asleep, word};

// spec: H1
#[test]
fn a_close_with_sleepers_wakes_them_and_missing_pages_read_zero() {
    alone_both_ways(|| {
        let memory = Memory::map(CHUNK).unwrap();
        let base = memory.base();
        for round in 0..30 {
            let door = Door::open(Features::NONE);
            door.register(pages(&memory, 0..CHUNK), 1).unwrap();
            crate::door::discard(&memory, 0..CHUNK).unwrap();
            for page in (100..100 + round * 4).step_by(2) {
                door.copy(pages(&memory, page..page + 1), &contents(page, 1), 0).unwrap();
            }
            thread::scope(|scope| {
                let sleepers: Vec<_> = (0..50).map(|page| scope.spawn(move || load(base + page * PAGE))).collect();
                until_asleep(50);
                // Some of them read, some not.
                assert_eq!(door.read(20).len(), 20);
                drop(door);
                sleepers.into_iter().for_each(|sleeper| assert_eq!(sleeper.join().unwrap(), 0));
            });
            for page in 0..CHUNK {
                let is_filled = (100..100 + round * 4).contains(&page) && page % 2 == 0;
                assert_eq!(load(base + page * PAGE + 8), if is_filled { word(page, 1) } else { 0 }, "page {page}");
                store(base + page * PAGE + 8, 1);
            }
            let all = statistics().unwrap();
            assert_eq!((all.asleep, all.slots, all.mappings), (0, 0, 0));
        }
    });
}

fn rounds() -> usize {
    std::env::var("USERFAULT_ROUNDS").ok().map_or(150, |text| text.parse().unwrap())
}

// spec: H24
#[test]
fn threads_that_fault_while_the_descriptor_is_closed_go_on_with_plain_memory() {
    alone_both_ways(|| {
        let mut random = Random::new();
        let memory = Memory::map(2 * CHUNK).unwrap();
        let base = memory.base();
        for round in 0..rounds() {
            let door = Door::open(Features::NONE);
            door.register(pages(&memory, 0..2 * CHUNK), 1).unwrap();
            crate::door::discard(&memory, 0..2 * CHUNK).unwrap();
            let (begin, wait) = (Barrier::new(5), random.below(20_000));
            thread::scope(|scope| {
                for thread in 0..4 {
                    let (begin, mut order) = (&begin, random.order(2 * CHUNK));
                    order.truncate(200);
                    scope.spawn(move || {
                        begin.wait();
                        for page in order {
                            let seen = load(base + page * PAGE + thread * 8);
                            assert!(seen == 0 || seen == word(page, 7), "page {page}: {seen:#x}");
                        }
                    });
                }
                begin.wait();
                for _ in 0..random.below(30) {
                    for message in door.read(4) {
                        if let userfault_abi::MessageEvent::Pagefault { address, .. } = message.event() {
                            let page = (usize::try_from(address).unwrap() - base) / PAGE;
                            let _or_there = door.copy(pages(&memory, page..page + 1), &contents(page, 7), 0);
                        }
                    }
                }
                (0..wait).for_each(|_| std::hint::spin_loop());
                drop(door);
            });
            assert_eq!(statistics().map(|all| (all.asleep, all.slots)), Some((0, 0)), "round {round}");
        }
    });
}

// spec: H1
#[test]
fn a_window_outlives_the_handles_of_its_region_and_of_its_descriptor() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, CHUNK);
        scatter(&region, 0..32, 1);
        let (base, window) = (region.base(), region.window(0..CHUNK).unwrap());
        drop((region, uffd));
        for page in (0..32).step_by(2) {
            assert!(window.as_slice()[page * PAGE..][..PAGE] == contents(page, 1)[..]);
        }
        thread::spawn(move || drop(window)).join().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(&format!("{base:012x}-")), "unmapped");
        let all = statistics().unwrap();
        assert_eq!((all.asleep, all.slots, all.mappings), (0, 0, 0));
    });
}

// spec: H1
#[test]
fn a_thread_asleep_in_a_window_is_answered_though_its_descriptor_has_one_handle_left() {
    alone_both_ways(|| {
        let (monitor, region, reader) = {
            let uffd = open();
            let region = map(&uffd, 4);
            let window = region.window(0..4).unwrap();
            (uffd.clone(), region, thread::spawn(move || window.as_slice()[3 * PAGE]))
        };
        let mut events = Vec::new();
        assert_eq!(monitor.read(Wait::Forever, &mut events), Ok(1));
        assert_eq!(page_of(&region, &events[0]), 3);
        fill(&region, 3, 1);
        drop((monitor, region));
        assert_eq!(reader.join().unwrap(), contents(3, 1)[0]);
        assert_eq!(statistics().unwrap().asleep, 0);
    });
}

// spec: H16
#[test]
fn what_is_discarded_is_missing_again_and_asked_for_again() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, CHUNK);
        scatter(&region, 100..140, 1);
        (0..4).for_each(|page| fill(&region, page, 1));
        let mut window = region.window(0..CHUNK).unwrap();
        let base = region.base();
        for (generation, page) in [0, 3, 110, 2, 0].into_iter().enumerate() {
            let generation = 2 + generation as u64;
            assert_eq!(window.as_slice()[page * PAGE + 8], 0xA5);
            region.discard(&mut window, page..page + 1).unwrap();
            thread::scope(|scope| {
                let reader = scope.spawn(move || load(base + page * PAGE));
                let event = &crate::support::read(&uffd, 1)[0];
                assert_eq!(page_of(&region, event), page);
                fill(&region, page, generation);
                assert_eq!(reader.join().unwrap(), word(page, generation));
            });
        }
    });
}

// spec: H11
#[test]
fn no_addition_is_lost_while_memory_in_use_is_registered() {
    alone_both_ways(|| {
        let count = 300;
        let mut random = Random::new();
        for round in 0..rounds() {
            let door = Door::open(Features::NONE);
            let memory = Memory::map(count).unwrap();
            let (base, begin, zeros) = (memory.base(), Barrier::new(3), [0; PAGE]);
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let counting: Vec<_> = (0..2)
                    .map(|_| {
                        let (begin, order) = (&begin, random.order(count));
                        scope.spawn(move || {
                            begin.wait();
                            order.iter().for_each(|page| drop_number(crate::access::add(base + page * PAGE, 1)));
                        })
                    })
                    .collect();
                scope.spawn(|| {
                    // Answers by bytes, which would end what a page holds that is not missing.
                    while !done.load(Relaxed) {
                        for message in door.read(8) {
                            if let userfault_abi::MessageEvent::Pagefault { address, .. } = message.event() {
                                let page = (usize::try_from(address).unwrap() - base) / PAGE;
                                let _or_there = door.copy(pages(&memory, page..page + 1), &zeros, 0);
                            }
                        }
                        thread::yield_now();
                    }
                });
                begin.wait();
                (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
                door.register(pages(&memory, 0..count), 1).unwrap();
                counting.into_iter().for_each(|thread| thread.join().unwrap());
                done.store(true, Relaxed);
            });
            drop(door);
            let wrong: Vec<_> = (0..count).filter(|page| load(base + page * PAGE) != 2).collect();
            assert_eq!(wrong, [], "round {round}");
        }
    });
}

fn drop_number(_: u64) {}

// spec: H5
#[test]
fn zeros_that_nobody_has_touched_are_contents_after_unregistering_and_registering_again() {
    alone_both_ways(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(64).unwrap();
        let all = pages(&memory, 0..64);
        door.register(all, 1).unwrap();
        door.zeropage(pages(&memory, 0..8)).unwrap();
        (20..40).step_by(2).for_each(|page| door.copy(pages(&memory, page..page + 1), &contents(page, 1), 0).unwrap());
        door.zeropage(pages(&memory, 50..53)).unwrap();
        door.unregister(all).unwrap();
        door.register(all, 1).unwrap();
        for page in (0..8).chain(50..53) {
            let again = door.zeropage(pages(&memory, page..page + 1));
            assert_eq!(again, Err(userfault_abi::errno::Errno::EEXIST), "page {page} is there");
            assert_eq!(load(memory.base() + page * PAGE), 0);
        }
    });
}

// spec: H16
#[test]
fn memory_that_the_program_has_locked_is_discarded_as_any_other() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 64);
        (0..8).for_each(|page| fill(&region, page, 1));
        let mut window = region.window(0..64).unwrap();
        // As `mlockall` does. Where locking is not allowed there is nothing to see.
        if let Err(error) = crate::os::lock(region.base(), 8 * PAGE) {
            println!("skipped: because {error}");
            return;
        }
        region.discard(&mut window, 2..5).unwrap();
        assert_eq!(region.zeropage(2..4).unwrap().complete(), Ok(2));
        fill(&region, 4, 2);
        let expected = [word(1, 1), 0, 0, word(4, 2), word(5, 1)];
        let seen: Vec<_> = (1..6).map(|page| load(region.base() + page * PAGE + 88)).collect();
        assert_eq!(seen, expected);
    });
}
