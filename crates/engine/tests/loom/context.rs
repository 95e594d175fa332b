//! The two ends of a context: the handshake, and closing while threads fault.

use std::sync::Arc;

use userfault_abi::{Features, request};
use userfault_engine::{HandshakeError, Left, Mapping, MappingKind, Page, Protocol, Verdict, Why};

use crate::host::{Seen, World, explore, spawn};

fn shake_hands(world: &World) -> Result<(), HandshakeError> {
    let offer = world.space.begin_handshake(world.context, request::UFFD_API, Features::NONE)?;
    assert_eq!(world.space.finish_handshake(offer, true), None);
    Ok(())
}

// spec: W16, m/api/once
#[test]
fn exactly_one_handshake_wins() {
    for protocol in [Protocol::Modern, Protocol::Original { fills: false }] {
        explore(None, move || {
            let world = Arc::new(World::before_handshake(protocol, 1, 1));
            let others = [spawn(&world, shake_hands), spawn(&world, shake_hands)];
            let [second, third] = others.map(|other| other.join().unwrap());
            let mut results = [shake_hands(&world), second, third];
            results.sort_unstable_by_key(Result::is_err);
            let lost = Err(HandshakeError::AlreadyDone);
            assert_eq!(results, [Ok(()), lost, lost]);
        });
    }
}

// spec: W31, m/close/last, o/release/sigbus-window, o/release/sleepers
#[test]
fn closing_never_raises_a_bus_error() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let outcome = seen.clone();
        let sleeper = spawn(&world, move |world| {
            // Two accesses: one that begins before the end, and a repeated one.
            for _ in 0..2 {
                let verdict = world.wait_for(0);
                assert!(verdict == Verdict::Retry || world.memory[0].touch(), "released, but not plain");
                outcome.add(if verdict == Verdict::Retry { 1 } else { 2 * usize::from(verdict == Verdict::NotOurs) });
            }
        });
        assert!(world.space.begin_release(world.context));
        let mut from = Page::new(0);
        while let Some(released) = world.space.release_range(world.context, from) {
            assert_eq!(released.range, world.range);
            world.memory[0].make_plain();
            from = released.range.end();
        }
        world.unpark(world.space.finish_release(world.context));
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
        assert_eq!(world.fault(0), Verdict::NotOurs);
    });
    all.assert_all(3);
}

// spec: W7, W31, m/unregister/wakes
#[test]
fn unregistering_under_a_fault_ends_in_plain_memory() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        let mapping = Mapping { range: world.range, kind: MappingKind::PrivateAnonymous, tag: 0 };
        let layout = world.layout.lock().unwrap();
        let woken = world.space.unregister(world.context, world.range, &[mapping]).unwrap();
        world.memory[0].make_plain();
        drop(layout);
        seen.add(usize::from(woken.is_empty()));
        world.unpark(woken);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
    all.assert_all(2);
}

// spec: W9, o/release/sleepers
#[test]
fn closing_over_more_sleepers_than_one_batch_holds_ends_the_context() {
    explore(None, || {
        let world = World::new(Protocol::Modern, 1, 33);
        let sleepers = [(); 33].map(|()| world.asleep(0));
        assert!(world.space.begin_release(world.context));
        assert_eq!(world.space.release_range(world.context, Page::new(0)).map(|found| found.range), Some(world.range));
        world.unpark(world.space.finish_release(world.context));
        assert_eq!(sleepers.map(|waiter| world.space.leave(waiter, Why::Check)), [Left::Released; 33]);
        assert!(!world.space.begin_release(world.context), "the name is not valid any more");
        assert_eq!(world.space.registrations(), 0);
        world.assert_nobody_is_left();
    });
}
