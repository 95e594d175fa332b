//! The program's own memory, registered with the kernel where it stands.
//!
//! 1. What is adopted is a mapping of the test's own, or the heap of a program that gives nothing of it back;
//!    it is reached by address only, and stays as it is until it is unregistered.
#![expect(unsafe_code, reason = "adopts memory and reaches it by address; the invariant above is this file's proof")]

use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use userfault_client::{
    AdoptError, Event, FaultKind, Features, Options, Region as _, RegisterModes, Stopped, Uffd as _, UffdError, Unfit,
    Wait, WriteProtect,
};
use userfault_linux::{Region, Uffd};
use userfault_signal::Bytes;

use crate::support::{Events, alone, open, skip};

const PAGE: usize = 4096;
/// `linux/mman.h`.
const MADV_GUARD_INSTALL: i32 = 102;
const BOTH: RegisterModes = RegisterModes::MISSING.union(RegisterModes::WP);

/// Maps memory, in one step over what is there if `address` is not 0: other tests map, too.
fn map_at(address: usize, pages: usize) -> usize {
    let flags = MapFlags::PRIVATE | if address == 0 { MapFlags::empty() } else { MapFlags::FIXED };
    let place = ptr::with_exposed_provenance_mut(address);
    // SAFETY: invariant 1.
    let start = unsafe { mmap_anonymous(place, pages * PAGE, ProtFlags::READ | ProtFlags::WRITE, flags) };
    start.unwrap().expose_provenance()
}

fn adopt(uffd: &Uffd, range: Range<usize>, modes: RegisterModes) -> Result<Region, AdoptError> {
    let start = NonNull::new(ptr::with_exposed_provenance_mut(range.start)).unwrap();
    // SAFETY: invariant 1.
    unsafe { uffd.adopt(NonNull::slice_from_raw_parts(start, range.len()), modes) }
}

fn fill(base: usize, pages: Range<usize>, byte: u8) {
    for at in pages.start * PAGE..pages.end * PAGE {
        // SAFETY: invariant 1.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(base + at).write_volatile(byte) };
    }
}

fn check(base: usize, pages: Range<usize>, byte: u8) {
    for at in pages.start * PAGE..pages.end * PAGE {
        // SAFETY: invariant 1.
        let found = unsafe { ptr::with_exposed_provenance::<u8>(base + at).read_volatile() };
        assert_eq!(found, byte, "byte {at}");
    }
}

#[test]
fn adopted_memory_keeps_its_contents_and_what_it_has_not_is_missing() {
    let uffd = open!();
    let base = map_at(0, 64);
    fill(base, 10..20, 7);
    let region = adopt(&uffd, base..base + 64 * PAGE, BOTH).unwrap();
    check(base, 10..20, 7);
    thread::scope(|scope| {
        let reader = scope.spawn(|| check(base, 30..31, 8));
        let mut events = Events::new();
        uffd.read(Wait::Forever, &mut events).unwrap();
        assert!(
            matches!(&events[..], [Event::Fault(fault)] if region.page_at(fault.address) == Some(30)),
            "{events:?}"
        );
        assert_eq!(region.copy(30, &[8; PAGE]).unwrap().complete(), Ok(1));
        reader.join().unwrap();
    });
    region.writeprotect(10..12, WriteProtect::Protect).unwrap();
    // SAFETY: bytes are bytes (invariant 1).
    unsafe { region.discard_adopted(15..17) }.unwrap();
    assert_eq!(region.copy(15, &[9; PAGE]).unwrap().complete(), Ok(1));
    drop(region);
    for (pages, byte) in
        [(0..10, 0), (10..15, 7), (15..16, 9), (16..17, 0), (17..20, 7), (20..30, 0), (30..31, 8), (31..64, 0)]
    {
        check(base, pages, byte);
    }
    fill(base, 0..64, 1);
    check(base, 0..64, 1);
}

