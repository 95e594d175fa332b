//! What the program does with adopted memory itself, after it has said so.

use std::thread;

use userfault_client::{Region as _, RegisterModes, Stopped, Uffd as _, UffdError, WriteProtect};
use userfault_process::testing::fail_host_calls;
use userfault_signal::{AlternateStack, Bytes};

use crate::access::{load, store};
use crate::adopt::{BOTH, Memory, adopt, discard};
use crate::alone::{alone, child};
use crate::os;
use crate::support::{CHUNK, PAGE, Rescue, contents, contents_of, fill, open, page_of, read, scatter, until_asleep};

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Puts a stranger's page-aligned read-only memory where adopted memory was: every byte says `generation`.
fn stranger(memory: &Memory, pages: std::ops::Range<usize>, generation: u64) {
    let len = pages.len() * PAGE;
    os::unmap(memory.address(pages.start), len);
    assert_eq!(os::map(memory.address(pages.start), len, RW, 0), memory.address(pages.start));
    memory.write(pages.clone(), generation);
    os::protect(memory.address(pages.start), len, libc::PROT_READ).unwrap();
}

// spec: H15
#[test]
fn after_the_hook_nothing_reaches_what_a_stranger_maps_there() {
    alone(|| {
        for guarded in [false, true] {
            let uffd = open();
            let memory = Memory::map(CHUNK);
            memory.write(0..20, 1);
            let region = memory.adopt(&uffd).unwrap();
            if guarded {
                scatter(&region, 30..60, 1);
            }
            region.writeprotect(10..15, WriteProtect::Protect).unwrap();
            assert_eq!(region.poison(100..102).unwrap().complete(), Ok(2));
            region.unregister(8..110).unwrap();
            stranger(&memory, 8..110, 5);
            for first in [8, 14, 50, 100, 105] {
                let expected = Some(Stopped::NotRegistered);
                assert_eq!(region.copy(first, &contents(first, 9)).unwrap().stopped_by, expected);
                assert_eq!(region.copy_protected(first, &contents(first, 9)).unwrap().stopped_by, expected);
                assert_eq!(region.zeropage(first..first + 2).unwrap().stopped_by, expected);
                assert_eq!(region.poison(first..first + 2).unwrap().stopped_by, expected);
                assert_eq!(region.install(first, &contents(first, 9)).unwrap().stopped_by, expected);
                assert!(region.writeprotect(first..first + 1, WriteProtect::Lift).is_err());
                assert!(region.writeprotect(first..first + 1, WriteProtect::Protect).is_err());
                assert!(discard(&region, first..first + 1).is_err());
                region.wake(first..first + 1).unwrap();
                region.unregister(first..first + 2).unwrap();
            }
            // Half of these are the stranger's: none is filled.
            assert_eq!(region.copy(109, &[contents(0, 9), contents(0, 9)].concat()).unwrap().pages_done, 0);
            region.unregister(4..200).unwrap();
            (8..110).for_each(|page| memory.check(page, 5));
            drop(region);
            (8..110).for_each(|page| memory.check(page, 5));
            // It still is what the stranger made it: a system call cannot write there, either.
            assert_eq!(os::write_from(&os::memory_file(), memory.address(8), 102 * PAGE), Ok(102 * PAGE));
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = format!("{:x}-", memory.address(8));
            assert!(maps.lines().any(|line| line.starts_with(&start) && line.contains("r--p")), "{maps}");
        }
    });
}

// spec: H15
#[test]
fn after_the_hook_a_fault_on_a_strangers_memory_is_the_strangers() {
    let ended = child(|| {
        let uffd = open();
        let memory = Memory::map(CHUNK);
        let region = memory.adopt(&uffd).unwrap();
        region.unregister(0..100).unwrap();
        stranger(&memory, 0..100, 5);
        std::mem::forget(region);
        println!("before");
        store(memory.address(50), 1);
        println!("touched");
    });
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "{ended:?}");
    assert!(ended.output.contains("before") && !ended.output.contains("touched"), "{}", ended.output);
}

