//! Faults that the thread answers itself in a SIGBUS handler, and those that it hands over to the monitor.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use userfault_client::{
    Event, Fault, FaultKind, Features, Options, Region as _, RegisterModes, Shared as _, Told, Uffd as _, UffdError,
    Wait,
};
use userfault_linux::{Region, Uffd};
use userfault_signal::{AlternateStack, Bytes, FileBytes};

use crate::outside::{self, fork, load, wait};
use crate::support::{
    Events, Rescue, alone, is_alone, open, open_descriptors, path_of, pattern, patterns, read, start, until,
};

fn raising() -> Options {
    Options { require: Features::SIGBUS, wish: Features::EXACT_ADDRESS, ..Options::default() }
}

/// The contents of `pages` pages, as the monitor would bring them.
fn source(pages: usize) -> Bytes {
    Bytes::from(patterns(0..pages, 0))
}

fn map(uffd: &Uffd, pages: usize) -> Region {
    uffd.map(pages, RegisterModes::MISSING).unwrap()
}

/// In a thread that can answer inline.
fn large<R>(body: impl FnOnce() -> R) -> R {
    let _stack = AlternateStack::ensure(0).unwrap();
    body()
}

/// Every byte of a page, at its address.
fn compare(region: &Region, page: usize) {
    let shared = region.shared(page..page + 1).unwrap();
    assert_eq!(shared.compare(0, &pattern(page, 0)), None, "page {page}");
}

fn fill(region: &Region, page: usize) {
    assert_eq!(region.copy(page, &pattern(page, 0)).unwrap().complete(), Ok(1));
}

/// How many threads sleep after they handed their fault over.
fn until_asleep(uffd: &Uffd, count: usize) {
    until("threads fall asleep", || uffd.sleepers().unwrap().len() == count);
}

/// The page of the one event there is.
fn told(uffd: &Uffd, region: &Region) -> usize {
    let events = read(uffd, 1);
    let [Event::Fault(fault)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(fault.kind, FaultKind::Missing);
    region.page_at(fault.address).unwrap()
}

/// Answers what was handed over, until the descriptor is shut down; how many faults that were.
fn monitor(uffd: &Uffd, region: &Region) -> usize {
    let (mut events, mut asked) = (Events::with_capacity(256), 0);
    loop {
        match uffd.read(Wait::Forever, &mut events) {
            Ok(added) => asked += added,
            Err(UffdError::ShutDown) => return asked,
            Err(error) => panic!("{error}"),
        }
        for event in events.drain(..) {
            let Event::Fault(fault) = event else { panic!("{event:?}") };
            let page = region.page_at(fault.address).unwrap();
            let _done = region.copy_missing(page, &pattern(page, 0)).unwrap();
        }
    }
}

// spec: m/fault/sigbus
#[test]
fn every_byte_comes_inline_by_windows_of_any_size_in_any_order_and_nobody_is_told() {
    alone!(every_byte_comes_inline_by_windows_of_any_size_in_any_order_and_nobody_is_told, {
        for (window, step) in [(1, 1), (3, 1), (16, 1), (1000, 1), (1, 197), (3, 197), (16, 197)] {
            let pages = 523;
            let uffd = open!(&raising());
            let region = map(&uffd, pages);
            let inline = region.answer_inline(source(pages), window).unwrap();
            large(|| (0..pages).map(|at| at * step % pages).for_each(|page| compare(&region, page)));
            let counts = inline.counts();
            assert_eq!((counts.faults, counts.pages_filled), (pages.div_ceil(window) as u64, pages as u64));
            assert_eq!(uffd.read(Wait::Never, &mut Events::new()), Ok(0));
        }
    });
}

// spec: m/fault/sigbus
#[test]
fn many_threads_on_one_page_get_it_once_and_nobody_is_left_asleep() {
    alone!(many_threads_on_one_page_get_it_once_and_nobody_is_left_asleep, {
        let uffd = open!(&raising());
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
                        let stack = (number % 4 != 0).then(|| AlternateStack::ensure(0).unwrap());
                        for page in 0..pages {
                            all.wait();
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
        until_asleep(&uffd, 0);
    });
}

// spec: m/fault/sigbus
#[test]
fn a_fault_on_a_small_stack_is_an_event_with_the_exact_byte_until_the_page_is_filled() {
    alone!(a_fault_on_a_small_stack_is_an_event_with_the_exact_byte_until_the_page_is_filled, {
        let uffd = open!(&Options { require: Features::SIGBUS | Features::THREAD_ID, ..raising() });
        let region = map(&uffd, 3);
        let inline = region.answer_inline(source(3), 1).unwrap();
        let base = region.base();
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let reader = scope.spawn(|| (outside::thread_id(), load(base + 7)));
            until_asleep(&uffd, 1);
            assert_eq!(uffd.sleepers().unwrap()[0].told, Some(Told::Unread));
            let event = &read(&uffd, 1)[0];
            let &Event::Fault(Fault { address, write: false, thread, kind: FaultKind::Missing, .. }) = event else {
                panic!("{event:?}")
            };
            assert_eq!(address, (base + 7) as u64);
            let sleeper = uffd.sleepers().unwrap()[0];
            assert_eq!((sleeper.told, sleeper.thread, sleeper.address), (Some(Told::Read), thread, Some(address)));
            // Other pages and other descriptors are none of its business.
            fill(&region, 1);
            region.wake(1..3).unwrap();
            let other = Uffd::open(&raising()).unwrap();
            other.wake_all();
            until_asleep(&uffd, 1);
            fill(&region, 0);
            let (id, byte) = reader.join().unwrap();
            assert_eq!((thread, byte), (Some(u32::try_from(id).unwrap()), pattern(0, 0)[7]));
        });
        assert_eq!(inline.counts().faults, 0);
        until_asleep(&uffd, 0);
    });
}

