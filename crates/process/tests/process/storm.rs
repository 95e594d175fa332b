//! Never lose a page: everything at once, against a model of each page's contents.
//!
//! A mutator holds the models of the pages it changes, so it knows what each operation must answer; threads
//! that touch pages hold nothing and compare what they see with the generations between which they looked.
//! Those are interrupted by signals whose handlers touch pages, too, and some by handlers that jump out.
//!
//! What a thread does is a [`Role`]; a new one is a function and a line in `ROLES`.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use userfault_process::{Tuning, statistics, tune};

use crate::access::load;
use crate::alone::{alone_both_ways, tuning};
use crate::jump::{is_left_by_jump, jump};
use crate::os;
use crate::support::{CHUNK, PAGE, Random, until, word};

mod world;

use world::{FIRST_WRONG, WRONG, World};

const MONITORS: usize = 2;

/// What the threads do, and how many do it. Eight in all, with the monitors.
const ROLES: [(usize, Role); 4] = [(2, mutator), (2, toucher), (JUMPERS, jumper), (1, forker)];
const JUMPERS: usize = 1;

/// Goes on until [`World::is_over`]. Who stores its thread's id gets signals, until it stores 0.
type Role = fn(&'static World, &'static AtomicI32, Random);

/// When it has been enough.
#[derive(Clone, Copy)]
enum Enough {
    Operations(usize),
    Time(Duration),
}

static WORLD: AtomicUsize = AtomicUsize::new(0);
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Touches a page, over whatever it interrupted.
extern "C" fn touch_another(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let count = SIGNALS.fetch_add(1, SeqCst);
    if let Some(world) = world() {
        world.touch(count.wrapping_mul(7919) % world.len(), count % 512 * 8, count.is_multiple_of(4));
    }
}

/// The world of this process, which lives until its end.
fn world() -> Option<&'static World> {
    crate::access::shared(WORLD.load(SeqCst))
}

/// Changes pages.
fn mutator(world: &'static World, _: &'static AtomicI32, mut random: Random) {
    os::set_blocked(libc::SIGUSR1, true);
    os::set_blocked(libc::SIGUSR2, true);
    while !world.is_over.load(SeqCst) {
        world.mutate(&mut random);
        world.operations.fetch_add(1, SeqCst);
    }
}

/// Forks children, which look at every page.
fn forker(world: &'static World, _: &'static AtomicI32, mut random: Random) {
    os::set_blocked(libc::SIGUSR1, true);
    os::set_blocked(libc::SIGUSR2, true);
    while !world.is_over.load(SeqCst) {
        world.fork(&mut random);
        FORKS.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(2));
    }
}

static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Touches pages, over which signals touch others.
fn toucher(world: &'static World, id: &'static AtomicI32, mut random: Random) {
    os::use_stack(0, 0);
    os::set_blocked(libc::SIGUSR2, true);
    id.store(os::thread_id(), SeqCst);
    while !world.is_over.load(SeqCst) {
        world.touch(random.below(world.len()), random.below(PAGE / 8) * 8, random.below(3) == 0);
    }
    id.store(0, SeqCst);
}

/// Touches a page; the argument is which, where and how. Owns nothing.
extern "C" fn touch_once(packed: usize) {
    if let Some(world) = world() {
        world.touch(packed >> 16, packed & 0xFF8, packed & 1 == 1);
    }
}

/// Touches pages, and is torn out of that by handlers that jump, whatever sleeps on its stack.
fn jumper(world: &'static World, id: &'static AtomicI32, mut random: Random) {
    os::use_stack(64 << 10, 0);
    id.store(os::thread_id(), SeqCst);
    while !world.is_over.load(SeqCst) {
        let what = (random.below(world.len()) << 16) + random.below(PAGE / 8) * 8 + random.below(2);
        if is_left_by_jump(touch_once, what) {
            JUMPS.fetch_add(1, SeqCst);
        }
    }
    id.store(0, SeqCst);
    // The last jump has left a slot behind; the next fault of the same thread gives it back.
    os::set_blocked(libc::SIGUSR1, true);
    os::set_blocked(libc::SIGUSR2, true);
    let own = world.len();
    assert_eq!(load(world.address(own)), word(own, 1));
}

static JUMPS: AtomicUsize = AtomicUsize::new(0);

/// Sends signals to those who take them until it is enough; the most slots that were in use meanwhile.
fn send_signals(world: &World, ids: &[AtomicI32], enough: Enough, random: &mut Random) -> usize {
    let start = Instant::now();
    let is_enough = || match enough {
        Enough::Operations(count) => world.operations.load(SeqCst) >= count,
        Enough::Time(time) => start.elapsed() >= time,
    };
    let mut most = 0;
    while !is_enough() {
        let id = ids[random.below(ids.len())].load(SeqCst);
        if id != 0 && random.below(8) == 0 {
            os::send(id, if random.below(4) == 0 { libc::SIGUSR2 } else { libc::SIGUSR1 });
            most = most.max(statistics().unwrap().slots);
        }
        thread::yield_now();
    }
    most
}

