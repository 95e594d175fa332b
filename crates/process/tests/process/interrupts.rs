//! Handlers that touch missing memory, over whatever they interrupt: the allocator, our own calls, anything.
//!
//! The monitor of that memory allocates nothing and takes no lock: what was interrupted may hold any.

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;

use userfault_client::{Event, Region as _, RegisterModes, Uffd as _, UffdError, Wait, WriteProtect};
use userfault_process::{Region, Uffd, statistics};

use crate::access::{add, load};
use crate::alone::alone_both_ways;
use crate::os;
use crate::support::{PAGE, Random, Rescue, asleep, contents, contents_of, fill, map, open, page_of, until, word};

/// Pages that handlers touch, each once.
const PAGES: usize = 1 << 15;
/// Signals that are sent to a thread, unless its work is over before.
const SIGNALS: usize = 1000;

static BASE: AtomicUsize = AtomicUsize::new(0);
static TOUCHED: AtomicUsize = AtomicUsize::new(0);
static RETURNED: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);

/// Handlers that have been entered and not left; once there is to be no more touching, they only return. A
/// process-wide timer may interrupt threads that are not the test's, so nobody else knows when the last is over.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Touches the next page, which nobody has touched.
extern "C" fn touch_next(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    // Before the look at the other word, and the other way round in `close`: one of the two sees the other.
    INSIDE.fetch_add(1, SeqCst);
    if !IS_CLOSED.load(SeqCst) {
        touch();
    }
    INSIDE.fetch_sub(1, SeqCst);
}

fn close() {
    IS_CLOSED.store(true, SeqCst);
    until("the last handler returns", || INSIDE.load(SeqCst) == 0);
}

fn touch() {
    let page = TOUCHED.fetch_add(1, SeqCst);
    if page < PAGES && load(BASE.load(SeqCst) + page * PAGE + page % 512 * 8) != word(page, 1) {
        WRONG.fetch_add(1, SeqCst);
    }
    RETURNED.fetch_add(1, SeqCst);
}

/// Fills each page of the handlers' region when it is touched, until the descriptor is shut down.
fn answer(uffd: &Uffd, region: &Region) {
    os::set_blocked(libc::SIGUSR1, true);
    os::set_blocked(libc::SIGPROF, true);
    let _rescue = Rescue(region);
    let (mut events, mut bytes) = (Vec::with_capacity(64), vec![0; PAGE]);
    loop {
        events.clear();
        match uffd.read(Wait::Forever, &mut events) {
            Ok(_) => {}
            Err(UffdError::ShutDown) => return,
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            let page = page_of(region, event);
            bytes.as_chunks_mut().0.fill(word(page, 1).to_ne_bytes());
            // A fault that was interrupted was told twice.
            let _or_there_already = region.copy(page, &bytes).unwrap();
        }
    }
}

/// The handlers' region with its monitor, and `work` beside it; at the end every byte is compared.
fn beside_a_monitor(work: impl FnOnce()) {
    let uffd = open();
    let region = map(&uffd, PAGES);
    BASE.store(region.base(), SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| answer(&uffd, &region));
        work();
        close();
        uffd.shut_down();
    });
    let touched = TOUCHED.load(SeqCst);
    assert!((1..=PAGES).contains(&touched), "{touched}");
    assert_eq!((RETURNED.load(SeqCst), WRONG.load(SeqCst)), (touched, 0));
    for page in 0..touched {
        for at in (0..PAGE).step_by(8) {
            assert_eq!(load(region.base() + page * PAGE + at), word(page, 1), "page {page}, byte {at}");
        }
    }
    let all = statistics().unwrap();
    println!("measured: {touched} touches by handlers, {all:?}");
    assert_eq!((all.asleep, all.slots), (0, 0));
}

/// Repeats `turn` on a thread with an alternate stack of so many bytes, interrupted at random instants.
fn interrupted(stack: usize, mut turn: impl FnMut(usize) + Send) {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    os::handle(libc::SIGUSR1, touch_next, libc::SA_RESTART | if stack == 0 { 0 } else { libc::SA_ONSTACK });
    let mut random = Random::new();
    beside_a_monitor(|| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let working = scope.spawn(|| {
                os::use_stack(stack, 0);
                THREAD.store(os::thread_id(), SeqCst);
                let mut turns = 0;
                while !is_over.load(SeqCst) {
                    turn(turns);
                    turns += 1;
                }
                turns
            });
            os::set_blocked(libc::SIGUSR1, true);
            until("the thread runs", || THREAD.load(SeqCst) != 0);
            for _ in 0..SIGNALS {
                (0..random.below(5000)).for_each(|_| std::hint::spin_loop());
                let before = RETURNED.load(SeqCst);
                os::send(THREAD.load(SeqCst), libc::SIGUSR1);
                until("the handler returns", || RETURNED.load(SeqCst) > before);
            }
            is_over.store(true, SeqCst);
            println!("measured: {} turns", working.join().unwrap());
        });
    });
}

/// Every call there is, on a region of its own; what each answers, and every byte.
struct OwnCalls {
    uffd: Uffd,
    region: Region,
    events: Vec<Event<core::convert::Infallible>>,
}

impl OwnCalls {
    fn new() -> Self {
        let uffd = open();
        let region = uffd.map(16, RegisterModes::MISSING | RegisterModes::WP).unwrap();
        Self { uffd, region, events: Vec::new() }
    }