// spec: m/fault/sigbus
#[test]
fn whoever_was_handed_over_leaves_by_each_way_there_is() {
    alone!(whoever_was_handed_over_leaves_by_each_way_there_is, {
        type Leave = fn(&Uffd, &Region);
        let ways: [(&str, Leave, bool); 6] = [
            ("zeropage", |_, region| drop(region.zeropage(0..1)), false),
            ("copy without wake, and wake", copy_then_wake, false),
            ("unregister", |_, region| region.unregister(0..1).unwrap(), false),
            // Nothing is there: it is told again.
            ("wake alone", |_, region| region.wake(0..1).unwrap(), true),
            ("wake all", |uffd, _| uffd.wake_all(), true),
            ("wake of more", |_, region| region.wake(0..2).unwrap(), true),
        ];
        for (name, leave, again) in ways {
            let uffd = open!(&raising());
            let region = map(&uffd, 2);
            // The answers ended, the region is still served: by events.
            drop(region.answer_inline(source(2), 1).unwrap());
            let base = region.base();
            thread::scope(|scope| {
                let _rescue = Rescue(&region);
                let reader = scope.spawn(move || large(|| load(base)));
                assert_eq!(told(&uffd, &region), 0, "{name}");
                until_asleep(&uffd, 1);
                leave(&uffd, &region);
                if again {
                    assert_eq!(told(&uffd, &region), 0, "{name}");
                    assert_eq!(region.zeropage(0..1).unwrap().complete(), Ok(1));
                }
                assert_eq!(reader.join().unwrap(), 0, "{name}");
            });
            assert_eq!(uffd.sleepers().unwrap(), []);
        }
    });
}

fn copy_then_wake(uffd: &Uffd, region: &Region) {
    let zeros = vec![0; region.page_size()];
    assert_eq!(region.copy_without_wake(0, &zeros).unwrap().complete(), Ok(1));
    until_asleep(uffd, 1);
    region.wake(0..1).unwrap();
}

// spec: m/fault/sigbus
#[test]
fn a_poller_sees_what_was_handed_over() {
    alone!(a_poller_sees_what_was_handed_over, {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let uffd = open!(&raising());
        let region = map(&uffd, 1);
        let polled = uffd.descriptor().unwrap();
        let is_readable = |wait: i64| {
            let mut fds = [PollFd::new(&polled, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: wait, tv_nsec: 0 })).unwrap() == 1
        };
        let _inline = region.answer_inline(source(1), 1).unwrap();
        assert!(!is_readable(0));
        thread::scope(|scope| {
            let reader = scope.spawn(|| load(region.base()));
            assert!(is_readable(60), "watchdog");
            assert_eq!(told(&uffd, &region), 0);
            assert!(!is_readable(0));
            fill(&region, 0);
            assert_eq!(reader.join().unwrap(), pattern(0, 0)[0]);
        });
    });
}

static NESTED: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn touch(_: i32) {
    SEEN.store(usize::from(load(NESTED.load(SeqCst))), SeqCst);
}