// spec: H15
#[test]
fn a_region_that_lands_where_adopted_memory_was_is_nobody_elses() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(3 * CHUNK);
        let region = memory.adopt(&uffd).unwrap();
        let hole = CHUNK..CHUNK + 64;
        region.unregister(hole.clone()).unwrap();
        os::unmap(memory.address(hole.start), hole.len() * PAGE);
        // The kernel takes the highest hole that fits: soon ours.
        let mut others = Vec::new();
        let landed = (0..1000).find_map(|_| {
            let other = uffd.map(32, BOTH).unwrap();
            let is_inside = (memory.address(hole.start)..memory.address(hole.end)).contains(&other.base());
            if is_inside {
                return Some(other);
            }
            others.push(other);
            None
        });
        let Some(landed) = landed else {
            println!("skipped, because no mapping landed in the hole");
            return;
        };
        let first = (landed.base() - memory.base) / PAGE;
        assert_eq!(region.copy(first, &contents(0, 9)).unwrap().stopped_by, Some(Stopped::NotRegistered));
        assert!(region.writeprotect(first..first + 1, WriteProtect::Protect).is_err());
        fill(&landed, 0, 4);
        fill(&landed, 9, 4);
        region.unregister(0..region.pages()).unwrap();
        // Its other pages are missing still: they can be filled, and by their own region only.
        fill(&landed, 5, 4);
        drop(region);
        fill(&landed, 6, 4);
        for page in [0, 5, 6, 9] {
            assert_eq!(load(landed.base() + page * PAGE), crate::support::word(page, 4));
        }
        landed.unregister(0..32).unwrap();
        assert_eq!(load(landed.base() + 20 * PAGE), 0);
    });
}

// spec: H15
#[test]
fn who_sleeps_on_adopted_memory_goes_on_when_it_is_given_back() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(100);
        memory.write(50..60, 1);
        let region = memory.adopt(&uffd).unwrap();
        region.writeprotect(50..60, WriteProtect::Protect).unwrap();
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let reader = scope.spawn(|| load(memory.address(7)));
            let writer = scope.spawn(|| store(memory.address(52), 3));
            until_asleep(2);
            region.unregister(0..100).unwrap();
            assert_eq!(reader.join().unwrap(), 0);
            writer.join().unwrap();
        });
        assert_eq!(load(memory.address(52)), 3);
    });
}

// spec: H15
#[test]
fn threads_that_touch_memory_while_its_adoption_ends_never_notice() {
    alone(|| {
        for turn in 0..200_u64 {
            let uffd = open();
            let memory = Memory::map(64);
            memory.write(0..32, 1);
            let region = memory.adopt(&uffd).unwrap();
            thread::scope(|scope| {
                let readers: Vec<_> = (0..2)
                    .map(|thread| {
                        let memory = &memory;
                        scope.spawn(move || (32..64).map(|page| load(memory.address(page)) + thread).sum::<u64>())
                    })
                    .collect();
                (0..turn % 50).for_each(|_| thread::yield_now());
                drop(region);
                for (thread, reader) in readers.into_iter().enumerate() {
                    assert_eq!(reader.join().unwrap(), 32 * thread as u64);
                }
            });
            (0..32).for_each(|page| memory.check(page, 1));
            os::unmap(memory.base, 64 * PAGE);
        }
    });
}

// spec: H16
#[test]
fn contents_that_the_hook_ended_are_missing_again() {
    alone(|| {
        for guarded in [false, true] {
            let uffd = open();
            let memory = Memory::map(CHUNK);
            memory.write(0..100, 1);
            let region = memory.adopt(&uffd).unwrap();
            if guarded {
                scatter(&region, 200..230, 1);
            }
            discard(&region, 10..20).unwrap();
            thread::scope(|scope| {
                let _rescue = Rescue(&region);
                let reader = scope.spawn(|| load(memory.address(15)));
                let events = read(&uffd, 1);
                assert_eq!(page_of(&region, &events[0]), 15);
                fill(&region, 15, 2);
                assert_eq!(reader.join().unwrap(), crate::support::word(15, 2));
            });
            memory.check(9, 1);
            memory.check(15, 2);
            memory.check(20, 1);
            drop(region);
            (10..20).for_each(|page| memory.check(page, if page == 15 { 2 } else { 0 }));
        }
    });
}

/// Poisons a page of adopted memory, ends the adoption, and touches the page.
fn touch_what_was_poisoned(guarded: bool) {
    let uffd = open();
    let memory = Memory::map(CHUNK);
    let region = adopt(&uffd, memory.base..memory.address(CHUNK), RegisterModes::MISSING).unwrap();
    if guarded {
        scatter(&region, 30..60, 1);
    }
    assert_eq!(region.poison(5..6).unwrap().complete(), Ok(1));
    drop(region);
    assert_eq!(load(memory.address(4)), 0);
    println!("before");
    println!("contents {}", load(memory.address(5)));
}

// spec: H15
#[test]
fn a_poisoned_page_is_never_zeros_not_even_when_its_adoption_ends() {
    let ended = child(|| touch_what_was_poisoned(false));
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "{}", ended.output);
    assert!(ended.output.contains("before") && !ended.output.contains("contents"), "{}", ended.output);
}

// spec: H15
#[test]
fn a_poisoned_page_of_a_guarded_chunk_is_never_zeros_either() {
    let ended = child(|| touch_what_was_poisoned(true));
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "{}", ended.output);
    assert!(ended.output.contains("before") && !ended.output.contains("contents"), "{}", ended.output);
}

