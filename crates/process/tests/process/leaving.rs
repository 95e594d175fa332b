//! What a forked child does with what it inherits: threads, handlers, handles, hosts.
//!
//! Method: as in `children.rs`; where a child allocates, its parent has one thread, or forked by the C library.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

use userfault_abi::errno::Errno;
use userfault_abi::{Features, PollEvents};
use userfault_client::{Region as _, Uffd as _, UffdError, Wait};
use userfault_process::raw::Memory;
use userfault_process::testing::fail_host_calls;

use crate::access::{load, store};
use crate::alone::{alone, alone_both_ways};
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{CHUNK, PAGE, Random, contents, contents_of, fill, map, open, scatter, until, word};

const EXIT_42: i32 = 42 << 8;

/// Whether every word of the pages is what `expected` says.
fn all_are(base: usize, pages: std::ops::Range<usize>, expected: impl Fn(usize) -> u64) -> bool {
    pages.clone().all(|page| (0..PAGE / 8).all(|at| load(base + page * PAGE + at * 8) == expected(page)))
}

const fn status(is_right: bool) -> i32 {
    if is_right { 42 } else { 1 }
}

fn every_other(page: usize) -> u64 {
    if page < 40 && page.is_multiple_of(2) { word(page, 1) } else { 0 }
}

// spec: H18
#[test]
fn threads_of_a_child_that_nobody_told_may_find_out_at_once() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 64);
        scatter(&region, 0..40, 1);
        let base = region.base();
        for _ in 0..100 {
            let ended = os::cloned(|| {
                let ready = AtomicUsize::new(0);
                let right: usize = thread::scope(|scope| {
                    let threads: Vec<_> = (0..4)
                        .map(|_| {
                            scope.spawn(|| {
                                ready.fetch_add(1, SeqCst);
                                until("all are there", || ready.load(SeqCst) == 4);
                                usize::from(all_are(base, 0..64, every_other))
                            })
                        })
                        .collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
                });
                status(right == 4)
            });
            assert_eq!(ended, EXIT_42);
        }
    });
}

static CHILDREN: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicI32 = AtomicI32::new(0);

/// Forks over what it interrupted: the child goes on there.
extern "C" fn fork_here(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let child = os::fork();
    if child == 0 {
        os::alarm(60);
        return;
    }
    let ended = os::waited(child);
    if ended != EXIT_42 {
        WRONG.store(ended, SeqCst);
    }
    CHILDREN.fetch_add(1, SeqCst);
}

/// Has `thread` fork while the engine is busy.
fn fork_in(thread: &AtomicI32, region: &userfault_process::Region) {
    until("it says its name", || thread.load(SeqCst) != 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for page in 1..3 {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    region.wake(page..page + 1).unwrap();
                }
            });
        }
        for count in 1..=100 {
            os::send(thread.load(SeqCst), libc::SIGUSR1);
            until("the child has ended", || CHILDREN.load(SeqCst) == count);
        }
        done.store(true, Relaxed);
    });
    assert_eq!(WRONG.load(SeqCst), 0, "how a child ended");
}

// spec: H17, H29
#[test]
fn a_handler_that_interrupts_a_fault_may_fork_and_the_child_goes_on_with_plain_memory() {
    alone(|| {
        os::handle(libc::SIGUSR1, fork_here, 0);
        let uffd = open();
        let region = map(&uffd, 3);
        let (base, parent, sleeper) = (region.base(), os::process_id(), AtomicI32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                os::use_stack(1 << 17, 0);
                sleeper.store(os::thread_id(), SeqCst);
                let seen = load(base);
                if os::process_id() != parent {
                    os::exit_now(status(seen == 0));
                }
                assert_eq!(seen, word(0, 1));
            });
            fork_in(&sleeper, &region);
            fill(&region, 0, 1);
        });
    });
}

