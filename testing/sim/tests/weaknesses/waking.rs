//! Waking and sleeping: W1 to W7, W10 to W13.

use userfault_abi::request;
use userfault_engine::{Page, PageState, Protocol};
use userfault_sim::{Activity, State};

use crate::common::*;

// spec: W2, m/wake/unread, o/wake/unread
#[test]
fn one_wake_releases_two_sleepers_of_a_page_read_or_not() {
    for (protocol, awake) in [(Protocol::Modern, 2), (ORIGINAL, 1)] {
        let (mut sim, fd) = world(protocol, 1);
        sleeper(&mut sim, 0, 0);
        sleeper(&mut sim, 1, 0);
        let one = if protocol == Protocol::Modern { 32 } else { 8 };
        sim.read(fd, one, userfault_sim::Place::Good).unwrap();
        sim.populate(A, &[1; 4096]);
        wake(&mut sim, fd, A, 1);
        let done = (0..2).filter(|thread| matches!(sim.observe(*thread), State::Done(_))).count();
        assert_eq!(done, awake, "{protocol:?}");
    }
}

// spec: W3, o/fault/no-recheck, m/fault/recheck
#[test]
fn a_page_that_arrives_before_the_sleeper_joins_means_retry() {
    for protocol in BOTH {
        // After each possible number of looks at page states.
        for looks in 0..3 {
            let (mut sim, fd) = world(protocol, 1);
            sim.space().pages().change_after(looks, Page::new(A / userfault_sim::PAGE), PageState::Present);
            let state = load(&mut sim, 0, 0);
            assert_eq!(state, State::Done(0), "{protocol:?}, page there at look {looks}");
            assert_eq!(sim.space().asleep(), 0);
            assert_eq!(sim.space().slots_in_use(), 0, "a retry leaves no slot behind");
            assert!(read(&mut sim, fd, protocol).is_empty());
        }
    }
}

// spec: W4, m/fault/killed, o/fault/killable-not-asked, o/poll/promise, o/fault/first-test
#[test]
fn a_killed_sleeper_takes_its_unread_word_with_it() {
    for protocol in BOTH {
        for read_first in [false, true] {
            let (mut sim, fd) = world(protocol, 2);
            sleeper(&mut sim, 0, 0);
            if read_first {
                assert_eq!(read(&mut sim, fd, protocol), [0]);
            }
            sleeper(&mut sim, 1, 1);
            sim.kill(0);
            assert_eq!(sim.fdinfo(fd).map(|info| (info.pending, info.total)), Some((1, 1)));
            assert_eq!(read(&mut sim, fd, protocol), [1]);
            assert!(sim.poll(fd).is_empty());
            sim.kill(1);
            assert_eq!(sim.space().slots_in_use(), 0);
        }
    }
}

// spec: W5, o/fault/loop, o/fault/read-does-not-wake, o/fault/unread-wakeup
#[test]
fn a_stray_unpark_puts_the_thread_back_to_sleep() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        sleeper(&mut sim, 0, 0);
        let asleep = sim.observe(0);
        sim.stray_unpark(0);
        assert_eq!(sim.observe(0), asleep, "while unread");
        assert_eq!(read(&mut sim, fd, protocol), [0]);
        sim.stray_unpark(0);
        assert_eq!(sim.observe(0), asleep, "while read");
        assert!(read(&mut sim, fd, protocol).is_empty(), "and it is not announced again");
        sim.populate(A, &[1; 4096]);
        wake(&mut sim, fd, A, 1);
        assert!(matches!(sim.observe(0), State::Done(_)));
        sim.stray_unpark(0);
    }
}

// spec: W6, o/fault/retry-means-retry, m/fault/retry
#[test]
fn a_thread_woken_ten_times_without_a_page_sleeps_ten_times() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        sleeper(&mut sim, 0, 0);
        for _ in 0..10 {
            assert_eq!(read(&mut sim, fd, protocol), [0]);
            wake(&mut sim, fd, A, 1);
            assert!(matches!(sim.observe(0), State::Asleep(_)));
        }
        assert_eq!(sim.space().slots_in_use(), 1);
    }
}