#[test]
fn after_the_hook_nothing_reaches_what_lies_there_not_even_a_region_of_the_same_descriptor() {
    let uffd = open!();
    let base = map_at(0, 64);
    let region = adopt(&uffd, base..base + 64 * PAGE, BOTH).unwrap();
    region.unregister(10..30).unwrap();
    map_at(base + 10 * PAGE, 20);
    // Somebody else's registration, with the same descriptor.
    let other = adopt(&uffd, base + 10 * PAGE..base + 30 * PAGE, BOTH).unwrap();
    for pages in [10..11, 29..30, 5..12, 25..40] {
        let bytes = vec![1; pages.len() * PAGE];
        let expected = Some(Stopped::NotRegistered);
        assert_eq!(region.copy(pages.start, &bytes).unwrap().stopped_by, expected, "{pages:?}");
        assert_eq!(region.zeropage(pages.clone()).unwrap().stopped_by, expected, "{pages:?}");
        for how in [WriteProtect::Protect, WriteProtect::Lift] {
            assert!(matches!(region.writeprotect(pages.clone(), how), Err(UffdError::System { .. })), "{pages:?}");
        }
        // SAFETY: it is refused.
        assert!(unsafe { region.discard_adopted(pages.clone()) }.is_err(), "{pages:?}");
    }
    region.unregister(0..64).unwrap();
    drop(region);
    // All of it is registered still, and nothing was filled.
    for page in 0..20 {
        assert_eq!(other.copy(page, &[4; PAGE]).unwrap().complete(), Ok(1), "page {page}");
    }
    check(base, 10..30, 4);
    check(base, 0..10, 0);
}

#[test]
fn fills_in_progress_are_over_when_unregistering_returns() {
    let uffd = open!();
    let base = map_at(0, 64);
    for turn in 0..30 {
        let region = adopt(&uffd, base..base + 64 * PAGE, RegisterModes::MISSING).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let bytes = vec![turn; 16 * PAGE];
                    while region.copy(16, &bytes).unwrap().stopped_by != Some(Stopped::NotRegistered) {
                        let _all_are_there = region.copy_missing(32, &bytes).unwrap();
                    }
                });
            }
            (0..turn).for_each(|_| thread::yield_now());
            region.unregister(16..32).unwrap();
            // Ours alone: a late fill would be seen in it.
            map_at(base + 16 * PAGE, 16);
            let other = adopt(&uffd, base + 16 * PAGE..base + 32 * PAGE, RegisterModes::MISSING).unwrap();
            thread::yield_now();
            for page in 0..16 {
                assert_eq!(other.zeropage(page..page + 1).unwrap().complete(), Ok(1), "turn {turn}, page {page}");
            }
        });
        drop(region);
        map_at(base, 64);
    }
}