// spec: H17
#[test]
fn a_handler_that_interrupts_a_read_may_fork_and_the_read_of_the_child_is_refused() {
    alone(|| {
        os::handle(libc::SIGUSR1, fork_here, 0);
        let uffd = open();
        let region = map(&uffd, 3);
        let (parent, reader) = (os::process_id(), AtomicI32::new(0));
        let mut events = Vec::with_capacity(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                reader.store(os::thread_id(), SeqCst);
                let answer = uffd.read(Wait::Forever, &mut events);
                if os::process_id() != parent {
                    os::exit_now(status(answer == Err(UffdError::Forked)));
                }
                assert_eq!(answer, Err(UffdError::ShutDown));
            });
            fork_in(&reader, &region);
            uffd.shut_down();
        });
    });
}

// spec: H10, H17
#[test]
fn the_raw_door_is_closed_in_a_forked_child() {
    alone(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(8).unwrap();
        door.register(pages(&memory, 0..8), 1).unwrap();
        let gone = Err(Errno::ESRCH);
        let ended = os::forked(|| {
            let calls = [
                door.copy(pages(&memory, 1..2), &contents(1, 2), 0),
                door.unregister(pages(&memory, 0..8)),
                door.wake(pages(&memory, 0..8)),
                door.0.install(memory.base(), &contents(0, 2)),
                discard(&memory, 0..1),
            ];
            let is_refused = calls.iter().all(|answer| *answer == gone);
            door.0.shut_down();
            status(is_refused && door.0.poll() == PollEvents::ERR && door.0.fdinfo().is_none())
        });
        assert_eq!(ended, EXIT_42);
        // Nobody has shut it down here.
        assert_eq!(door.0.poll(), PollEvents::NONE);
        door.copy(pages(&memory, 1..2), &contents(1, 3), 0).unwrap();
    });
}

// spec: H17
#[test]
fn what_is_lent_and_the_region_itself_are_dropped_in_a_child_whatever_another_thread_held() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 64);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for page in 1..3 {
                let (region, done) = (&region, &done);
                scope.spawn(move || {
                    while !done.load(Relaxed) {
                        drop(region.window(page..page + 1).unwrap());
                    }
                });
            }
            let (mut window, mut shared) = (region.window(8..16).ok(), region.shared(32..33).ok());
            for _ in 0..300 {
                let ended = os::forked(|| {
                    let Err(window) = window.take().unwrap().split_before(12) else { return 2 };
                    let is_plain = window.as_slice().iter().all(|byte| *byte == 0);
                    let last = shared.take();
                    drop((window, last.clone(), last, region.clone()));
                    status(is_plain)
                });
                assert_eq!(ended, EXIT_42);
            }
            done.store(true, Relaxed);
        });
    });
}

// spec: H17
#[test]
fn a_child_opens_its_host_although_another_thread_of_its_parent_was_opening() {
    alone(|| {
        let done = AtomicBool::new(false);
        let own_host_works = || {
            let own = open();
            let region = map(&own, 2);
            fill(&region, 1, 1);
            thread::scope(|scope| {
                let reader = scope.spawn(|| load(region.base()));
                let event = crate::support::read(&own, 1).pop().unwrap();
                fill(&region, crate::support::page_of(&region, &event), 2);
                status(load(region.base() + PAGE) == word(1, 1) && reader.join().unwrap() == word(0, 2))
            })
        };
        thread::scope(|scope| {
            // The first of all, then contexts without end.
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    drop(open());
                }
            });
            (0..100).for_each(|_| assert_eq!(os::forked(own_host_works), EXIT_42));
            done.store(true, Relaxed);
        });
        assert_eq!(own_host_works(), 42);
    });
}

// spec: H17, H33
#[test]
fn poison_stays_in_a_child_that_has_a_host_of_its_own_and_in_the_child_of_that() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 8);
        region.poison(2..3).unwrap().complete().unwrap();
        let base = region.base();
        let touch = || os::forked(|| status(load(base + 2 * PAGE) == 0));
        let ended = os::forked(|| {
            let own = open();
            let own_region = map(&own, 8);
            own_region.poison(1..2).unwrap().complete().unwrap();
            let (inner, own_base) = (touch(), own_region.base());
            let own_poison = os::forked(|| status(load(own_base + PAGE) == 0));
            let is_right = inner == libc::SIGBUS && own_poison == libc::SIGBUS && load(base + PAGE) == 0;
            if is_right {
                load(base + 2 * PAGE);
            }
            1
        });
        assert_eq!(ended, libc::SIGBUS);
    });
}