/// A file with the contents of `pages` pages that has lost the last one since.
fn short_file(pages: usize) -> FileBytes {
    let path = std::env::temp_dir().join(format!("userfault-linux-inline-{}", std::process::id()));
    std::fs::write(&path, patterns(0..pages, 0)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let source = FileBytes::new(Arc::new(file)).unwrap();
    source.file().set_len((pages as u64 - 1) * rustix::param::page_size() as u64).unwrap();
    source
}

// spec: m/fault/signal
#[test]
fn a_handler_over_a_parked_fault_gets_its_own_page_inline() {
    alone!(a_handler_over_a_parked_fault_gets_its_own_page_inline, {
        let uffd = open!(&raising());
        let region = map(&uffd, 2);
        let inline = region.answer_inline(short_file(2), 1).unwrap();
        NESTED.store(region.base(), SeqCst);
        outside::handle(libc::SIGUSR1, touch);
        let parked = region.base() + region.page_size();
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let faulting = scope.spawn(move || {
                THREAD.store(outside::thread_id(), SeqCst);
                large(|| load(parked))
            });
            assert_eq!(told(&uffd, &region), 1);
            until_asleep(&uffd, 1);
            outside::send(THREAD.load(SeqCst), libc::SIGUSR1);
            until("the handler has its page", || SEEN.load(SeqCst) == usize::from(pattern(0, 0)[0]));
            // If the signal ended the sleep, it is told again; not if it came just before.
            fill(&region, 1);
            assert_eq!(faulting.join().unwrap(), pattern(1, 0)[0]);
        });
        assert_eq!(inline.counts().faults, 1);
        assert_eq!(uffd.sleepers().unwrap(), []);
        compare(&region, 0);
    });
}

// spec: m/fault/sigbus
#[test]
fn who_waits_for_contents_that_nobody_has_gets_a_bus_error_after_it_was_told() {
    if !is_alone() {
        let ended = start(&path_of(&who_waits_for_contents_that_nobody_has_gets_a_bus_error_after_it_was_told));
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        if !text.contains("skipped: because") {
            assert!(text.contains("told page 1"), "{text}");
            assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
        }
        return;
    }
    let uffd = open!(&raising());
    let region = map(&uffd, 2);
    let _inline = region.answer_inline(short_file(2), 1).unwrap();
    large(|| compare(&region, 0));
    let lost = region.base() + region.page_size();
    thread::scope(|scope| {
        scope.spawn(move || large(|| println!("saw {}", load(lost))));
        println!("told page {}", told(&uffd, &region));
        let _poisoned = region.poison(1..2).unwrap();
    });
}

// spec: m/fault/sigbus
#[test]
fn a_bus_error_of_the_programs_own_still_ends_it() {
    if !is_alone() {
        let ended = start(&path_of(&a_bus_error_of_the_programs_own_still_ends_it));
        if !String::from_utf8_lossy(&ended.stdout).contains("skipped: because") {
            assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
        }
        return;
    }
    let uffd = open!(&raising());
    let region = map(&uffd, 1);
    let _inline = region.answer_inline(source(1), 1).unwrap();
    large(|| compare(&region, 0));
    println!("saw {}", outside::touch_behind_the_end_of_a_file());
}

// spec: m/fault/sigbus
#[test]
fn inline_answers_end_while_threads_fault_and_the_monitor_takes_over() {
    alone!(inline_answers_end_while_threads_fault_and_the_monitor_takes_over, {
        let uffd = open!(&raising());
        let pages = 256;
        let region = map(&uffd, pages);
        drop(region.answer_inline(source(pages), 1).unwrap());
        let (is_over, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let told = scope.spawn(|| monitor(&uffd, &region));
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (region, is_over, turns) = (&region, &is_over, &turns);
                    scope.spawn(move || {
                        large(|| {
                            let own = pages / 4 * number..pages / 4 * (number + 1);
                            let shared = region.shared(own.clone()).unwrap();
                            while !is_over.load(SeqCst) {
                                own.clone().for_each(|page| compare(region, page));
                                region.discard_shared(&shared, own.clone()).unwrap();
                                turns.fetch_add(1, SeqCst);
                            }
                        });
                    })
                })
                .collect();
            let mut inlined = 0;
            for _ in 0..30 {
                let inline = region.answer_inline(source(pages), 5).unwrap();
                until("somebody answers inline", || inline.counts().faults > 10);
                inlined += inline.counts().faults;
                drop(inline);
                let before = turns.load(SeqCst);
                until("and then the monitor", || turns.load(SeqCst) > before);
            }
            is_over.store(true, SeqCst);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            uffd.shut_down();
            println!("measured: {inlined} faults inline, {} by the monitor", told.join().unwrap());
        });
        assert_eq!(uffd.sleepers().unwrap(), []);
    });
}

// spec: m/fork/inherited
#[test]
fn a_forked_child_answers_nothing_for_its_parent_and_can_begin_anew() {
    alone!(a_forked_child_answers_nothing_for_its_parent_and_can_begin_anew, {
        let uffd = open!(&raising());
        let region = map(&uffd, 2);
        let inline = Mutex::new(Some(region.answer_inline(source(2), 1).unwrap()));
        large(|| compare(&region, 0));
        let pid = fork(|| {
            let is_refused = region.answer_inline(source(2), 1).is_err_and(|error| error == UffdError::Forked);
            let is_plain = load(region.base()) == pattern(0, 0)[0] && load(region.base() + region.page_size()) == 0;
            drop(inline.lock().unwrap().take());
            let own = Uffd::open(&raising()).unwrap();
            let fresh = map(&own, 1);
            let answers = fresh.answer_inline(source(1), 1).unwrap();
            let is_answered = large(|| load(fresh.base())) == pattern(0, 0)[0] && answers.counts().faults == 1;
            i32::from(!is_refused) + 2 * i32::from(!is_plain) + 4 * i32::from(!is_answered)
        });
        assert_eq!(wait(pid), 0);
        large(|| compare(&region, 1));
    });
}

