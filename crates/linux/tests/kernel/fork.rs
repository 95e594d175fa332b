//! Fork: the message, the child's context, and what a child may not do.
//!
//! While a thread forks and its message is unread, malloc sleeps in every thread of the process
//! (SPEC trap 8). So each test has a process of its own, and between the moment the forker may go and
//! the read nothing is allocated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use userfault_abi::{ContinueModes, CopyModes, ZeropageModes};
use userfault_client::{
    Errno, Event, Features, Options, Progress, Region as _, RegisterModes, Shared as _, Stopped, Uffd as _, UffdError,
    Wait,
};
use userfault_linux::{Foreign, Uffd, print_sleepers};
use userfault_signal::Bytes;

use crate::outside::{fork, limit_descriptors, load, wait};
use crate::support::{Events, WATCHDOG, alone, is_readable, open, open_descriptors, pattern, patterns, until};

fn with_fork() -> Options {
    Options { require: Features::EVENT_FORK, ..Options::default() }
}

/// Forks in another thread, once `read` is about to begin; `read` must not allocate before it reads.
fn fork_and<R>(child: impl FnOnce() -> i32 + Send, read: impl FnOnce() -> R) -> (i32, R) {
    let may_go = AtomicBool::new(false);
    thread::scope(|scope| {
        let forker = scope.spawn(|| {
            while !may_go.load(Ordering::Acquire) {
                thread::yield_now();
            }
            fork(child)
        });
        may_go.store(true, Ordering::Release);
        let result = read();
        (forker.join().unwrap(), result)
    })
}

fn forked(uffd: &Uffd, events: &mut Events) -> Foreign {
    assert_eq!(uffd.read(Wait::AtMost(WATCHDOG), events), Ok(1));
    let Some(Event::Fork(forked)) = events.pop() else { panic!("a fork") };
    forked.into_foreign().unwrap()
}

// spec: m/event/fork, m/event/fork-descriptor, m/event/fork-child, m/close/exit
#[test]
fn a_forked_childs_pages_are_answered_through_its_own_context() {
    alone!(a_forked_childs_pages_are_answered_through_its_own_context, {
        let uffd = open!(&with_fork());
        let region = uffd.map(3, RegisterModes::MISSING).unwrap();
        region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
        let window = region.window(0..3).unwrap();
        let (expected, fill) = (patterns(0..3, 0), patterns(1..3, 0));
        let mut events = Events::with_capacity(8);
        let (pid, child) = fork_and(
            || i32::from(window.as_ref() != expected),
            || {
                let child = forked(&uffd, &mut events);
                while child.read(Wait::AtMost(WATCHDOG), &mut events) == Ok(0) {}
                let Some(Event::Fault(fault)) = events.pop() else { panic!("a fault") };
                assert_eq!(region.page_at(fault.address), Some(1), "the child's address");
                assert_eq!(child.copy(fault.address, &fill, CopyModes::NONE), Ok(Progress::all(2)));
                child
            },
        );
        assert_eq!(wait(pid), 0, "the child saw every byte");
        assert_eq!(child.features(), Features::EVENT_FORK);
        assert_eq!(child.info().unwrap().features, Features::EVENT_FORK);

        // The parent's own pages are still missing, and the child is gone.
        assert_eq!(region.copy(1, &patterns(1..3, 5)), Ok(Progress::all(2)));
        assert_eq!(window.as_ref()[..], [pattern(0, 0), patterns(1..3, 5)].concat());
        let address = region.base() as u64;
        assert_eq!(child.copy(address, &pattern(0, 0), CopyModes::NONE), Ok(Progress::stopped(0, Stopped::Gone)));
        child.shut_down();
        assert_eq!(child.read(Wait::Forever, &mut events), Err(UffdError::ShutDown));
    });
}

// spec: m/event/fork-descriptor, m/close/last
#[test]
fn the_childs_descriptor_is_closed_with_the_events_it_came_in() {
    alone!(the_childs_descriptor_is_closed_with_the_events_it_came_in, {
        let uffd = open!(&with_fork());
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        let window = region.window(0..1).unwrap();
        let before = open_descriptors();
        for is_taken in [false, true] {
            let mut events = Events::with_capacity(8);
            // Nobody answers for the child, so with the last descriptor its page becomes zero.
            let (pid, ()) = fork_and(
                || i32::from(window.as_ref().iter().any(|byte| *byte != 0)),
                || assert_eq!(uffd.read(Wait::AtMost(WATCHDOG), &mut events), Ok(1)),
            );
            assert_eq!(open_descriptors(), before + 1);
            if is_taken {
                let Some(Event::Fork(forked)) = events.pop() else { panic!("a fork") };
                assert_eq!(open_descriptors(), before + 1);
                drop(forked.into_foreign().unwrap());
            } else {
                drop(events);
            }
            assert_eq!(open_descriptors(), before);
            assert_eq!(wait(pid), 0);
        }
    });
}

// spec: m/read/fork-emfile
#[test]
fn a_fork_that_finds_no_free_descriptor_stays_to_be_read() {
    alone!(a_fork_that_finds_no_free_descriptor_stays_to_be_read, {
        use std::os::fd::AsRawFd;
        let uffd = open!(&with_fork());
        let _region = uffd.map(1, RegisterModes::MISSING).unwrap();
        let mut events = Events::with_capacity(8);
        let lowest_free = uffd_number_after(&uffd);
        let (pid, answers) = fork_and(
            || 0,
            || {
                while !is_readable(&uffd) {}
                let old = limit_descriptors(lowest_free);
                let full = uffd.read(Wait::Never, &mut events);
                limit_descriptors(old);
                (full, uffd.read(Wait::Never, &mut events))
            },
        );
        let refused = UffdError::System { operation: "read", errno: Errno::EMFILE };
        assert_eq!(answers, (Err(refused), Ok(1)));
        assert!(matches!(&events[..], [Event::Fork(child)] if std::os::fd::AsFd::as_fd(child).as_raw_fd() > 2));
        assert_eq!(wait(pid), 0);
    });
}

