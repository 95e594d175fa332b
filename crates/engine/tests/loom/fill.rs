//! Claims: nobody fills a page twice, nobody sees half of it, and whoever waits for a claim is woken by its end.

use std::sync::Arc;

use userfault_abi::{CopyModes, WriteprotectModes};
use userfault_engine::{Fill, FillStop, Left, Mapping, MappingKind, Protocol, Verdict, Why};

use crate::host::{Seen, World, explore, spawn};

// spec: W1
#[test]
fn two_fills_never_fill_a_page_twice_nor_show_half_of_it() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 2));
        let reader = spawn(&world, |world| {
            if !world.memory[0].touch() {
                world.access(0);
            }
        });
        let other = spawn(&world, |world| world.fill(0));
        let ends = [world.fill(0), other.join().unwrap()];
        reader.join().unwrap();
        let mut outcomes = ends.map(|end| (end.pages_done, end.stop));
        outcomes.sort_unstable_by_key(|(done, _)| *done);
        assert_eq!(outcomes, [(0, Some(FillStop::Exists)), (1, None)]);
        world.assert_nobody_is_left();
    });
}

// spec: W1
#[test]
fn a_fill_waits_for_another_and_never_answers_exists_for_a_page_that_is_given_back() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let failing = spawn(&world, |world| world.drive(world.copy(world.range), World::bring_nothing));
        let end = world.fill(0);
        assert_eq!((end.pages_done, end.stop), (1, None));
        let end = failing.join().unwrap();
        seen.add(usize::from(end.stop == Some(FillStop::Exists)));
        assert_eq!(end.pages_done, 0);
        world.assert_nobody_is_left();
    });
    all.assert_all(2);
}

// spec: W1
#[test]
fn who_meets_a_page_that_is_being_discarded_is_woken_by_the_commit() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        assert_eq!(world.fill(0).pages_done, 1);
        let outcome = seen.clone();
        let sleeper = spawn(&world, move |world| match world.fault(0) {
            Verdict::Sleep { waiter, ring: None } => {
                outcome.add(0);
                assert_eq!(world.sleep(waiter), Left::Woken);
            }
            Verdict::Sleep { waiter, ring: Some(_) } => {
                outcome.add(1);
                assert_eq!(world.space.leave(waiter, Why::Interrupted), Left::Interrupted);
            }
            Verdict::Retry => outcome.add(2),
            Verdict::Present(_) => outcome.add(3),
            other => panic!("{other:?}"),
        });
        assert_eq!(world.drive(world.space.discard(world.range), World::discard).pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
    all.assert_all(4);
}

// spec: W1
#[test]
fn a_page_that_is_discarded_and_filled_again_lets_everybody_go_on() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        assert_eq!(world.fill(0).pages_done, 1);
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        assert_eq!(world.drive(world.space.discard(world.range), World::discard).pages_done, 1);
        assert_eq!(world.fill(0).pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1, m/writeprotect/wake
#[test]
fn who_waits_to_write_is_woken_when_the_protection_is_lifted() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let protected = world.space.fill(world.context, world.range, Fill::Copy(CopyModes::WP)).unwrap();
        assert_eq!(world.drive(protected, World::bring).pages_done, 1);
        let outcome = seen.clone();
        let writer = spawn(&world, move |world| match world.fault_to_write(0) {
            Verdict::Sleep { waiter, ring } => {
                outcome.add(usize::from(ring.is_some()));
                assert_eq!(world.sleep(waiter), Left::Woken);
            }
            Verdict::Retry => outcome.add(2),
            Verdict::Present(_) => outcome.add(3),
            other => panic!("{other:?}"),
        });
        let mapping = Mapping { range: world.range, kind: MappingKind::PrivateAnonymous, tag: 0 };
        let lifting = world.space.writeprotect(world.context, world.range, WriteprotectModes::NONE, &[mapping]);
        assert_eq!(world.drive(lifting.unwrap(), |_, _| Ok(())).stop, None);
        writer.join().unwrap();
        world.assert_nobody_is_left();
    });
    all.assert_all(4);
}

// spec: W1
#[test]
fn who_meets_a_page_that_is_being_discarded_is_woken_by_the_abort() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        assert_eq!(world.fill(0).pages_done, 1);
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        let end = world.drive(world.space.discard(world.range), World::discard_in_vain);
        assert_eq!((end.pages_done, end.stop), (0, Some(FillStop::NoMemory)));
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1, W27, o/wake/guarantee
#[test]
fn an_installation_wakes_those_that_met_it_and_a_wake_the_others() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        assert_eq!(world.drive(world.space.install(world.range), World::bring).pages_done, 1);
        world.wake(world.range);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1
#[test]
fn threads_that_bring_a_page_themselves_and_a_monitor_bring_it_once_and_leave_nobody_asleep() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(Some(3), move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 2));
        assert!(world.space.answer_inline(world.context, true));
        let threads = [0, 1].map(|_| {
            let seen = seen.clone();
            spawn(&world, move |world| if world.memory[0].touch() { 0 } else { world.access_inline(0, &seen) })
        });
        let monitor = world.fill(0).pages_done;
        let brought: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(brought + monitor, 1);
        world.assert_nobody_is_left();
    });
    all.assert_all(3);
}
