//! The two ends of a context: the handshake, and closing while threads fault.

use std::sync::Arc;

use userfault_abi::{Features, request};
use userfault_engine::{HandshakeError, Mapping, MappingKind, Page, Protocol};

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

// spec: W31, m/release/sleepers, o/release/sigbus-window, o/release/sleepers
#[test]
fn closing_never_raises_a_bus_error() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        assert!(world.space.begin_release(world.context));
        while let Some(released) = world.space.release_range(world.context, Page::new(0)) {
            assert_eq!(released.range, world.range);
            world.memory[0].make_plain();
        }
        world.unpark(world.space.finish_release(world.context));
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W7, W31
#[test]
fn unregistering_under_a_fault_ends_in_plain_memory() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        let mapping = Mapping { range: world.range, kind: MappingKind::PrivateAnonymous, tag: 0 };
        world.memory[0].make_plain();
        let woken = world.space.unregister(world.context, world.range, &[mapping]).unwrap();
        seen.add(usize::from(woken.is_empty()));
        world.unpark(woken);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
    all.assert_all(2);
}
