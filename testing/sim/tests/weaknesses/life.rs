//! Address spaces and life time: W29 to W34, and opening.

use userfault_abi::{Errno, OpenFlags, PollEvents, request};
use userfault_engine::{Capacities, MappingKind, OpenError, Privilege, Protocol, Verdict};
use userfault_sim::{Protection, Simulator, State};

use crate::common::*;

// spec: W29, o/release/outlives, m/close/exit, m/poll/exit, m/open/mm, m/api/gone
#[test]
fn a_context_outlives_its_address_space_without_holding_it() {
    let (mut sim, fd) = world(Protocol::Modern, 2);
    let early = sim.open(0x800, Protocol::Modern, Privilege::Full).unwrap();
    sleeper(&mut sim, 0, 0);
    sim.exit();
    assert_eq!(sim.observe(0), State::Killed);
    assert_eq!((sim.space().asleep(), sim.space().slots_in_use(), sim.space().registrations()), (0, 0, 0));
    assert_eq!(sim.poll(fd), PollEvents::NONE, "no hang-up");
    assert_eq!(range(&mut sim, fd, request::UNREGISTER, A, 1), Errno::ENOMEM.raw());
    assert_eq!(range(&mut sim, fd, request::WAKE, A, 1), 0);
    assert_eq!(range(&mut sim, fd, request::WAKE, A, 0), Errno::EINVAL.raw(), "validation comes first");
    let range_of = userfault_abi::Range { start: A, len: 4096 };
    let untouched = 0x55;
    let mut zeropage = userfault_abi::Zeropage { range: range_of, mode: 0, zeropage: untouched }.encode();
    let place = userfault_sim::Place::Good;
    assert_eq!(sim.ioctl(fd, request::ZEROPAGE, &mut zeropage, place), Err(Errno::ESRCH));
    assert_eq!(userfault_abi::Zeropage::decode(&zeropage).unwrap().zeropage, untouched);
    let mut protect = userfault_abi::Writeprotect { range: range_of, mode: 1 }.encode();
    assert_eq!(sim.ioctl(fd, request::WRITEPROTECT, &mut protect, place), Err(Errno::ESRCH));
    let mut register = userfault_abi::Register { range: range_of, mode: 1, ioctls: 0 }.encode();
    assert_eq!(sim.ioctl(fd, request::REGISTER, &mut register, place), Err(Errno::ENOMEM));
    assert_eq!(sim.read(fd, 32, place), Err(Errno::EAGAIN));
    assert_eq!(api(&mut sim, fd), Err(Errno::EINVAL));
    assert_eq!(api(&mut sim, early), Ok(()), "the handshake still works");
}

// spec: W30, o/open/rollback, o/open/memory
#[test]
fn an_opening_that_is_dropped_never_happened() {
    let mut sim = Simulator::new(Capacities { waiters: 1, registrations: 1, contexts: 1 });
    for _ in 0..10 {
        let opening = sim.space().open(OpenFlags::NONE, ORIGINAL, Privilege::Full);
        assert!(opening.is_ok(), "the one before gave its place back");
        drop(opening);
    }
    let fd = sim.open(0, ORIGINAL, Privilege::Full).unwrap();
    assert!(matches!(sim.space().open(OpenFlags::NONE, ORIGINAL, Privilege::Full), Err(OpenError::NoMemory)));
    sim.close(fd);
    assert!(sim.open(0, ORIGINAL, Privilege::Full).is_ok());
}

// spec: W31, o/fault/released, o/release/sigbus-window, o/release/before-lock
#[test]
fn closing_never_raises_a_bus_error() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        let context = sim.context(fd).unwrap();
        sleeper(&mut sim, 0, 0);
        assert!(sim.space().begin_release(context));
        // Between "released" and the clearing of the registrations.
        let access = userfault_engine::Access {
            address: at(1),
            write: true,
            patience: userfault_engine::Patience::Wait,
            origin: userfault_engine::Origin::User,
            thread: 1,
        };
        assert_eq!(sim.space().fault(&access), Verdict::Retry, "{protocol:?}");
        sim.finish_close(context);
        assert_eq!(sim.observe(0), State::Done(0));
        assert_eq!(sim.space().fault(&access), Verdict::NotOurs);
    }
}

// spec: W34, m/event/none
#[test]
fn a_mapping_removed_under_a_sleeper_lets_it_go() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 3);
        sleeper(&mut sim, 0, 1);
        sleeper(&mut sim, 1, 2);
        sim.unmap(at(1), 1);
        assert_eq!(sim.observe(0), State::Segv(at(1)));
        assert!(sim.is_asleep(1));
        assert_eq!(read(&mut sim, fd, protocol), [2], "its word went with it");
        sim.map(at(1), 1, MappingKind::PrivateAnonymous, Protection::ReadWrite);
        assert_eq!(load(&mut sim, 0, 1), State::Done(0), "what is mapped there later is not registered");
    }
}

// spec: W34
#[test]
fn a_moved_mapping_is_not_registered_any_more_and_keeps_its_contents() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        sim.populate(at(0), &[7; 4096]);
        sleeper(&mut sim, 0, 1);
        sim.remap(A, at(16), 2);
        assert_eq!(sim.observe(0), State::Segv(at(1)));
        assert_eq!(load(&mut sim, 0, 16), State::Done(0x0707_0707_0707_0707));
        assert_eq!(load(&mut sim, 0, 17), State::Done(0));
        assert!(read(&mut sim, fd, protocol).is_empty());
    }
}

// spec: W34
#[test]
fn discarded_pages_fault_again_and_a_fork_leaves_the_parent_alone() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        sim.populate(at(0), &[7; 4096]);
        assert!(matches!(load(&mut sim, 0, 0), State::Done(_)));
        sim.discard(at(0), 1);
        sleeper(&mut sim, 0, 0);
        assert_eq!(sim.fork(), [userfault_sim::pages(A, 2)], "the child treats these as unregistered");
        sleeper(&mut sim, 1, 1);
        assert_eq!(read(&mut sim, fd, protocol), [0, 1]);
    }
}

// spec: o/release/order, o/release/sleepers, m/close/last
#[test]
fn a_close_with_more_sleepers_than_one_batch_wakes_them_all() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 4);
        (0..100).for_each(|thread| sleeper(&mut sim, thread, u64::try_from(thread).unwrap() % 4));
        sim.read(fd, 320, userfault_sim::Place::Good).unwrap();
        sim.close(fd);
        assert!((0..100).all(|thread| sim.observe(thread) == State::Done(0)), "{protocol:?}");
        assert_eq!((sim.space().asleep(), sim.space().slots_in_use(), sim.space().registrations()), (0, 0, 0));
    }
}
