//! A fault inside a signal handler that interrupted a parked fault, on alternate stacks of every size.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{Event, Region as _, Uffd as _, UffdError, Wait};
use userfault_process::{Region, Uffd, statistics};

use crate::access::load;
use crate::alone::alone;
use crate::os;
use crate::support::{
    CHUNK, PAGE, Random, asleep, contents, fill, map, open, page_of, read, until, until_asleep, word,
};

static NESTED: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static PROGRESS: AtomicUsize = AtomicUsize::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// Touches a page of its own.
extern "C" fn touch(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let page = NESTED.load(Relaxed);
    SEEN.store(usize::try_from(load(page)).unwrap(), Relaxed);
    HANDLED.fetch_add(1, Relaxed);
}

fn nest_on(stack: usize, flags: i32) {
    let uffd = open();
    let region = map(&uffd, 8);
    os::handle(libc::SIGUSR1, touch, flags);
    NESTED.store(region.base() + PAGE, Relaxed);
    let base = region.base();
    thread::scope(|scope| {
        let faulting = scope.spawn(move || {
            os::use_stack(stack, 0);
            THREAD.store(os::thread_id(), Relaxed);
            load(base)
        });
        assert_eq!(page_of(&region, &read(&uffd, 1)[0]), 0);
        until_asleep(1);
        os::send(THREAD.load(Relaxed), libc::SIGUSR1);
        // The handler runs before the page is there; its own fault comes first, the other one again.
        assert_eq!(page_of(&region, &read(&uffd, 1)[0]), 1);
        assert_eq!(HANDLED.load(Relaxed), 0);
        fill(&region, 1, 1);
        assert_eq!(page_of(&region, &read(&uffd, 1)[0]), 0);
        assert_eq!(HANDLED.load(Relaxed), 1);
        fill(&region, 0, 1);
        assert_eq!(faulting.join().unwrap(), word(0, 1));
    });
    assert_eq!((HANDLED.load(Relaxed), SEEN.load(Relaxed) as u64), (1, word(1, 1)));
    assert_eq!(statistics().map(|all| (all.asleep, all.slots)), Some((0, 0)));
}

// spec: H21
#[test]
fn a_handler_that_faults_over_a_parked_fault_is_answered_on_a_thread_without_alternate_stack() {
    alone(|| nest_on(0, 0));
}

// spec: H21
#[test]
fn a_handler_that_faults_ends_a_parked_fault_on_an_alternate_stack_of_8_kib_and_is_answered() {
    alone(|| nest_on(8 << 10, libc::SA_ONSTACK));
}

// spec: H21
#[test]
fn a_handler_that_faults_ends_a_parked_fault_on_an_alternate_stack_of_16_kib_and_is_answered() {
    alone(|| nest_on(16 << 10, libc::SA_ONSTACK));
}

// spec: H21
#[test]
fn a_handler_that_faults_over_a_parked_fault_is_answered_on_an_alternate_stack_of_64_kib() {
    alone(|| nest_on(64 << 10, libc::SA_ONSTACK | libc::SA_RESTART));
}

/// Answers every fault of `region` until the descriptor is shut down.
fn monitor(uffd: &Uffd, region: &Region, generation: u64) {
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match uffd.read(Wait::Forever, &mut events) {
            Ok(_) => {}
            Err(UffdError::ShutDown) => return,
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            let page = page_of(region, event);
            let _or_there_already = region.copy(page, &contents(page, generation)).unwrap();
        }
    }
}

/// Touches the next page that is missing.
extern "C" fn touch_next(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let page = NESTED.fetch_add(PAGE, Relaxed);
    let _contents = load(page);
    HANDLED.fetch_add(1, Relaxed);
}

fn signals() -> usize {
    std::env::var("USERFAULT_SIGNALS").ok().map_or(3000, |text| text.parse().unwrap())
}

// spec: H21, H29
#[test]
fn however_a_signal_meets_a_thread_about_to_park_no_wake_up_is_lost() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 256 * CHUNK);
        let half = 128 * CHUNK;
        os::handle(libc::SIGUSR1, touch_next, 0);
        NESTED.store(region.base() + half * PAGE, Relaxed);
        let (is_over, base) = (AtomicBool::new(false), region.base());
        let mut random = Random::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                os::set_blocked(libc::SIGUSR1, true);
                monitor(&uffd, &region, 1);
            });
            let faulting = scope.spawn(|| {
                os::use_stack(0, 0);
                THREAD.store(os::thread_id(), Relaxed);
                let mut page = 0;
                while !is_over.load(Relaxed) && page < half {
                    assert_eq!(load(base + page * PAGE), word(page, 1));
                    page += 1;
                    PROGRESS.store(page, Relaxed);
                }
                page
            });
            until("the thread runs", || THREAD.load(Relaxed) != 0);
            for sent in 0..signals() {
                let before = HANDLED.load(Relaxed);
                (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
                if faulting.is_finished() {
                    println!("measured: the pages ended after {sent} signals");
                    break;
                }
                os::send(THREAD.load(Relaxed), libc::SIGUSR1);
                until("the handler runs", || HANDLED.load(Relaxed) > before || faulting.is_finished());
                // Without another signal, which would end any sleep.
                let then = PROGRESS.load(Relaxed);
                until("the thread goes on", || PROGRESS.load(Relaxed) > then || faulting.is_finished());
            }
            is_over.store(true, Relaxed);
            let pages = faulting.join().unwrap();
            println!("measured: {pages} pages under {} signals", HANDLED.load(Relaxed));
            uffd.shut_down();
        });
        assert_eq!(asleep(), 0);
    });
}

