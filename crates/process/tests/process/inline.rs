//! Faults that the thread answers itself: the same bytes, whoever answers, and the monitor behind it.
//!
//! 1. A source of this file waits on atomics that another thread of the test sets, and does nothing else.
#![expect(unsafe_code, reason = "a source that blocks; the invariant above is this file's proof")]

use std::ffi::c_void;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;

use userfault_client::{Features, Options, Region as _, RegisterModes, Uffd as _, UffdError, Wait};
use userfault_process::testing::{fail_host_calls, host_calls};
use userfault_process::{Protocol, Region, Uffd};
use userfault_signal::{AlternateStack, AskMonitor, Bytes, FileBytes, InlineSource};

use crate::access::{load, store};
use crate::alone::{alone, alone_both_ways, child};
use crate::os;
use crate::support::{
    CHUNK, PAGE, Random, Rescue, asleep, contents, contents_of, fill, map, open, page_of, read, until, until_asleep,
    word,
};

/// The contents of `pages` pages, as the monitor would bring them.
fn source(pages: usize) -> Bytes {
    Bytes::from(contents_of(0..pages, 1))
}

/// In a thread that can answer inline.
fn large<R>(body: impl FnOnce() -> R) -> R {
    let _stack = AlternateStack::ensure(0).unwrap();
    body()
}

/// Every byte of a page, at its address.
fn compare(region: &Region, page: usize) {
    let expected = contents(page, 1);
    let found = region.shared(page..page + 1).unwrap();
    assert_eq!(userfault_client::Shared::compare(&found, 0, &expected), None, "page {page}");
}

/// Answers what the threads did not, until the descriptor is shut down; how many faults that were.
fn monitor(uffd: &Uffd, region: &Region) -> usize {
    let (mut events, mut asked) = (Vec::with_capacity(256), 0);
    loop {
        events.clear();
        match uffd.read(Wait::Forever, &mut events) {
            Ok(added) => asked += added,
            Err(UffdError::ShutDown) => return asked,
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            let page = page_of(region, event);
            let _done = region.copy_missing(page, &contents(page, 1)).unwrap();
        }
    }
}

// spec: H21
#[test]
fn every_byte_comes_inline_by_windows_of_any_size_in_any_order_and_nobody_is_told() {
    alone_both_ways(|| {
        let mut random = Random::new();
        for window in [1, 3, 16, 1000] {
            for sequential in [true, false] {
                let pages = CHUNK + 7;
                let uffd = open();
                let region = map(&uffd, pages);
                let inline = region.answer_inline(source(pages), window).unwrap();
                let order = if sequential { (0..pages).collect() } else { random.order(pages) };
                large(|| order.iter().for_each(|page| compare(&region, *page)));
                let counts = inline.counts();
                assert_eq!(counts.pages_filled, pages as u64, "each once");
                let windows = pages.div_ceil(window) as u64;
                assert_eq!(counts.faults, windows, "windows of {window}");
                assert_eq!(uffd.read(Wait::Never, &mut Vec::new()).unwrap(), 0);
            }
        }
        assert_eq!(asleep(), 0);
    });
}