/// The number that the next descriptor will get.
fn uffd_number_after(uffd: &Uffd) -> u64 {
    use std::os::fd::{AsFd, AsRawFd};
    let next = uffd.as_fd().try_clone_to_owned().unwrap();
    u64::try_from(next.as_raw_fd()).unwrap()
}

// spec: m/fork/inherited, m/event/fork-without
#[test]
fn a_forked_child_cannot_reach_its_parents_memory_through_what_it_inherits() {
    alone!(a_forked_child_cannot_reach_its_parents_memory_through_what_it_inherits, {
        let uffd = open!();
        let region = uffd.map(3, RegisterModes::MISSING).unwrap();
        let (window, present) = (region.window(0..2).unwrap(), region.window(2..3).unwrap());
        let bytes = pattern(0, 0);
        assert_eq!(region.copy(2, &bytes), Ok(Progress::all(1)));
        let pid = fork(|| {
            let refused = [
                region.copy(0, &bytes).map(|_| ()),
                region.zeropage(0..1).map(|_| ()),
                region.poison(0..1).map(|_| ()),
                region.wake(0..1),
                region.unregister(0..1),
                uffd.map(1, RegisterModes::MISSING).map(|_| ()),
                uffd.read(Wait::Never, &mut Events::new()).map(|_| ()),
            ];
            uffd.shut_down();
            let is_refused = refused.iter().all(|answer| *answer == Err(UffdError::Forked));
            let is_zero = window.as_ref().iter().all(|byte| *byte == 0);
            let is_kept = present.as_ref() == bytes;
            i32::from(!is_refused) + 2 * i32::from(!is_zero) + 4 * i32::from(!is_kept)
        });
        assert_eq!(wait(pid), 0);
        assert_eq!(uffd.read(Wait::Never, &mut Events::new()), Ok(0), "not shut down");
        assert_eq!(region.copy(0, &patterns(0..2, 1)), Ok(Progress::all(2)), "still missing");
        assert_eq!(window.as_ref(), patterns(0..2, 1));
    });
}

// spec: m/fork/inherited
#[test]
fn a_forked_child_changes_nothing_of_its_parents_shared_region() {
    alone!(a_forked_child_changes_nothing_of_its_parents_shared_region, {
        let uffd = open!();
        let region = uffd.map_shared(2, RegisterModes::MISSING).unwrap();
        let (here, other) = (pattern(0, 0), pattern(0, 1));
        region.populate(0, &here).unwrap();
        let pid = fork(|| {
            let refused = [
                region.populate(0, &other),
                region.populate(1, &other),
                region.punch(0..1),
                region.unmap(0..1),
                region.unregister(0..1),
                region.copy(1, &other, CopyModes::NONE).map(|_| ()),
                region.zeropage(1..2, ZeropageModes::NONE).map(|_| ()),
                region.continue_pages(0..1, ContinueModes::NONE).map(|_| ()),
            ];
            i32::from(refused.iter().any(|answer| *answer != Err(UffdError::Forked)))
        });
        assert_eq!(wait(pid), 0);
        assert_eq!(region.shared(0..1).unwrap().compare(0, &here), None, "its contents are as they were");
        assert_eq!(region.copy(1, &here, CopyModes::NONE), Ok(Progress::all(1)), "its hole is as it was");
    });
}

#[test]
fn a_forked_childs_report_names_none_of_its_parents_threads() {
    alone!(a_forked_childs_report_names_none_of_its_parents_threads, {
        let raising = Options { require: Features::SIGBUS, ..Options::default() };
        let uffd = open!(&raising);
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        // The thread's stack is too small to answer there: it hands its fault over.
        let _inline = region.answer_inline(Bytes::from(pattern(0, 0)), 1).unwrap();
        thread::scope(|scope| {
            let base = region.base();
            let reading = scope.spawn(move || load(base));
            until("the thread sleeps", || uffd.sleepers().unwrap().len() == 1);
            let pid = fork(|| {
                let before = print_sleepers();
                let own = Uffd::open(&raising).unwrap();
                i32::from(before != 0)
                    + 2 * i32::from(print_sleepers() != 0)
                    + 4 * i32::from(own.sleepers() != Ok(vec![]))
            });
            let seen = (wait(pid), print_sleepers());
            // Nothing fails before the thread goes on.
            region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
            assert_eq!(reading.join().unwrap(), pattern(0, 0)[0]);
            assert_eq!(seen, (0, 1));
        });
    });
}

// spec: m/event/fork-without
#[test]
fn a_forked_child_opens_a_descriptor_of_its_own() {
    alone!(a_forked_child_opens_a_descriptor_of_its_own, {
        drop(open!());
        let pid = fork(|| {
            let filled = || {
                let uffd = Uffd::open(&Options::default())?;
                let region = uffd.map(1, RegisterModes::MISSING)?;
                region.copy(0, &pattern(0, 0))
            };
            i32::from(filled() != Ok(Progress::all(1)))
        });
        assert_eq!(wait(pid), 0);
    });
}
