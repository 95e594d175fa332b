//! The program protects pages of a region by itself.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_abi::Features;
use userfault_client::{Event, Region as _, Uffd as _, UffdError, Wait, WriteProtect};
use userfault_process::raw::Memory;

use crate::access::{add, load, store, store_byte};
use crate::alone::alone;
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{CHUNK, Mode, PAGE, asleep, contents, fill, map, map_protectable, open_in, scatter, word};

static SEEN: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Allows again what the program had forbidden.
extern "C" fn allow(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    SEEN.fetch_add(1, Relaxed);
    ADDRESS.store(os::address_of(info), Relaxed);
    let page = os::address_of(info) & !(PAGE - 1);
    let _allowed = os::protect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE);
}

fn protect_own_page(mode: Mode) {
    os::handle(libc::SIGSEGV, allow, 0);
    let uffd = open_in(mode);
    let region = map(&uffd, CHUNK);
    if mode == Mode::Guarded {
        scatter(&region, 100..140, 1);
    }
    fill(&region, 3, 1);
    let at = region.base() + 3 * PAGE;
    for turn in 1..=20 {
        os::protect(at, PAGE, libc::PROT_READ).unwrap();
        store(at + 8, 5);
        assert_eq!((SEEN.load(Relaxed), ADDRESS.load(Relaxed)), (2 * turn - 1, at + 8));
        os::protect(at, PAGE, libc::PROT_NONE).unwrap();
        assert_eq!(load(at + 16), word(3, 1));
        assert_eq!((SEEN.load(Relaxed), ADDRESS.load(Relaxed)), (2 * turn, at + 16));
    }
    assert_eq!(load(at + 8), 5);
}

// spec: H24, H26
#[test]
fn where_the_program_forbids_an_access_to_a_present_page_its_own_handler_runs() {
    alone(|| protect_own_page(Mode::Plain));
}

// spec: H24, H26
#[test]
fn where_the_program_forbids_an_access_to_a_page_of_a_guarded_chunk_its_own_handler_runs() {
    alone(|| protect_own_page(Mode::Guarded));
}

// spec: H24
#[test]
fn where_the_program_forbids_an_access_to_memory_that_is_no_longer_registered_its_own_handler_runs() {
    alone(|| {
        os::handle(libc::SIGSEGV, allow, 0);
        let door = Door::open(Features::NONE);
        let memory = Memory::map(CHUNK).unwrap();
        door.register(pages(&memory, 0..CHUNK), 1).unwrap();
        door.unregister(pages(&memory, 0..100)).unwrap();
        let at = memory.base() + 7 * PAGE;
        store(at, 1);
        os::protect(at, PAGE, libc::PROT_READ).unwrap();
        store(at, 2);
        assert_eq!((SEEN.load(Relaxed), load(at)), (1, 2));
    });
}

/// How often each thread does its part.
fn turns() -> u64 {
    std::env::var("USERFAULT_TURNS").ok().map_or(4000, |text| text.parse().unwrap())
}

// spec: H24
#[test]
fn a_thread_that_writes_while_protection_comes_and_goes_is_never_taken_for_a_crash() {
    alone(|| {
        let uffd = open_in(Mode::Guarded);
        let region = map_protectable(&uffd, 4);
        (0..4).for_each(|page| fill(&region, page, 0));
        let before: u64 = load(region.base());
        let is_over = AtomicBool::new(false);
        let added = thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    let (at, is_over) = (region.base(), &is_over);
                    scope.spawn(move || {
                        let mut added = 0;
                        while !is_over.load(Relaxed) {
                            add(at, 1);
                            added += 1;
                        }
                        added
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut events = Vec::with_capacity(64);
                loop {
                    events.clear();
                    match uffd.read(Wait::Forever, &mut events) {
                        Ok(_) => {}
                        Err(UffdError::ShutDown) => return,
                        Err(error) => panic!("{error}"),
                    }
                    assert!(events.iter().all(|event| matches!(event, Event::Fault(_))));
                    region.writeprotect(0..1, WriteProtect::Lift).unwrap();
                }
            });
            for _ in 0..turns() {
                region.writeprotect(0..2, WriteProtect::Protect).unwrap();
                region.writeprotect(0..2, WriteProtect::Lift).unwrap();
            }
            is_over.store(true, Relaxed);
            let added: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            uffd.shut_down();
            added
        });
        assert_eq!(load(region.base()), before + added, "no addition was lost");
        assert_eq!(asleep(), 0);
        println!("measured: {added} additions under {} changes of protection", 2 * turns());
    });
}

// spec: H24
#[test]
fn a_thread_that_touches_one_byte_while_its_page_is_registered_and_unregistered_is_never_taken_for_a_crash() {
    alone(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(4).unwrap();
        let at = memory.base() + PAGE;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        store_byte(at + 5, 1);
                    }
                });
            }
            for turn in 0..turns() / 16 {
                for _ in 0..60 {
                    // A thread that met the first of these may find the second one done, again and again.
                    door.register(pages(&memory, 0..3), 1).unwrap();
                    door.unregister(pages(&memory, 0..3)).unwrap();
                }
                door.register(pages(&memory, 0..3), 1).unwrap();
                discard(&memory, 0..3).unwrap();
                if turn % 3 == 0 {
                    let _exists = door.copy(pages(&memory, 1..2), &contents(1, turn), 0);
                }
                let range = if turn % 2 == 0 { 0..3 } else { 1..2 };
                door.unregister(pages(&memory, range)).unwrap();
                // Gone behind our back, so it is missing when it is registered again.
                discard(&memory, 1..2).unwrap();
            }
            door.unregister(pages(&memory, 0..4)).unwrap();
            is_over.store(true, Relaxed);
        });
        assert_eq!(asleep(), 0);
    });
}