// spec: H21
#[test]
fn many_threads_on_one_page_get_it_once_and_nobody_is_left_asleep() {
    alone(|| {
        let uffd = open();
        let pages = 40;
        let region = map(&uffd, pages);
        let inline = region.answer_inline(source(pages), 4).unwrap();
        let all = Barrier::new(100);
        thread::scope(|scope| {
            let told = scope.spawn(|| monitor(&uffd, &region));
            let threads: Vec<_> = (0..100)
                .map(|number| {
                    let (all, region) = (&all, &region);
                    scope.spawn(move || {
                        // Some with a stack on which only the monitor can help.
                        let stack = (number % 4 != 0).then(|| AlternateStack::ensure(0).unwrap());
                        for page in 0..pages {
                            all.wait();
                            assert_eq!(load(region.base() + page * PAGE), word(page, 1));
                            compare(region, page);
                        }
                        drop(stack);
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            uffd.shut_down();
            println!("measured: {} faults inline, {} by the monitor", inline.counts().faults, told.join().unwrap());
        });
        assert!(inline.counts().faults > 0);
        assert_eq!(asleep(), 0);
    });
}

// spec: H21
#[test]
fn a_thread_on_the_stack_that_rust_gives_it_is_answered_by_the_monitor_and_one_without_any_by_itself() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 3);
        let inline = region.answer_inline(source(3), 1).unwrap();
        thread::scope(|scope| {
            let (region, _rescue) = (&region, Rescue(&region));
            let small = scope.spawn(move || load(region.base()));
            assert_eq!(page_of(region, &read(&uffd, 1)[0]), 0);
            assert_eq!(inline.counts().faults, 0);
            fill(region, 0, 1);
            assert_eq!(small.join().unwrap(), word(0, 1));
            for (page, stack) in [(1, 0), (2, 64 << 10)] {
                let own = scope.spawn(move || {
                    os::use_stack(stack, 0);
                    load(region.base() + page * PAGE)
                });
                assert_eq!(own.join().unwrap(), word(page, 1));
                assert_eq!(inline.counts().faults, page as u64);
            }
        });
        assert_eq!(uffd.read(Wait::Never, &mut Vec::new()).unwrap(), 0);
    });
}

static NESTED: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn touch(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    SEEN.store(usize::try_from(load(NESTED.load(Relaxed))).unwrap(), Relaxed);
}

// spec: H21
#[test]
fn a_handler_over_a_parked_fault_gets_its_own_page_inline() {
    alone(|| {
        let (told, itself) = (open(), open());
        let (parked, region) = (map(&told, 1), map(&itself, 1));
        let inline = region.answer_inline(source(1), 1).unwrap();
        NESTED.store(region.base(), Relaxed);
        os::handle(libc::SIGUSR1, touch, libc::SA_ONSTACK);
        let base = parked.base();
        thread::scope(|scope| {
            let faulting = scope.spawn(move || {
                os::use_stack(64 << 10, 0);
                THREAD.store(os::thread_id(), Relaxed);
                load(base)
            });
            read(&told, 1);
            until_asleep(1);
            os::send(THREAD.load(Relaxed), libc::SIGUSR1);
            until("the handler has its page", || SEEN.load(Relaxed) as u64 == word(0, 1));
            // If the signal ended the sleep, it is told again; not if it came just before.
            fill(&parked, 0, 1);
            assert_eq!(faulting.join().unwrap(), word(0, 1));
        });
        assert_eq!((inline.counts().faults, asleep()), (1, 0));
    });
}

/// A file with the contents of `pages` pages.
fn file(pages: usize) -> Arc<File> {
    let file = os::memory_file();
    std::os::unix::fs::FileExt::write_all_at(&file, &contents_of(0..pages, 1), 0).unwrap();
    Arc::new(file)
}

// spec: H21, H5
#[test]
fn a_file_that_became_shorter_is_told_and_its_pages_are_never_zeros() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 8);
        let file = file(8);
        let inline = region.answer_inline(FileBytes::new(Arc::clone(&file)).unwrap(), 4).unwrap();
        file.set_len(6 * PAGE as u64).unwrap();
        large(|| (0..6).for_each(|page| compare(&region, page)));
        // A window, then the two pages that are left of the second, one by one.
        assert_eq!((inline.counts().faults, inline.counts().pages_filled), (3, 6));
        thread::scope(|scope| {
            let lost = scope.spawn(|| large(|| load(region.base() + 7 * PAGE)));
            assert_eq!(page_of(&region, &read(&uffd, 1)[0]), 7);
            // Where no monitor could do better it would poison; here one can.
            fill(&region, 7, 1);
            assert_eq!(lost.join().unwrap(), word(7, 1));
        });
        assert_eq!(inline.counts().faults, 3);
    });
}

// spec: H21, H33
#[test]
fn who_waits_for_contents_that_nobody_has_gets_a_bus_error_after_it_was_told() {
    let ended = child(|| {
        let uffd = open();
        let region = map(&uffd, 2);
        let file = file(2);
        let _inline = region.answer_inline(FileBytes::new(Arc::clone(&file)).unwrap(), 1).unwrap();
        file.set_len(PAGE as u64).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| large(|| println!("{}", load(region.base() + PAGE))));
            assert_eq!(page_of(&region, &read(&uffd, 1)[0]), 1);
            println!("told");
            let _poisoned = region.poison(1..2).unwrap();
        });
    });
    assert_eq!((ended.signal, ended.output.contains("told\n")), (Some(libc::SIGBUS), true), "{ended:?}");
}