// spec: H17
#[test]
fn between_more_poisoned_pages_than_there_can_be_mappings_a_child_has_plain_memory() {
    alone(|| {
        const PAGES: usize = 80_000;
        let uffd = open();
        let region = map(&uffd, PAGES);
        fill(&region, 1, 1);
        for page in (0..PAGES).step_by(2) {
            region.poison(page..page + 1).unwrap().complete().unwrap();
        }
        let base = region.base();
        let ended = os::forked(|| {
            let is_plain = (3..PAGES).step_by(2).all(|page| load(base + page * PAGE) == 0);
            status(is_plain && load(base + PAGE) == word(1, 1))
        });
        assert_eq!(ended, EXIT_42);
        for page in [0, 40_002, PAGES - 2] {
            assert_eq!(os::forked(|| status(load(base + page * PAGE) == 0)), libc::SIGBUS, "page {page}");
        }
    });
}

// spec: H5, H17
#[test]
fn what_a_child_cannot_open_when_it_leaves_is_opened_by_the_first_touch() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, CHUNK);
        scatter(&region, 0..40, 1);
        let base = region.base();
        for forked in
            [|body: &mut dyn FnMut() -> i32| os::forked(body), |body: &mut dyn FnMut() -> i32| os::cloned(body)]
        {
            for failures in 1..4 {
                fail_host_calls(0, failures);
                assert_eq!(forked(&mut || status(all_are(base, 0..CHUNK, every_other))), EXIT_42);
                fail_host_calls(0, 0);
            }
        }
    });
}

// spec: H17
#[test]
fn the_programs_own_protection_of_memory_that_is_not_registered_stays_in_a_child() {
    alone(|| {
        let door = Door::open(Features::NONE);
        let [never, no_more, again] = [(); 3].map(|()| Memory::map(4).unwrap());
        for memory in [&no_more, &again] {
            door.register(pages(memory, 0..4), 1).unwrap();
            door.unregister(pages(memory, 0..4)).unwrap();
        }
        door.register(pages(&again, 0..4), 1).unwrap();
        for memory in [&never, &no_more, &again] {
            os::protect(memory.base(), 4 * PAGE, libc::PROT_READ).unwrap();
        }
        let bits = |memory: &Memory| os::protection_of(memory.base()).unwrap_or_default();
        let ended = os::forked(|| {
            let kept = [&never, &no_more].iter().all(|memory| bits(memory).starts_with("r--"));
            status(kept && bits(&again).starts_with("rw-"))
        });
        assert_eq!(ended, EXIT_42);
    });
}

// spec: H17
#[test]
fn a_page_that_was_seen_before_the_fork_is_there_after_it_although_its_fill_had_not_ended() {
    alone(|| {
        const PAGES: usize = 2 * CHUNK;
        // Each claim of the fill has pages of two chunks: the first are there long before it ends.
        const FIRST: usize = CHUNK / 2;
        let uffd = open();
        let region = map(&uffd, PAGES);
        let (base, file) = (region.base(), os::memory_file());
        let bytes = contents_of(FIRST..FIRST + CHUNK, 1);
        let mut random = Random::new();
        let shared = region.shared(0..PAGES).unwrap();
        for _ in 0..200 {
            let page = FIRST + random.below(CHUNK / 2);
            thread::scope(|scope| {
                scope.spawn(|| assert_eq!(region.copy(FIRST, &bytes).unwrap().complete(), Ok(CHUNK)));
                until("the page is there", || os::write_from(&file, base + page * PAGE, 8) == Ok(8));
                store(base + page * PAGE, 99);
                let ended = os::forked(|| {
                    let rest = (1..PAGE / 8).all(|at| load(base + page * PAGE + at * 8) == word(page, 1));
                    status(rest && load(base + page * PAGE) == 99)
                });
                assert_eq!(ended, EXIT_42);
            });
            region.discard_shared(&shared, 0..PAGES).unwrap();
        }
    });
}