// A slot that was used before the fork is taken anew in the child: its parent's descriptor is not rung there, nor
// whatever the child has opened under that number.
// spec: m/fork/inherited
#[test]
fn a_forked_child_rings_a_bell_of_its_own() {
    alone!(a_forked_child_rings_a_bell_of_its_own, {
        drop(open!(&raising()));
        let before = open_descriptors();
        let pid = fork(|| {
            outside::close_all();
            let files: Vec<File> =
                (0..before + 4).map(|_| memfd_create("log", MemfdFlags::CLOEXEC).unwrap().into()).collect();
            let uffd = Uffd::open(&raising()).unwrap();
            let region = map(&uffd, 1);
            let _inline = region.answer_inline(source(1), 1).unwrap();
            let is_right = thread::scope(|scope| {
                let small = scope.spawn(|| load(region.base()));
                assert_eq!(told(&uffd, &region), 0);
                fill(&region, 0);
                small.join().unwrap() == pattern(0, 0)[0]
            });
            let is_untouched = files.iter().all(|file| file.metadata().unwrap().len() == 0);
            i32::from(!is_right) + 2 * i32::from(!is_untouched)
        });
        assert_eq!(wait(pid), 0);
    });
}

#[test]
fn a_forked_child_does_not_silence_its_parents_bell() {
    alone!(a_forked_child_does_not_silence_its_parents_bell, {
        drop(open!(&raising()));
        let (is_reading, tell) = std::io::pipe().unwrap();
        let pid = fork(|| {
            let uffd = Uffd::open(&raising()).unwrap();
            let (_region, mut events) = (map(&uffd, 1), Events::new());
            (&tell).write_all(&[1]).unwrap();
            // Until the parent ends it.
            loop {
                let _none = uffd.read(Wait::AtMost(Duration::from_millis(1)), &mut events).unwrap();
            }
        });
        (&is_reading).read_exact(&mut [0]).unwrap();
        let uffd = Uffd::open(&raising()).unwrap();
        let region = map(&uffd, 3000);
        let _inline = region.answer_inline(source(3000), 1).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| monitor(&uffd, &region));
            for page in 0..3000 {
                assert_eq!(load(region.base() + page * region.page_size()), pattern(page, 0)[0]);
            }
            uffd.shut_down();
            assert_eq!(reader.join().unwrap(), 3000);
        });
        outside::end(pid);
    });
}

#[test]
fn who_sleeps_for_a_page_that_is_unregistered_goes_on() {
    alone!(who_sleeps_for_a_page_that_is_unregistered_goes_on, {
        drop(open!(&raising()));
        for _ in 0..300 {
            let uffd = Uffd::open(&raising()).unwrap();
            let region = map(&uffd, 2);
            // From now on faults are handed over, and nobody answers.
            drop(region.answer_inline(source(2), 1).unwrap());
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| load(region.base()));
                until_asleep(&uffd, 1);
                region.unregister(0..1).unwrap();
                assert_eq!(sleeper.join().unwrap(), 0);
            });
        }
    });
}

// spec: m/fault/sigbus
#[test]
fn what_cannot_be_answered_inline_is_refused_with_a_reason() {
    alone!(what_cannot_be_answered_inline_is_refused_with_a_reason, {
        let refused = |region: &Region, part: &str| {
            let error = region.answer_inline(source(1), 1).unwrap_err();
            let UffdError::NotInline { reason } = error else { panic!("{error}") };
            assert!(reason.contains(part), "{reason}");
        };
        let plain = open!();
        refused(&map(&plain, 1), "Features::SIGBUS");
        let uffd = open!(&raising());
        refused(&uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).unwrap(), "write protection");
        let (first, second) = (map(&uffd, 1), map(&uffd, 1));
        outside::set_blocked(libc::SIGBUS, true);
        refused(&first, "blocks SIGBUS");
        outside::set_blocked(libc::SIGBUS, false);
        let inline = first.answer_inline(source(1), 1).unwrap();
        refused(&first, "answered inline");
        refused(&second, "answered inline");
        drop(inline);
        // It is still the one whose faults are events.
        refused(&second, "answered inline");
        drop(first);
        let _inline = second.answer_inline(source(1), 1).unwrap();
        large(|| compare(&second, 0));
        outside::handle(libc::SIGBUS, touch);
        let other = Uffd::open(&raising()).unwrap();
        refused(&map(&other, 1), "another handler");
    });
}