// spec: H14
#[test]
fn while_memory_is_adopted_a_system_call_on_it_fails_or_sees_all_of_it() {
    alone(|| {
        let file = os::memory_file();
        let done = std::sync::atomic::AtomicBool::new(false);
        let uffd = open();
        let memory = Memory::map(CHUNK);
        memory.write(0..CHUNK, 1);
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let mut refused = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    match os::write_from(&file, memory.address(17), PAGE) {
                        // All of it, or the part before the page was closed: never other bytes.
                        Ok(1..=PAGE) => {}
                        Err(libc::EFAULT) => refused += 1,
                        other => panic!("{other:?}"),
                    }
                }
                refused
            });
            for _ in 0..50 {
                let region = memory.adopt(&uffd).unwrap();
                // From here on it is as before: its contents are there.
                let seen = os::kernel_reads(&os::memory_file(), memory.address(17), PAGE);
                assert_eq!(seen, Some(contents(17, 1)));
                drop(region);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            println!("measured: {} of the calls saw EFAULT", caller.join().unwrap());
        });
    });
}

#[test]
fn an_error_says_that_the_pages_are_registered_still() {
    let error = UffdError::StillRegistered { pages: 3, errno: userfault_abi::errno::Errno::ENOMEM };
    assert!(error.to_string().contains("3 pages") && error.to_string().contains("ask again"), "{error}");
}

// spec: H15, H17
#[test]
fn a_forked_child_has_plain_memory_where_it_was_adopted_and_nothing_is_done_to_the_rest() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(2 * CHUNK);
        memory.write((0..CHUNK).step_by(2), 1);
        let region = memory.adopt(&uffd).unwrap();
        region.writeprotect(0..50, WriteProtect::Protect).unwrap();
        // Every third page of some goes back, and is closed by the program; so is a stranger's in the middle.
        let given_back =
            |page: usize| (100..200).contains(&page) && page.is_multiple_of(3) || (300..310).contains(&page);
        for page in (0..2 * CHUNK).filter(|page| given_back(*page)) {
            region.unregister(page..page + 1).unwrap();
            os::protect(memory.address(page), PAGE, libc::PROT_READ).unwrap();
        }
        let file = os::memory_file();
        let status = os::forked(|| {
            for page in 0..2 * CHUNK {
                memory.check(page, u64::from(page < CHUNK && page % 2 == 0));
                let is_writable = os::read_into(&file, memory.address(page));
                assert_eq!(is_writable, !given_back(page), "page {page}");
            }
            42
        });
        assert_eq!(status, 42 << 8);
        // The parent's is as it was.
        assert_eq!(region.copy(701, &contents(701, 3)).unwrap().complete(), Ok(1));
        (0..CHUNK).for_each(|page| {
            if page % 2 == 0 {
                memory.check(page, 1)
            }
        });
    });
}

// spec: H15
#[test]
fn who_answers_inline_leaves_alone_what_was_given_back_whatever_lies_there() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(64);
        let region = adopt(&uffd, memory.base..memory.address(64), RegisterModes::MISSING).unwrap();
        let inline = region.answer_inline(Bytes::from(contents_of(0..64, 7)), 16).unwrap();
        region.unregister(20..30).unwrap();
        os::unmap(memory.address(20), 10 * PAGE);
        os::map(memory.address(20), 10 * PAGE, RW, 0);
        // Of the same descriptor, so that nothing but the region itself tells its pages from others.
        let other = adopt(&uffd, memory.address(20)..memory.address(30), RegisterModes::MISSING).unwrap();
        let _large = AlternateStack::ensure(0).unwrap();
        memory.check(17, 7);
        memory.check(31, 7);
        assert_eq!(inline.counts().pages_filled, 6);
        for page in 0..10 {
            assert_eq!(other.copy(page, &contents(page, 3)).unwrap().complete(), Ok(1), "page {page}");
        }
    });
}

// spec: H5, H15, H17
#[test]
fn what_a_stranger_maps_where_an_adoption_ended_badly_is_not_touched_in_a_forked_child() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(64);
        let region = memory.adopt(&uffd).unwrap();
        region.unregister(10..20).unwrap();
        fail_host_calls(0, 1 << 20);
        drop(region);
        fail_host_calls(0, 0);
        stranger(&memory, 0..64, 5);
        let status = os::forked(|| {
            let is_unharmed = |page: usize| os::protection_of(memory.address(page)).is_some_and(|bits| bits == "r--p");
            i32::from(![0, 9, 10, 20, 63].into_iter().all(is_unharmed))
        });
        assert_eq!(status, 0);
        // Here neither.
        memory.check(30, 5);
        assert_eq!(os::protection_of(memory.address(30)).as_deref(), Some("r--p"));
        // Nothing is left of it: it can be adopted once more.
        os::protect(memory.base, 64 * PAGE, RW).unwrap();
        drop(memory.adopt(&uffd).unwrap());
        (0..64).for_each(|page| memory.check(page, 5));
    });
}
