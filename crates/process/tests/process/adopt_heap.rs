//! The memory that malloc gives: one large block of it, and all of the heap of a program that goes on allocating.
//!
//! 1. The heap stays where it is: nothing of it is given back to the kernel before the adoption ends
//!    (`M_TRIM_THRESHOLD`), and the thread that answers allocates elsewhere.
//! 2. The block is freed after its adoption has ended.
#![expect(unsafe_code, reason = "adopts memory, and sets how malloc works; the invariants above are this file's proof")]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use userfault_client::{Event, FaultKind, Region as _, Uffd as _, Wait, WriteProtect};

use crate::adopt::{BOTH, adopt};
use crate::alone::alone;
use crate::support::{Events, PAGE, Random, open, until};

fn heap() -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap())
}

/// Keeps malloc in the heap: one arena for the threads to come, no mappings of its own, nothing given back.
fn keep_to_the_heap() {
    for (what, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 1 << 25), (libc::M_TRIM_THRESHOLD, i32::MAX)]
    {
        // SAFETY: two numbers.
        assert_eq!(unsafe { libc::mallopt(what, value) }, 1);
    }
}

static STEP: AtomicUsize = AtomicUsize::new(0);

fn wait_for(step: usize) {
    while STEP.load(Ordering::Acquire) < step {
        thread::yield_now();
    }
}

/// Blocks of many sizes, made, changed and freed; each compared before it goes, byte by byte.
struct Blocks {
    random: Random,
    blocks: Vec<(u8, Vec<u8>)>,
}

impl Blocks {
    fn change(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let byte = u8::try_from(self.random.below(256)).unwrap();
            match self.random.below(3) {
                0 if self.blocks.len() > 500 => {
                    let at = self.random.below(self.blocks.len());
                    check(&self.blocks.swap_remove(at));
                }
                1 if !self.blocks.is_empty() => {
                    let at = self.random.below(self.blocks.len());
                    check(&self.blocks[at]);
                    self.blocks[at].0 = byte;
                    self.blocks[at].1.fill(byte);
                }
                _ => {
                    let len = [24, 100, 1000, 5000, 40_000][self.random.below(5)];
                    self.blocks.push((byte, vec![byte; len]));
                }
            }
        }
    }
}

fn check((byte, block): &(u8, Vec<u8>)) {
    assert!(block.iter().all(|other| other == byte));
}

// spec: H11, H15
#[test]
fn a_program_goes_on_allocating_while_all_of_its_heap_is_tracked() {
    alone(|| {
        if heap().is_none() {
            println!("skipped, because this malloc has no heap");
            return;
        }
        keep_to_the_heap();
        static ALL_IN_HEAP: AtomicBool = AtomicBool::new(false);
        let worker = thread::spawn(|| {
            let mut blocks = Blocks { random: Random::from(7), blocks: Vec::with_capacity(1 << 16) };
            blocks.change(3000);
            let heap = heap().unwrap();
            let is_in_heap = |(_, block): &(u8, Vec<u8>)| heap.contains(&block.as_ptr().addr());
            ALL_IN_HEAP.store(blocks.blocks.iter().all(is_in_heap), Ordering::Relaxed);
            STEP.store(1, Ordering::Release);
            wait_for(2);
            blocks.change(3000);
            STEP.store(3, Ordering::Release);
            wait_for(4);
            blocks.blocks.iter().for_each(check);
            blocks.change(3000);
        });
        let uffd = open();
        wait_for(1);
        assert!(ALL_IN_HEAP.load(Ordering::Relaxed));
        let range = heap().unwrap();
        let mut events = Events::with_capacity(1000);
        let mut dirty = vec![false; range.len() / PAGE];
        assert!(!range.contains(&dirty.as_ptr().addr()) && !range.contains(&events.as_ptr().addr()));
        let region = adopt(&uffd, range.clone(), BOTH).unwrap();
        region.writeprotect(0..region.pages(), WriteProtect::Protect).unwrap();
        STEP.store(2, Ordering::Release);
        while STEP.load(Ordering::Acquire) < 3 {
            uffd.read(Wait::AtMost(Duration::from_millis(5)), &mut events).unwrap();
            for event in events.drain(..) {
                let Event::Fault(fault) = event else { continue };
                let page = region.page_at(fault.address).unwrap();
                if fault.kind == FaultKind::WriteProtect {
                    dirty[page] = true;
                    region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap();
                } else {
                    let _somebody_may_have = region.zeropage(page..page + 1).unwrap();
                }
            }
        }
        drop(region);
        STEP.store(4, Ordering::Release);
        worker.join().unwrap();
        let written = dirty.iter().filter(|dirty| **dirty).count();
        println!("measured: {written} of {} heap pages were written to", dirty.len());
        assert!(written > 100, "{written}");
    });
}

// spec: H11
#[test]
fn the_buffer_of_a_vector_is_adopted_tracked_and_given_back() {
    alone(|| {
        for bytes in [64 * PAGE, 3 << 20] {
            let mut vector: Vec<u8> = (0..bytes).map(|at| (at % 251).to_le_bytes()[0]).collect();
            let uffd = open();
            let start = NonNull::new(vector.as_mut_ptr()).unwrap();
            // SAFETY: invariant 2.
            let region = unsafe { uffd.adopt(NonNull::slice_from_raw_parts(start, bytes), BOTH) }.unwrap();
            let skipped = region.base() - start.addr().get();
            assert!(skipped < PAGE && region.pages() >= bytes / PAGE - 1, "{skipped} bytes, {} pages", region.pages());
            region.writeprotect(0..region.pages(), WriteProtect::Protect).unwrap();
            let done = AtomicBool::new(false);
            let written = [3, 17, 40];
            let dirty = thread::scope(|scope| {
                let monitor = scope.spawn(|| {
                    let (mut dirty, mut events) = (Vec::new(), Vec::new());
                    while !done.load(Ordering::Relaxed) {
                        uffd.read(Wait::AtMost(Duration::from_millis(1)), &mut events).unwrap();
                        for event in events.drain(..) {
                            let Event::Fault(fault) = event else { continue };
                            let page = region.page_at(fault.address).unwrap();
                            dirty.push(page);
                            region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap();
                        }
                    }
                    dirty
                });
                for page in written {
                    vector[skipped + page * PAGE + 9] = 255;
                    vector[skipped + page * PAGE + 10] = 255;
                }
                done.store(true, Ordering::Relaxed);
                monitor.join().unwrap()
            });
            assert_eq!(dirty, written);
            drop(region);
            for (at, byte) in vector.iter().enumerate() {
                let is_written = written.iter().any(|page| [9, 10].contains(&at.wrapping_sub(skipped + page * PAGE)));
                assert_eq!(*byte, if is_written { 255 } else { (at % 251).to_le_bytes()[0] }, "byte {at}");
            }
            vector.fill(1);
            until("nobody sleeps", || crate::support::asleep() == 0);
        }
    });
}
