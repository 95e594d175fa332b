//! The ordering argument itself: joining against filling and waking.

use std::sync::Arc;

use userfault_engine::{Left, PageRange, Protocol, Verdict, Why};

use crate::host::{Seen, World, explore, page, spawn};

// spec: W1, m/fault/recheck, o/fault/wake-before-sleep
#[test]
fn a_fill_then_wake_never_leaves_a_sleeper() {
    explore(None, || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let sleeper = spawn(&world, |world| world.access(0));
        assert_eq!(world.fill(0).pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W1, m/wake/unread
#[test]
fn one_fill_and_wake_releases_both_sleepers_of_a_page() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 2));
        let sleepers = [spawn(&world, |world| world.access(0)), spawn(&world, |world| world.access(0))];
        assert_eq!(world.fill(0).pages_done, 1);
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        world.assert_nobody_is_left();
    });
}

// spec: W3, m/fault/recheck, o/fault/no-recheck
#[test]
fn a_page_that_arrives_before_the_sleeper_joins_means_retry() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let faulting = spawn(&world, |world| world.fault(0));
        let mut filling = world.copy(world.range);
        let userfault_engine::Step::Write(claim) = world.space.next(&mut filling, 1) else { panic!() };
        world.bring(&claim).unwrap();
        let _nobody_quiet = world.space.commit(&mut filling, claim);
        let woken = world.space.wake(world.context, world.range);
        let verdict = faulting.join().unwrap();
        if let Verdict::Sleep { waiter, ring } = verdict {
            assert_eq!(ring, Some(world.context));
            assert!(woken.iter().eq([waiter]), "asleep, and the wake did not find it");
            assert_eq!(world.space.leave(waiter, Why::Check), Left::Woken);
            seen.add(0);
        } else {
            seen.add(if verdict == Verdict::Retry { 1 } else { 2 });
            assert!(matches!(verdict, Verdict::Retry | Verdict::Present(_)), "{verdict:?}");
        }
        world.assert_nobody_is_left();
    });
    all.assert_all(3);
}

// spec: W5, W6
#[test]
fn a_late_unpark_neither_wakes_a_stranger_nor_is_lost_for_the_slots_new_owner() {
    explore(Some(3), || {
        let world = Arc::new(World::new(Protocol::Modern, 2, 1));
        // One slot: who sleeps on the second page has the slot, and the park word, of the first.
        let sleeper = spawn(&world, |world| {
            world.access(0);
            world.access(1);
        });
        let other = spawn(&world, |world| world.fill(0));
        assert_eq!(world.fill(1).pages_done, 1);
        assert_eq!(other.join().unwrap().pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
}

// spec: W13, m/fault/signal
#[test]
fn an_interrupted_sleeper_leaves_nothing_behind_whenever_the_wake_comes() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Modern, 1, 1));
        let outcome = seen.clone();
        let sleeper = spawn(&world, move |world| {
            if let Verdict::Sleep { waiter, .. } = world.fault(0) {
                let left = world.space.leave(waiter, Why::Interrupted);
                outcome.add(usize::from(left == Left::Woken));
                assert!(matches!(left, Left::Interrupted | Left::Woken), "{left:?}");
                assert_eq!(world.space.leave(waiter, Why::Check), Left::Stale);
            }
        });
        assert_eq!(world.fill(0).pages_done, 1);
        sleeper.join().unwrap();
        world.assert_nobody_is_left();
    });
    all.assert_all(2);
}

// spec: W2, o/wake/unread, o/wake/select
#[test]
fn in_original_mode_a_wake_leaves_the_sleeper_whose_word_was_not_read() {
    let seen = Seen::default();
    let all = seen.clone();
    explore(None, move || {
        let world = Arc::new(World::new(Protocol::Original { fills: false }, 1, 2));
        let (Verdict::Sleep { waiter: first, .. }, word) = (world.fault(0), 8) else { panic!() };
        world.space.delivered(world.space.take(world.context, word).unwrap());
        let late = spawn(&world, |world| world.fault(0));
        assert_eq!(world.drive(world.space.install(world.range), World::bring).pages_done, 1);
        let woken = world.space.wake(world.context, world.range);
        assert!(woken.iter().eq([first]), "the one that was read, and only it");
        assert_eq!(world.space.leave(first, Why::Check), Left::Woken);
        let verdict = late.join().unwrap();
        seen.add(usize::from(matches!(verdict, Verdict::Sleep { .. })));
        if let Verdict::Sleep { waiter, ring: Some(_) } = verdict {
            assert_eq!(world.space.leave(waiter, Why::Check), Left::Asleep, "its page is there, its word unread");
            assert!(world.space.wake(world.context, world.range).is_empty(), "nor does another wake help");
            world.space.delivered(world.space.take(world.context, word).unwrap());
            assert!(world.space.wake(world.context, PageRange::one(page(0))).iter().eq([waiter]));
            assert_eq!(world.space.leave(waiter, Why::Check), Left::Woken);
        } else if let Verdict::Sleep { waiter, ring: None } = verdict {
            // Met the installation half way: quiet, and released by its end.
            assert_eq!(world.space.leave(waiter, Why::Check), Left::Woken);
        }
        world.assert_nobody_is_left();
    });
    all.assert_all(2);
}