const PAINT: u8 = 0xC3;

/// How much of a painted stack that ends at `start + size` was used.
fn used(start: usize, size: usize) -> usize {
    (0..size).find(|at| crate::access::load_byte(start + at) != PAINT).map_or(0, |at| size - at)
}

// spec: H22
#[test]
fn the_handler_needs_less_than_4_kib_of_stack_beyond_the_kernels_frame() {
    alone(|| {
        let uffd = open();
        let region = crate::support::map_protectable(&uffd, 4 * CHUNK);
        (0..40).step_by(2).for_each(|page| fill(&region, page, 1));
        assert_eq!(region.copy_protected(61, &contents(61, 1)).unwrap().complete(), Ok(1));
        let base = region.base();
        let size = 64 << 10;
        thread::scope(|scope| {
            let faulting = scope.spawn(move || {
                let start = os::use_stack(size, PAINT);
                load(base + 51 * PAGE);
                let parked = used(start, size);
                crate::access::store(base + 61 * PAGE, 1);
                (parked, used(start, size))
            });
            for _ in 0..2 {
                let event = &read(&uffd, 1)[0];
                let Event::Fault(fault) = event else { panic!("{event:?}") };
                until_asleep(1);
                match page_of(&region, event) {
                    51 => fill(&region, 51, 1),
                    page => {
                        assert!(fault.write);
                        region.writeprotect(page..page + 1, userfault_client::WriteProtect::Lift).unwrap();
                    }
                }
            }
            let (parked, all) = faulting.join().unwrap();
            let frame = os::frame_bytes();
            println!("measured: {parked} and {all} bytes of stack, {frame} of them the kernel's frame");
            assert!(all < frame + 4096, "{all} of {frame} + 4096");
        });
    });
}

// spec: H22
#[test]
fn closing_and_opening_pages_for_lack_of_mappings_fits_on_the_stack_of_a_handler_too() {
    alone(|| {
        let uffd = crate::support::open_in(crate::support::Mode::Soft);
        let region = map(&uffd, 70 * CHUNK);
        for chunk in 0..70 {
            fill(&region, chunk * CHUNK + 5, 1);
            fill(&region, chunk * CHUNK + 9, 1);
        }
        // On a small one: the work is done on a borrowed one.
        let (base, size) = (region.base(), 8 << 10);
        let faulting = thread::spawn(move || {
            let start = os::use_stack(size, PAINT);
            for chunk in 0..70 {
                let page = chunk * CHUNK + 5;
                assert_eq!(load(base + page * PAGE), word(page, 1));
            }
            used(start, size)
        });
        let (all, frame) = (faulting.join().unwrap(), os::frame_bytes());
        println!("measured: {all} bytes of stack, {frame} of them the kernel's frame");
        assert!(all > 0 && all < frame + 4096, "{all} of {frame} + 4096");
    });
}

// spec: H21
#[test]
fn a_sleeper_on_the_stack_that_rust_gives_its_threads_is_ended_by_sigterm() {
    let ended = crate::alone::child(|| {
        let region = crate::support::open().map(1, userfault_client::RegisterModes::MISSING).unwrap();
        let window = userfault_client::Region::window(&region, 0..1).unwrap();
        // Nobody answers: the whole process is asleep or blocks every signal.
        let killer = std::thread::spawn(|| {
            userfault_signal::block_all_in_this_thread();
            crate::support::until_asleep(1);
            crate::os::kill_self(libc::SIGTERM);
        });
        println!("{}", window.as_slice()[0]);
        killer.join().unwrap();
    });
    assert_eq!(ended.signal, Some(libc::SIGTERM), "{ended:?}");
}

// spec: H21, m/fault/signal
#[test]
fn who_sleeps_on_a_small_stack_lets_another_thread_change_its_group() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 2);
        for stack in [8 << 10, 0] {
            thread::scope(|scope| {
                let base = region.base() + if stack == 0 { PAGE } else { 0 };
                let faulting = scope.spawn(move || {
                    os::use_stack(stack, 0);
                    load(base)
                });
                let page = page_of(&region, &read(&uffd, 1)[0]);
                until_asleep(1);
                // The C library sends every thread a signal and waits until each has changed its own.
                os::become_group(os::group());
                fill(&region, page, 1);
                assert_eq!(faulting.join().unwrap(), word(page, 1));
            });
        }
    });
}