fn run(tuning: Tuning, count: usize, enough: Enough) {
    os::alarm(match enough {
        Enough::Operations(count) => 60 + u32::try_from(count / 15).unwrap(),
        Enough::Time(time) => 60 + 2 * u32::try_from(time.as_secs()).unwrap(),
    });
    tune(tuning).unwrap();
    let world: &'static World = Box::leak(Box::new(World::new(count, JUMPERS)));
    WORLD.store(std::ptr::from_ref(world).expose_provenance(), SeqCst);
    os::handle(libc::SIGUSR1, touch_another, libc::SA_RESTART);
    os::handle(libc::SIGUSR2, jump, libc::SA_RESTART | libc::SA_ONSTACK);
    let mut random = Random::new();
    let roles: Vec<Role> = ROLES.iter().flat_map(|(threads, role)| std::iter::repeat_n(*role, *threads)).collect();
    let ids: &'static [AtomicI32] = roles.iter().map(|_| AtomicI32::new(0)).collect::<Vec<_>>().leak();
    let most = thread::scope(|scope| {
        for _ in 0..MONITORS {
            scope.spawn(|| {
                os::set_blocked(libc::SIGUSR1, true);
                os::set_blocked(libc::SIGUSR2, true);
                world.answer();
            });
        }
        let threads: Vec<_> = roles
            .iter()
            .zip(ids)
            .map(|(role, id)| {
                let random = Random::from(random.next());
                scope.spawn(move || role(world, id, random))
            })
            .collect();
        let most = send_signals(world, ids, enough, &mut random);
        world.is_over.store(true, SeqCst);
        until("they come to an end", || threads.iter().all(thread::ScopedJoinHandle::is_finished));
        let failed = threads.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        assert_eq!(failed, 0, "what an operation answered, or what a page held, was wrong");
        world.door.0.shut_down();
        most
    });
    let all = statistics().unwrap();
    println!(
        "measured: {} operations, {} touches, {} answers, {} signals, {} jumps, {} forks, {most} slots at most, {all:?}",
        world.operations.load(SeqCst),
        world.touches.load(SeqCst),
        world.answers.load(SeqCst),
        SIGNALS.load(SeqCst),
        JUMPS.load(SeqCst),
        FORKS.load(SeqCst),
    );
    assert!(most <= 2 * (MONITORS + roles.len()), "{most} slots were in use");
    assert_eq!((all.asleep, all.slots), (0, 0), "nobody is left asleep");
    world.door.unregister(world.range(0..count)).unwrap();
    world.compare_plain();
    assert_eq!(WRONG.load(SeqCst), 0, "first: {:#x}", FIRST_WRONG.load(SeqCst));
}

/// How long the storm by the clock is.
fn storm() -> Enough {
    let given = std::env::var("USERFAULT_STORM_SECONDS").ok();
    Enough::Time(Duration::from_secs(given.map_or(5, |text| text.parse().unwrap())))
}

const SHORT: Enough = Enough::Operations(4500);
const LONG: Enough = Enough::Operations(75_000);
const COUNT: usize = 3 * CHUNK + 100;

fn plenty() -> Tuning {
    tuning()
}

fn few() -> Tuning {
    Tuning { mapping_budget: Some(16), ..tuning() }
}

fn without_guards() -> Tuning {
    Tuning { without_guards: true, ..few() }
}

// spec: H1, H2, H3, H17, H18, H19, H21, H22, H24, H29
#[test]
fn in_a_storm_of_signals_forks_and_jumps_no_page_is_lost_and_nobody_left_asleep_for_as_long_as_it_lasts() {
    alone_both_ways(|| {
        run(plenty(), COUNT, storm());
        assert!(JUMPS.load(SeqCst) > 0 && SIGNALS.load(SeqCst) > 0 && FORKS.load(SeqCst) > 0);
    });
}

// spec: H1, H2, H3, H24
#[test]
fn in_a_storm_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), COUNT, SHORT));
}

// spec: H1, H3, H4
#[test]
fn in_a_storm_no_page_is_lost_where_mappings_are_short() {
    alone_both_ways(|| run(few(), COUNT, SHORT));
}

// spec: H1, H4, H7
#[test]
fn in_a_storm_no_page_is_lost_where_mappings_are_short_and_guards_unknown() {
    alone_both_ways(|| run(without_guards(), COUNT, SHORT));
}

// spec: H1, H24
#[test]
fn in_a_storm_on_eight_pages_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), 8, Enough::Operations(9000)));
}

// spec: H1, H2, H3, H24
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost() {
    alone_both_ways(|| run(plenty(), COUNT, LONG));
}

// spec: H1, H3, H4
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost_where_mappings_are_short() {
    alone_both_ways(|| run(few(), COUNT, LONG));
}

// spec: H1, H4, H7
#[test]
#[ignore = "two minutes"]
fn in_a_long_storm_no_page_is_lost_where_mappings_are_short_and_guards_unknown() {
    alone_both_ways(|| run(without_guards(), COUNT, LONG));
}
