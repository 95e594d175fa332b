//! What the engine says of a fault, by what the host is prepared to do: W19, W36.

use userfault_abi::PollEvents;
use userfault_engine::{Access, Cause, Left, Origin, Patience, Protocol, Step, Verdict, WaiterId, Why};
use userfault_sim::State;

use crate::common::*;

fn access(page: u64, patience: Patience, origin: Origin) -> Access {
    Access { address: at(page), write: false, patience, origin, thread: 1 }
}

// spec: W36, o/fault/no-context, o/fault/no-retry, o/fault/nowait, o/fault/sleep, o/fault/user-or-kernel, m/fault/no-wait
#[test]
fn only_who_can_wait_and_retry_sleeps_and_is_announced() {
    for protocol in BOTH {
        for origin in [Origin::User, Origin::Kernel] {
            for (page, patience, expected, announced) in [
                (9, Patience::Wait, Verdict::NotOurs, 0),
                (0, Patience::Fail, Verdict::Bus, 0),
                (0, Patience::Retry, Verdict::Retry, 0),
            ] {
                let (sim, fd) = world(protocol, 2);
                assert_eq!(sim.space().fault(&access(page, patience, origin)), expected, "{patience:?}");
                assert_eq!(sim.fdinfo(fd).unwrap().total, announced);
                assert_eq!(sim.poll(fd), PollEvents::NONE);
            }
            let (sim, fd) = world(protocol, 2);
            let verdict = sim.space().fault(&access(0, Patience::Wait, origin));
            assert!(matches!(verdict, Verdict::Sleep { ring: Some(_), .. }), "{verdict:?}");
            assert_eq!(sim.poll(fd), PollEvents::IN);
        }
    }
}

// spec: W36
#[test]
fn a_user_mode_only_context_fails_what_the_kernel_accesses() {
    let mut sim = userfault_sim::Simulator::default();
    let fd = sim.open(0x801, Protocol::Modern, userfault_engine::Privilege::UserModeOnly).unwrap();
    api(&mut sim, fd).unwrap();
    map(&mut sim, A, 1);
    register(&mut sim, fd, A, 1);
    assert_eq!(sim.space().fault(&access(0, Patience::Wait, Origin::Kernel)), Verdict::Bus);
    assert!(matches!(sim.space().fault(&access(0, Patience::Wait, Origin::User)), Verdict::Sleep { .. }));
}

// spec: W19, o/fault/preconditions, o/fault/reference
#[test]
fn names_that_outlived_what_they_named_do_nothing() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        assert_eq!(sim.space().leave(WaiterId::default(), Why::Check), Left::Stale);
        sleeper(&mut sim, 0, 0);
        let State::Asleep(waiter) = sim.observe(0) else { panic!("it sleeps") };
        let context = sim.context(fd).unwrap();
        sim.close(fd);
        // The slot goes to another sleeper; the old name does not reach it.
        let fd = ready(&mut sim, protocol);
        register(&mut sim, fd, A, 2);
        sleeper(&mut sim, 1, 1);
        for why in [Why::Check, Why::Interrupted, Why::Killed] {
            assert_eq!(sim.space().leave(waiter, why), Left::Stale);
        }
        assert!(sim.is_asleep(1));
        assert!(sim.space().wake(context, userfault_sim::pages(A, 2)).is_empty());
        assert!(sim.space().take(context, 64).is_err());
    }
}

// spec: W6, o/fault/retry-means-retry
#[test]
fn a_full_table_of_sleepers_is_no_verdict_on_the_access() {
    let mut sim =
        userfault_sim::Simulator::new(userfault_engine::Capacities { waiters: 2, registrations: 8, contexts: 2 });
    let fd = ready(&mut sim, Protocol::Modern);
    map(&mut sim, A, 4);
    register(&mut sim, fd, A, 4);
    sleeper(&mut sim, 0, 0);
    sleeper(&mut sim, 1, 1);
    assert_eq!(sim.space().fault(&access(2, Patience::Wait, Origin::User)), Verdict::Full);
    zeropage(&mut sim, fd, at(0), 1);
    assert!(matches!(sim.space().fault(&access(2, Patience::Wait, Origin::User)), Verdict::Sleep { .. }));
}