// spec: H21
#[test]
fn inline_answers_end_while_threads_fault_and_the_monitor_takes_over() {
    alone(|| {
        let uffd = open();
        let pages = 2 * CHUNK;
        let region = map(&uffd, pages);
        let is_over = AtomicBool::new(false);
        let turns = AtomicUsize::new(0);
        thread::scope(|scope| {
            let told = scope.spawn(|| monitor(&uffd, &region));
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (region, is_over, turns) = (&region, &is_over, &turns);
                    scope.spawn(move || {
                        large(|| {
                            let own = pages / 4 * number..pages / 4 * (number + 1);
                            let shared = region.shared(own.clone()).unwrap();
                            while !is_over.load(Relaxed) {
                                own.clone().for_each(|page| compare(region, page));
                                region.discard_shared(&shared, own.clone()).unwrap();
                                turns.fetch_add(1, Relaxed);
                            }
                        });
                    })
                })
                .collect();
            let mut inlined = 0;
            for turn in 1..=30 {
                let inline = region.answer_inline(source(pages), 5).unwrap();
                until("somebody answers inline", || inline.counts().faults > 10);
                inlined += inline.counts().faults;
                drop(inline);
                until("and then the monitor", || turns.load(Relaxed) >= turn);
            }
            is_over.store(true, Relaxed);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            uffd.shut_down();
            println!("measured: {inlined} faults inline, {} by the monitor", told.join().unwrap());
        });
        assert_eq!(asleep(), 0);
    });
}

// spec: H21, H5
#[test]
fn inline_answers_survive_host_calls_that_fail() {
    alone_both_ways(|| {
        for skip in 0..12 {
            for count in [1, 3] {
                let uffd = open();
                let pages = 48;
                let region = map(&uffd, pages);
                let inline = region.answer_inline(source(pages), 2).unwrap();
                let before = host_calls();
                thread::scope(|scope| {
                    scope.spawn(|| monitor(&uffd, &region));
                    fail_host_calls(skip, count);
                    // Scattered, so that chunks are converted in the middle of it.
                    scope
                        .spawn(|| {
                            large(|| (0..pages).map(|at| at * 7 % pages).for_each(|page| compare(&region, page)));
                        })
                        .join()
                        .unwrap();
                    fail_host_calls(0, 0);
                    uffd.shut_down();
                });
                assert!(inline.counts().faults > 0 && host_calls() > before + skip);
            }
        }
        assert_eq!(asleep(), 0);
    });
}

/// Says page 0 only when it is let; the others at once.
struct Blocked(Arc<AtomicBool>, Bytes);

// SAFETY: invariant 1; the rest is done by a source of the library.
unsafe impl InlineSource for Blocked {
    fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
        while pages.start == 0 && !self.0.load(Relaxed) {
            std::hint::spin_loop();
        }
        self.1.fill(pages, into)
    }
}

// spec: H21, H22
#[test]
fn a_source_that_takes_its_time_stalls_nobody_else() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 4);
        let may = Arc::new(AtomicBool::new(false));
        let inline = region.answer_inline(Blocked(Arc::clone(&may), source(4)), 1).unwrap();
        thread::scope(|scope| {
            let blocked = scope.spawn(|| large(|| load(region.base())));
            scope.spawn(|| large(|| compare(&region, 1))).join().unwrap();
            // Neither other inline answers, nor fills, nor a change of the layout.
            fill(&region, 2, 1);
            drop(map(&uffd, 1));
            region.unregister(3..4).unwrap();
            assert_eq!(load(region.base() + 3 * PAGE), 0);
            // Somebody else brings the very page: what the source says then comes too late.
            fill(&region, 0, 1);
            store(region.base() + 8, 77);
            may.store(true, Relaxed);
            assert_eq!(blocked.join().unwrap(), word(0, 1));
            assert_eq!(load(region.base() + 8), 77);
        });
        assert_eq!(inline.counts().pages_filled, 1);
    });
}

