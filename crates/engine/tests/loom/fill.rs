//! Claims: nobody fills a page twice, nobody sees half of it, and whoever waits for a claim is woken by its end.

use std::sync::Arc;

use userfault_engine::{FillStop, Protocol};

use crate::host::{Seen, World, explore, spawn};

// spec: W1, m/copy/atomic
#[test]
fn two_fills_never_fill_a_page_twice_nor_show_half_of_it() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 2));
        let reader = spawn(&world, |world| world.access(0));
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
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        assert_eq!(world.fill(0).pages_done, 1);
        let sleeper = spawn(&world, |world| world.access_patiently(0));
        assert_eq!(world.drive(world.space.discard(world.range), World::discard).pages_done, 1);
        assert_eq!(world.fill(0).pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1
#[test]
fn who_meets_a_page_that_is_being_discarded_is_woken_by_the_abort() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        assert_eq!(world.fill(0).pages_done, 1);
        let sleeper = spawn(&world, |world| world.access(0));
        let end = world.drive(world.space.discard(world.range), World::discard_in_vain);
        assert_eq!((end.pages_done, end.stop), (0, Some(FillStop::NoMemory)));
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1
#[test]
fn a_page_that_is_discarded_and_filled_again_never_shows_half_of_it_to_two_readers() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 2));
        assert_eq!(world.fill(0).pages_done, 1);
        let sleepers =
            [spawn(&world, |world| world.access_patiently(0)), spawn(&world, |world| world.access_patiently(0))];
        assert_eq!(world.drive(world.space.discard(world.range), World::discard).pages_done, 1);
        assert_eq!(world.fill(0).pages_done, 1);
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        world.assert_nobody_is_left();
    });
}

// spec: W1, W27, o/wake/guarantee
#[test]
fn an_installation_wakes_those_that_met_it_and_a_wake_the_others() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access(0));
        assert_eq!(world.drive(world.space.install(world.range), World::bring).pages_done, 1);
        world.wake(world.range);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}
