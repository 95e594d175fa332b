//! What an operation costs when many wait: W8, W9.

use userfault_abi::request;
use userfault_engine::{Capacities, MappingKind, Protocol};
use userfault_sim::{Activity, Descriptor, Place, Protection, Simulator, State, steps};

use crate::common::*;

/// A world in which so many threads sleep, each on a page of its own.
fn crowd(protocol: Protocol, sleepers: u64) -> (Simulator, Descriptor) {
    let waiters = usize::try_from(sleepers).unwrap() + 8;
    let mut sim = Simulator::new(Capacities { waiters, registrations: 8, contexts: 2 });
    let fd = ready(&mut sim, protocol);
    sim.map(A, sleepers + 8, MappingKind::PrivateAnonymous, Protection::ReadWrite);
    register(&mut sim, fd, A, sleepers + 8);
    for page in 0..sleepers {
        let access = userfault_engine::Access {
            address: at(page),
            write: false,
            patience: userfault_engine::Patience::Wait,
            origin: userfault_engine::Origin::User,
            thread: 1,
        };
        let _asleep = sim.space().fault(&access);
    }
    (sim, fd)
}

fn price(work: impl FnOnce()) -> u64 {
    let before = steps();
    work();
    steps() - before
}

// spec: W8, o/read/fifo
#[test]
fn reading_a_word_costs_the_same_with_10_and_100_000_waiting() {
    for protocol in BOTH {
        let one = if protocol == Protocol::Modern { 32 } else { 8 };
        let prices = [10, 100_000].map(|sleepers| {
            let (mut sim, fd) = crowd(protocol, sleepers);
            price(|| drop(sim.read(fd, one, Place::Good)))
        });
        assert_eq!(prices[0], prices[1], "{protocol:?}");
    }
}

// spec: W9
#[test]
fn waking_one_page_costs_the_logarithm_of_those_who_wait_elsewhere() {
    for protocol in BOTH {
        let prices = [10, 100_000].map(|sleepers| {
            let (mut sim, fd) = crowd(protocol, sleepers);
            let _words = sim.read(fd, 32, Place::Good);
            price(|| wake(&mut sim, fd, at(0), 1))
        });
        // 13 more levels of a tree, each looked at a few times, against 99,990 more sleepers.
        assert!(prices[1] < prices[0] + 13 * 40, "{protocol:?}: {prices:?}");
    }
}

// spec: W9, m/fault/missing
#[test]
fn a_fault_costs_the_logarithm_of_those_who_sleep_already() {
    let prices = [10, 100_000].map(|sleepers| {
        let (mut sim, _) = crowd(Protocol::Modern, sleepers);
        price(|| {
            sim.start(0, Activity::Load { address: at(sleepers) });
        })
    });
    assert!(prices[1] < prices[0] + 13 * 40, "{prices:?}");
}

// spec: W9, o/read/sleep
#[test]
fn one_blocked_reader_is_woken_per_word_and_one_that_leaves_hands_it_on() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 3);
        sim.set_nonblocking(fd, false);
        for thread in 4..7 {
            sim.start(thread, Activity::Read { descriptor: fd, count: 64, at: Place::Good });
            assert_eq!(sim.observe(thread), State::Reading);
        }
        sleeper(&mut sim, 0, 0);
        let reading = |sim: &Simulator| (4..7).filter(|thread| sim.observe(*thread) == State::Reading).count();
        assert_eq!(reading(&sim), 2, "{protocol:?}");
        // One leaves by a signal, and the next word goes to the one that is left.
        sim.signal(5);
        sleeper(&mut sim, 1, 1);
        assert_eq!(reading(&sim), 0, "{protocol:?}");
        assert!(matches!(sim.observe(6), State::Read(Ok(_))));
    }
}

// spec: W11, o/read/take
#[test]
fn a_wake_of_more_than_one_batch_reaches_everybody_in_order() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        (0..100).for_each(|thread| sleeper(&mut sim, thread, 0));
        while !read(&mut sim, fd, protocol).is_empty() {}
        sim.populate(A, &[1; 4096]);
        sim.take_unparked();
        wake(&mut sim, fd, A, 1);
        assert_eq!(sim.take_unparked(), (0..100).collect::<Vec<_>>(), "{protocol:?}");
        let _ = request::WAKE;
    }
}