// spec: W36
#[test]
fn a_thread_that_can_bring_the_page_itself_does_so_where_its_context_says_so_and_is_not_announced() {
    let answer = access(0, Patience::Answer, Origin::User);
    let (sim, fd) = world(Protocol::Modern, 2);
    let context = sim.context(fd).unwrap();
    // Not asked for: as one that waits.
    let Verdict::Sleep { waiter, ring: Some(_) } = sim.space().fault(&answer) else { panic!() };
    assert_eq!(sim.space().leave(waiter, Why::Interrupted), Left::Interrupted);
    assert!(sim.space().answer_inline(context, true));
    let page = userfault_sim::pages(A, 1).start();
    assert_eq!(sim.space().fault(&answer), Verdict::Inline { context, page });
    assert_eq!((sim.fdinfo(fd).unwrap().total, sim.poll(fd)), (0, PollEvents::NONE));
    assert_eq!(sim.space().slots_in_use(), 0);
    // Others are announced, those who cannot wait fail, and strangers are strangers.
    for (page, patience, expected) in [
        (0, Patience::Fail, Verdict::Bus),
        (0, Patience::Retry, Verdict::Retry),
        (9, Patience::Answer, Verdict::NotOurs),
    ] {
        assert_eq!(sim.space().fault(&access(page, patience, Origin::User)), expected, "{patience:?}");
    }
    assert!(matches!(
        sim.space().fault(&access(0, Patience::Wait, Origin::User)),
        Verdict::Sleep { ring: Some(_), .. }
    ));
    assert!(sim.space().answer_inline(context, false));
    assert!(matches!(sim.space().fault(&answer), Verdict::Sleep { ring: Some(_), .. }));
}

// spec: W1
#[test]
fn a_thread_that_could_bring_the_page_waits_quietly_for_who_is_at_it() {
    let (sim, fd) = world(Protocol::Modern, 1);
    let context = sim.context(fd).unwrap();
    assert!(sim.space().answer_inline(context, true));
    let range = userfault_sim::pages(A, 1);
    let copy = userfault_engine::Fill::Copy(userfault_abi::CopyModes::NONE);
    for succeeds in [false, true] {
        let mut filling = sim.space().fill(context, range, copy).unwrap();
        let Step::Write(claim) = sim.space().next(&mut filling, 1) else { panic!() };
        let Verdict::Sleep { waiter, ring: None } = sim.space().fault(&access(0, Patience::Answer, Origin::User))
        else {
            panic!()
        };
        assert_eq!(sim.poll(fd), PollEvents::NONE);
        let woken = if succeeds {
            sim.space().commit(&mut filling, claim)
        } else {
            sim.space().abort(&mut filling, claim, Cause::SourceUnreadable)
        };
        assert_eq!(woken.iter().collect::<Vec<_>>(), [waiter]);
        assert_eq!(sim.space().leave(waiter, Why::Check), Left::Woken);
        let verdict = sim.space().fault(&access(0, Patience::Answer, Origin::User));
        let page = range.start();
        let expected = if succeeds { Verdict::Present(page) } else { Verdict::Inline { context, page } };
        assert_eq!(verdict, expected);
    }
}

// spec: m/fault/sigbus
#[test]
fn a_context_whose_faults_are_signals_and_one_without_fills_answer_nothing_inline() {
    let (sim, fd) = world(Protocol::Original { fills: false }, 1);
    let context = sim.context(fd).unwrap();
    assert!(!sim.space().answer_inline(context, true));
    let answer = access(0, Patience::Answer, Origin::User);
    assert!(matches!(sim.space().fault(&answer), Verdict::Sleep { ring: Some(_), .. }));
    assert!(!sim.space().answer_inline(userfault_engine::ContextId::default(), true));

    let mut sim = userfault_sim::Simulator::default();
    let fd = sim.open(0x800, Protocol::Modern, userfault_engine::Privilege::Full).unwrap();
    let features = userfault_abi::Features::SIGBUS.bits();
    let mut argument = userfault_abi::structs::Api { api: 0xAA, features, ioctls: 0 }.encode();
    sim.ioctl(fd, userfault_abi::request::API, &mut argument, userfault_sim::Place::Good).unwrap();
    map(&mut sim, A, 1);
    register(&mut sim, fd, A, 1);
    assert!(sim.space().answer_inline(sim.context(fd).unwrap(), true));
    assert_eq!(sim.space().fault(&answer), Verdict::Bus);
}
