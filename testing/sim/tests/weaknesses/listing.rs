//! Listing who sleeps, and on what.

use userfault_engine::{Access, Capacities, Origin, PageState, Pages as _, Patience, Sleeper, Told, Why};
use userfault_sim::{PAGE, Simulator, State};

use crate::common::*;

fn all(sim: &Simulator) -> Vec<Sleeper> {
    let mut found = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let batch = sim.space().sleepers(from);
        found.extend(batch.iter().copied());
        next = batch.next;
    }
    found
}

#[test]
fn a_listing_has_each_sleeper_once_with_what_became_of_its_message() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 4);
        assert_eq!(all(&sim), []);
        (0..3).for_each(|thread| sleeper(&mut sim, thread, thread as u64));
        let told = |sim: &Simulator| all(sim).iter().map(|sleeper| sleeper.told).collect::<Vec<_>>();
        assert_eq!(told(&sim), [Told::Unread; 3]);
        assert_eq!(read(&mut sim, fd, protocol).len(), 3);
        assert_eq!(told(&sim), [Told::Read; 3]);
        for (page, sleeper) in all(&sim).into_iter().enumerate() {
            let State::Asleep(waiter) = sim.observe(page) else { panic!("it sleeps") };
            assert_eq!((sleeper.waiter, sleeper.address / PAGE * PAGE), (waiter, at(page as u64)));
            assert_eq!((sleeper.context, sleeper.thread), (sim.context(fd), userfault_sim::thread_id(page)));
        }
        zeropage(&mut sim, fd, at(1), 1);
        let _on_its_way = sim.observe(1);
        let left: Vec<_> = all(&sim).iter().map(|sleeper| sleeper.address / PAGE * PAGE).collect();
        assert_eq!(left, [at(0), at(2)]);
    }
}

#[test]
fn who_was_woken_and_has_not_left_yet_is_not_listed_nor_is_a_slot_that_is_free() {
    let (sim, fd) = world(ORIGINAL, 2);
    let access = Access { address: at(0) + 5, write: true, patience: Patience::Wait, origin: Origin::User, thread: 7 };
    let userfault_engine::Verdict::Sleep { waiter, .. } = sim.space().fault(&access) else { panic!("it sleeps") };
    let [found] = all(&sim)[..] else { panic!("one sleeper") };
    assert_eq!((found.waiter, found.address, found.thread), (waiter, at(0) + 5, 7));
    assert!(found.flags.contains(userfault_abi::PagefaultFlags::WRITE));
    let woken = sim.space().wake_all(sim.context(fd).unwrap());
    assert_eq!((woken.iter().count(), all(&sim).len()), (1, 0));
    let _left = sim.space().leave(waiter, Why::Check);
    assert_eq!(all(&sim), []);
}

#[test]
fn who_waits_for_a_change_to_end_belongs_to_nobody() {
    let (sim, _) = world(ORIGINAL, 2);
    let page = userfault_sim::pages(at(1), 1).start();
    sim.space().pages().swap(page, PageState::Missing, PageState::Changing).unwrap();
    let _asleep = sim.space().await_page(page, 3);
    let [found] = all(&sim)[..] else { panic!("one sleeper") };
    assert_eq!((found.told, found.context, found.address, found.thread), (Told::Nobody, None, at(1), 3));
}

#[test]
fn a_batch_costs_the_same_however_many_sleep_and_all_of_them_are_found() {
    let batch_of = |sleepers: u32| {
        let waiters = sleepers as usize + 8;
        let mut sim = Simulator::new(Capacities { waiters, registrations: 8, contexts: 2 });
        let fd = ready(&mut sim, ORIGINAL);
        map(&mut sim, A, u64::from(sleepers));
        register(&mut sim, fd, A, u64::from(sleepers));
        for page in 0..u64::from(sleepers) {
            let access =
                Access { address: at(page), write: false, patience: Patience::Wait, origin: Origin::User, thread: 1 };
            let _asleep = sim.space().fault(&access);
        }
        assert_eq!(
            all(&sim).iter().map(|found| found.address).collect::<Vec<_>>(),
            (0..u64::from(sleepers)).map(at).collect::<Vec<_>>()
        );
        let before = userfault_sim::steps();
        let _batch = sim.space().sleepers(0);
        userfault_sim::steps() - before
    };
    assert_eq!(batch_of(100), batch_of(5000));
}