#[test]
fn what_cannot_be_adopted_is_refused_with_the_reason_and_what_the_kernel_can_take_is_not() {
    let uffd = open!();
    let refused = |range: Range<usize>| match adopt(&uffd, range, BOTH) {
        Err(AdoptError::Unfit { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let base = map_at(0, 8);
    let region = adopt(&uffd, base..base + 4 * PAGE, BOTH).unwrap();
    assert_eq!(refused(base + 3 * PAGE..base + 8 * PAGE), Unfit::Registered);
    let here = (&raw const region).addr() / PAGE * PAGE;
    assert_eq!(refused(here..here + PAGE), Unfit::Stack);
    assert_eq!(refused(0x20_0000..0x20_1000), Unfit::NotMapped);
    let own = uffd.map(4, RegisterModes::MISSING).unwrap();
    assert_eq!(refused(own.base()..own.base() + PAGE), Unfit::Own);
    drop(region);
    // The kernel's handler is not in this process: what is read-only is no trouble.
    // SAFETY: invariant 1.
    unsafe { mprotect(ptr::with_exposed_provenance_mut(base), 8 * PAGE, MprotectFlags::READ) }.unwrap();
    let region = adopt(&uffd, base..base + 8 * PAGE, RegisterModes::MISSING).unwrap();
    assert_eq!(region.copy(1, &[3; PAGE]).unwrap().complete(), Ok(1));
    check(base, 1..2, 3);
    assert_eq!(region.window(0..1).unwrap_err(), UffdError::Adopted);
    assert_eq!(region.shared(0..1).unwrap_err(), UffdError::Adopted);
}

static STEP: AtomicUsize = AtomicUsize::new(0);

fn wait_for(step: usize) {
    while STEP.load(Ordering::Acquire) < step {
        thread::yield_now();
    }
}

fn heap() -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap())
}

/// Makes, changes and compares blocks, of which malloc takes all from the heap.
fn use_the_heap(blocks: &mut Vec<Vec<u8>>, rounds: usize) {
    for round in 0..rounds {
        let byte = u8::try_from(round % 251).unwrap();
        blocks.push(vec![byte; 10 + round * 37 % 9000]);
        if blocks.len() > 300 {
            let block = blocks.swap_remove(round * 7 % 300);
            assert!(block.iter().all(|other| *other == block[0]));
        }
        if let Some(block) = blocks.get_mut(round * 11 % 300) {
            assert!(block.iter().all(|other| *other == block[0]));
            block.fill(byte);
        }
    }
}

#[test]
fn a_program_goes_on_allocating_while_all_of_its_heap_is_tracked() {
    alone!(a_program_goes_on_allocating_while_all_of_its_heap_is_tracked, {
        let uffd = open!();
        if heap().is_none() {
            return skip("this malloc has no heap");
        }
        // One arena for the threads to come, no mappings of its own, nothing given back (invariant 1).
        for (what, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 1 << 25), (libc::M_TRIM_THRESHOLD, i32::MAX)]
        {
            // SAFETY: two numbers.
            assert_eq!(unsafe { libc::mallopt(what, value) }, 1);
        }
        let worker = thread::spawn(|| {
            let mut blocks = Vec::with_capacity(1000);
            use_the_heap(&mut blocks, 2000);
            let heap = heap().unwrap();
            assert!(blocks.iter().all(|block| heap.contains(&block.as_ptr().addr())));
            STEP.store(1, Ordering::Release);
            wait_for(2);
            use_the_heap(&mut blocks, 2000);
            STEP.store(3, Ordering::Release);
            wait_for(4);
            use_the_heap(&mut blocks, 2000);
        });
        wait_for(1);
        let range = heap().unwrap();
        let mut events = Events::with_capacity(1000);
        assert!(!range.contains(&events.as_ptr().addr()), "whoever answers allocates elsewhere");
        let region = adopt(&uffd, range, BOTH).unwrap();
        region.writeprotect(0..region.pages(), WriteProtect::Protect).unwrap();
        STEP.store(2, Ordering::Release);
        let mut written = 0;
        while STEP.load(Ordering::Acquire) < 3 {
            uffd.read(Wait::AtMost(Duration::from_millis(5)), &mut events).unwrap();
            for event in events.drain(..) {
                let Event::Fault(fault) = event else { continue };
                let page = region.page_at(fault.address).unwrap();
                if fault.kind == FaultKind::WriteProtect {
                    written += 1;
                    region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap();
                } else {
                    let _somebody_may_have = region.zeropage(page..page + 1).unwrap();
                }
            }
        }
        drop(region);
        STEP.store(4, Ordering::Release);
        worker.join().unwrap();
        assert!(written > 50, "{written}");
    });
}

fn raising() -> Options {
    Options { require: Features::SIGBUS, ..Options::default() }
}

#[test]
fn adopted_memory_is_not_answered_inline_and_the_reason_is_told() {
    let uffd = open!(&raising());
    let base = map_at(0, 4);
    let region = adopt(&uffd, base..base + 4 * PAGE, RegisterModes::MISSING).unwrap();
    let error = region.answer_inline(Bytes::from(vec![7; 4 * PAGE]), 1).unwrap_err();
    assert!(matches!(error, UffdError::NotInline { reason } if reason.contains("the program's own")), "{error}");
    // It can be filled as ever.
    assert_eq!(region.copy(0, &[7; PAGE]).unwrap().complete(), Ok(1));
    check(base, 0..1, 7);
}

#[test]
fn guards_in_the_programs_memory_are_not_filled_over() {
    let uffd = open!();
    let base = map_at(0, 4);
    let place = ptr::with_exposed_provenance_mut(base + PAGE);
    // SAFETY: the test's own page (invariant 1), which nobody refers to.
    if unsafe { libc::madvise(place, PAGE, MADV_GUARD_INSTALL) } != 0 {
        return skip("this kernel has no guards");
    }
    let refused = adopt(&uffd, base..base + 4 * PAGE, BOTH).unwrap_err();
    let guard = base + PAGE..base + 2 * PAGE;
    assert!(matches!(&refused, AdoptError::Unfit { range, why: Unfit::Guarded } if *range == guard), "{refused}");
    let region = adopt(&uffd, base + 2 * PAGE..base + 4 * PAGE, BOTH).unwrap();
    assert_eq!(region.copy(0, &[3; 2 * PAGE]).unwrap().complete(), Ok(2));
}