    fn turn(&mut self, turn: usize) {
        let Self { uffd, region, events } = self;
        let generation = turn as u64 + 2;
        assert_eq!(region.copy(0, &contents_of(0..4, generation)).unwrap().complete(), Ok(4));
        assert_eq!(region.copy_protected(4, &contents_of(4..6, generation)).unwrap().complete(), Ok(2));
        assert_eq!(region.copy_without_wake(6, &contents(6, generation)).unwrap().complete(), Ok(1));
        assert_eq!(region.zeropage(7..9).unwrap().complete(), Ok(2));
        assert_eq!(region.poison(9..10).unwrap().complete(), Ok(1));
        region.writeprotect(0..2, WriteProtect::Protect).unwrap();
        region.writeprotect(0..6, WriteProtect::Lift).unwrap();
        region.wake(0..16).unwrap();
        uffd.wake_all();
        assert_eq!(uffd.read(Wait::Never, events), Ok(0));
        assert_eq!(uffd.sleepers(), Ok(vec![]));
        uffd.descriptor().unwrap();
        let mut bytes = contents_of(0..7, generation);
        bytes.resize(9 * PAGE, 0);
        let mut window = region.window(0..16).unwrap();
        assert!(window.as_slice()[..9 * PAGE] == bytes, "turn {turn}");
        region.discard(&mut window, 0..16).unwrap();
        drop(window);
        let another = uffd.map(3, RegisterModes::MISSING).unwrap();
        fill(&another, 1, generation);
        another.unregister(1..3).unwrap();
        assert_eq!([1, 2].map(|page| load(another.base() + page * PAGE)), [word(1, generation), 0]);
    }
}

fn over_own_calls(stack: usize) {
    let mut calls = OwnCalls::new();
    interrupted(stack, move |turn| calls.turn(turn));
}

// spec: H21, H22
#[test]
fn a_handler_that_touches_missing_pages_may_interrupt_our_own_calls() {
    alone_both_ways(|| over_own_calls(0));
}

// spec: H21, H22
#[test]
fn a_handler_that_touches_missing_pages_on_an_alternate_stack_may_interrupt_our_own_calls() {
    alone_both_ways(|| over_own_calls(64 << 10));
}

// spec: H21, H22
#[test]
fn a_handler_that_touches_missing_pages_may_interrupt_the_allocator() {
    alone_both_ways(|| {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        interrupted(0, move |turn| {
            // Of all sizes, from lists of small ones to mappings of their own.
            kept.push(black_box(vec![1; 16 << (turn % 14)]));
            if kept.len() > 40 {
                drop(kept.swap_remove(turn * 7 % 40));
            }
        });
    });
}

// spec: H21, H22, H29
#[test]
fn a_profilers_timer_whose_handler_touches_missing_pages_interrupts_every_kind_of_work() {
    alone_both_ways(|| {
        const TICKS: usize = 400;
        os::handle(libc::SIGPROF, touch_next, libc::SA_RESTART);
        let uffd = open();
        let region = map(&uffd, 64);
        let is_over = AtomicBool::new(false);
        let mut calls = OwnCalls::new();
        beside_a_monitor(|| {
            os::set_blocked(libc::SIGPROF, true);
            thread::scope(|scope| {
                let worker = |mut turn: Box<dyn FnMut(usize) + Send>| {
                    let is_over = &is_over;
                    scope.spawn(move || {
                        os::use_stack(0, 0);
                        os::set_blocked(libc::SIGPROF, false);
                        (0..).take_while(|_| !is_over.load(SeqCst)).for_each(&mut turn);
                        os::set_blocked(libc::SIGPROF, true);
                    });
                };
                worker(Box::new(move |turn| calls.turn(turn)));
                worker(Box::new(|turn| drop(black_box(vec![1_u8; 16 << (turn % 14)]))));
                worker(Box::new(|turn| {
                    let page = turn % 64;
                    fill(&region, page, 9);
                    assert_eq!(load(region.base() + page * PAGE + turn % 512 * 8), word(page, 9));
                    region.discard(&mut region.window(page..page + 1).unwrap(), page..page + 1).unwrap();
                }));
                os::profile_every(1000);
                until("the timer has ticked often enough", || RETURNED.load(SeqCst) >= TICKS);
                is_over.store(true, SeqCst);
                os::profile_every(0);
            });
        });
    });
}

/// So many threads touch one page at once, again and again: a load, or an addition.
fn hundred_on_one_page(
    region: &Region,
    uffd: &Uffd,
    touch: impl Fn(usize) -> u64 + Sync,
    answer: impl Fn(),
) -> Vec<u64> {
    let address = region.base() + PAGE + 8;
    thread::scope(|scope| {
        let all: Vec<_> = (0..100).map(|_| scope.spawn(|| touch(address))).collect();
        until("all sleep", || asleep() == 100);
        let events = crate::support::read(uffd, 100);
        assert!(events.iter().all(|event| page_of(region, event) == 1));
        assert_eq!(uffd.sleepers().unwrap().len(), 100);
        answer();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

// spec: H1, H22, H29
#[test]
fn a_hundred_threads_on_one_page_are_woken_by_one_answer_and_see_all_of_it() {
    alone_both_ways(|| {
        let uffd = open();
        let region = crate::support::map_protectable(&uffd, 3);
        for round in 1..=20 {
            let _rescue = Rescue(&region);
            let seen = hundred_on_one_page(&region, &uffd, load, || fill(&region, 1, round));
            assert_eq!(seen, vec![word(1, round); 100]);
            region.writeprotect(1..2, WriteProtect::Protect).unwrap();
            let lift = || region.writeprotect(1..2, WriteProtect::Lift).unwrap();
            let mut seen = hundred_on_one_page(&region, &uffd, |address| add(address, 1), lift);
            seen.sort_unstable();
            assert_eq!(seen, (0..100).map(|added| word(1, round) + added).collect::<Vec<_>>());
            let all = statistics().unwrap();
            assert_eq!((all.asleep, all.slots), (0, 0), "round {round}");
            region.discard(&mut region.window(1..2).unwrap(), 1..2).unwrap();
        }
    });
}