// spec: H21
#[test]
fn what_cannot_be_answered_inline_is_refused_with_a_reason() {
    alone(|| {
        let refused = |region: &Region, part: &str| {
            let error = region.answer_inline(source(1), 1).unwrap_err();
            let UffdError::NotInline { reason } = error else { panic!("{error}") };
            assert!(reason.contains(part), "{reason}");
        };
        let original = Uffd::open_with(&Options::default(), Protocol::Original { fills: false }).unwrap();
        refused(&map(&original, 1), "original");
        let raising = Uffd::open(&Options { require: Features::SIGBUS, ..Options::default() }).unwrap();
        refused(&map(&raising, 1), "SIGBUS");
        let uffd = open();
        refused(&uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).unwrap(), "write protection");
        let (first, second) = (map(&uffd, 1), map(&uffd, 1));
        let inline = first.answer_inline(source(1), 1).unwrap();
        refused(&second, "already");
        refused(&first, "already");
        drop(inline);
        let _inline = second.answer_inline(source(1), 1).unwrap();
        large(|| compare(&second, 0));
        // The other region of the descriptor has its events.
        thread::scope(|scope| {
            scope.spawn(|| large(|| compare(&first, 0)));
            assert_eq!(page_of(&first, &read(&uffd, 1)[0]), 0);
            fill(&first, 0, 1);
        });
    });
}

const PAINT: u8 = 0xC3;

// spec: H22
#[test]
fn an_inline_answer_needs_a_small_part_of_the_large_stack() {
    alone(|| {
        let uffd = open();
        let pages = 4 * CHUNK;
        let region = map(&uffd, pages);
        let inline = region.answer_inline(FileBytes::new(file(pages)).unwrap(), 64).unwrap();
        let (base, size) = (region.base(), 64 << 10);
        let used = thread::spawn(move || {
            let start = os::use_stack(size, PAINT);
            for page in (0..pages).map(|at| at * 197 % pages) {
                assert_eq!(load(base + page * PAGE), word(page, 1));
            }
            (0..size).find(|at| crate::access::load_byte(start + at) != PAINT).map_or(0, |at| size - at)
        });
        let (used, frame) = (used.join().unwrap(), os::frame_bytes());
        println!("measured: {used} bytes of stack, {frame} of them the kernel's frame");
        assert!(inline.counts().pages_filled == pages as u64 && used > 0 && used < frame + 8192, "{used}");
    });
}

// spec: H33
#[test]
fn a_window_around_a_poisoned_page_leaves_the_poison() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 8);
        let _inline = region.answer_inline(source(8), 8).unwrap();
        region.poison(1..3).unwrap().complete().unwrap();
        region.poison(7..8).unwrap().complete().unwrap();
        large(|| [0, 3, 4, 5, 6].into_iter().for_each(|page| compare(&region, page)));
        for page in 0..8 {
            let status = os::forked(|| i32::from(load(region.base() + page * PAGE) != word(page, 1)));
            let is_poisoned = [1, 2, 7].contains(&page);
            assert_eq!(status, if is_poisoned { libc::SIGBUS } else { 0 }, "page {page}");
        }
        // By name it is replaced.
        fill(&region, 2, 1);
        compare(&region, 2);
    });
}

extern "C" fn load_when_cancelled(page: *mut c_void) -> *mut c_void {
    let stack = AlternateStack::ensure(0).unwrap();
    os::cancel_self();
    let seen = load(page.addr());
    std::mem::forget(stack);
    std::ptr::without_provenance_mut(usize::try_from(seen).unwrap())
}

// spec: H22
#[test]
fn an_answer_is_no_cancellation_point() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 4);
        let inline = region.answer_inline(source(4), 1).unwrap();
        let seen = os::cancelled(load_when_cancelled, region.base());
        assert_eq!(seen, Some(usize::try_from(word(0, 1)).unwrap()), "it came behind its load");
        // Nothing is held still.
        fill(&region, 1, 1);
        assert_eq!(inline.end().faults, 1);
    });
}