// spec: W7, o/unregister/sleepers, m/unregister/wakes
#[test]
fn unregistering_wakes_the_sleepers_of_the_range_and_no_others() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 4);
        (0..4).for_each(|thread| sleeper(&mut sim, thread, u64::try_from(thread).unwrap()));
        sim.read(fd, 32, userfault_sim::Place::Good).unwrap();
        assert_eq!(range(&mut sim, fd, request::UNREGISTER, at(1), 2), 0);
        let awake: Vec<usize> = (0..4).filter(|thread| !sim.is_asleep(*thread)).collect();
        assert_eq!(awake, [1, 2], "{protocol:?}");
        assert_eq!(sim.observe(1), State::Done(0));
    }
}

// spec: W10, o/fault/no-merging, m/fault/two
#[test]
fn each_thread_gets_its_own_word() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        (0..100).for_each(|thread| sleeper(&mut sim, thread, 0));
        let first = read(&mut sim, fd, protocol);
        let rest = read(&mut sim, fd, protocol);
        assert_eq!(first.len() + rest.len(), 100, "{protocol:?}");
        zeropage(&mut sim, fd, A, 1);
        assert!((0..100).all(|thread| sim.observe(thread) == State::Done(0)), "one fill wakes them all");
    }
}

// spec: W11, o/wake/all-and-order
#[test]
fn sleepers_are_woken_oldest_first() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 8);
        let pages = [5, 0, 7, 2, 2, 6];
        pages.iter().enumerate().for_each(|(thread, page)| sleeper(&mut sim, thread, *page));
        read(&mut sim, fd, protocol);
        sim.take_unparked();
        wake(&mut sim, fd, A, 8);
        assert_eq!(sim.take_unparked(), [0, 1, 2, 3, 4, 5], "{protocol:?}");
    }
}

// spec: W12, o/wake/input, m/range/valid
#[test]
fn length_zero_is_refused_by_every_call() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        sleeper(&mut sim, 0, 0);
        read(&mut sim, fd, protocol);
        for request in [request::WAKE, request::UNREGISTER] {
            assert_eq!(range(&mut sim, fd, request, A, 0), userfault_abi::Errno::EINVAL.raw());
        }
        assert!(sim.is_asleep(0), "nothing has become everything");
    }
}

// spec: W13, o/fault/signal, o/fault/leave, m/fault/signal
#[test]
fn an_interrupted_sleeper_leaves_no_trace_and_faults_again() {
    for protocol in BOTH {
        for read_first in [false, true] {
            let (mut sim, fd) = world(protocol, 1);
            sleeper(&mut sim, 0, 0);
            if read_first {
                assert_eq!(read(&mut sim, fd, protocol), [0]);
            }
            let before = sim.observe(0);
            sim.signal(0);
            assert!(sim.is_asleep(0));
            assert_ne!(sim.observe(0), before, "it is another waiter");
            assert_eq!(sim.space().slots_in_use(), 1);
            assert_eq!(read(&mut sim, fd, protocol), [0], "announced once more, and once");
            assert_eq!(sim.signals(0), 1);
        }
    }
}

// spec: W1, o/wake/shortcut, o/wake/guarantee
#[test]
fn a_wake_finds_the_sleeper_whenever_its_word_was_read() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 3);
        for page in 0..3 {
            sleeper(&mut sim, 0, page);
            assert_eq!(read(&mut sim, fd, protocol), [page]);
            sim.populate(at(page), &[1; 4096]);
            wake(&mut sim, fd, at(page), 1);
            assert!(matches!(sim.observe(0), State::Done(_)));
            wake(&mut sim, fd, at(page), 1);
        }
    }
}

// spec: o/fault/notify-each, o/api/silent, W15
#[test]
fn pollers_hear_of_every_fault_and_of_those_that_were_there_before_the_handshake() {
    let mut sim = userfault_sim::Simulator::default();
    let fd = sim.open(0x800, ORIGINAL, userfault_engine::Privilege::Full).unwrap();
    map(&mut sim, A, 4);
    register(&mut sim, fd, A, 4);
    sleeper(&mut sim, 0, 0);
    sleeper(&mut sim, 1, 1);
    assert_eq!(sim.rings(fd), 2);
    api(&mut sim, fd).unwrap();
    assert_eq!(sim.rings(fd), 3, "an edge for who came early");
    sleeper(&mut sim, 2, 1);
    assert_eq!(sim.rings(fd), 4);
    sim.start(3, Activity::Load { address: at(1) });
    assert_eq!(sim.rings(fd), 5, "also while others are unread");
}
