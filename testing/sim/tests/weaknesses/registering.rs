//! Registering: W21 to W28.

use userfault_abi::{Errno, RegisterModes, request};
use userfault_engine::{Capacities, MappingKind, Privilege, Protocol, RegisterError, UnregisterError};
use userfault_sim::{PAGE, Protection, Simulator, State, pages};

use crate::common::*;

/// Numbers that look random, from a seed that is printed when something fails.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

// spec: W21, o/unregister/any-context, m/unregister/other
#[test]
fn a_context_cannot_unregister_what_it_does_not_own() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        let other = ready(&mut sim, protocol);
        map(&mut sim, at(2), 2);
        register(&mut sim, other, at(2), 2);
        for (address, count) in [(at(0), 4), (at(1), 2), (at(2), 1)] {
            assert_eq!(range(&mut sim, fd, request::UNREGISTER, address, count), Errno::EINVAL.raw());
        }
        sleeper(&mut sim, 0, 0);
        sleeper(&mut sim, 1, 3);
    }
}

// spec: W22, o/register/partial, m/register/atomic
#[test]
fn a_failed_register_changes_nothing() {
    // Every third page is mapped, so registering needs one record for each; there are ever more.
    for room in 0..8 {
        let mut sim = Simulator::new(Capacities { waiters: 8, registrations: room, contexts: 2 });
        let fd = ready(&mut sim, Protocol::Modern);
        for page in 0..5 {
            map(&mut sim, at(3 * page), 1);
        }
        let result = sim.register(fd, pages(A, 15), RegisterModes::MISSING);
        let expected = if room < 5 { Err(RegisterError::NoMemory) } else { Ok(()) };
        assert_eq!(result.map(|_| ()), expected, "room for {room}");
        assert_eq!(sim.space().registrations(), if room < 5 { 0 } else { 5 });
    }
}

// spec: W22, o/register/partial
#[test]
fn a_failed_unregister_changes_nothing() {
    let mut sim = Simulator::new(Capacities { waiters: 8, registrations: 1, contexts: 2 });
    let fd = ready(&mut sim, Protocol::Modern);
    map(&mut sim, A, 5);
    register(&mut sim, fd, A, 5);
    sleeper(&mut sim, 0, 2);
    assert_eq!(range(&mut sim, fd, request::UNREGISTER, at(1), 3), Errno::ENOMEM.raw());
    assert_eq!(sim.space().registrations(), 1);
    assert!(sim.is_asleep(0), "and nobody is woken");
    assert_eq!(range(&mut sim, fd, request::UNREGISTER, at(1), 4), 0);
}

// spec: W23, o/register/merge, m/register/split
#[test]
fn the_map_is_canonical_after_any_sequence() {
    let seed = 0x9E37_79B9_7F4A_7C15;
    println!("seed {seed:#x}");
    let mut numbers = Numbers(seed);
    let mut sim = Simulator::default();
    let fds = [ready(&mut sim, Protocol::Modern), ready(&mut sim, Protocol::Modern)];
    map(&mut sim, A, 32);
    let mut model: [Option<(usize, RegisterModes)>; 32] = [None; 32];
    for step in 0..5_000 {
        let (start, owner) = (numbers.next(32), usize::try_from(numbers.next(2)).unwrap());
        let count = 1 + numbers.next(32 - start);
        let span = usize::try_from(start).unwrap()..usize::try_from(start + count).unwrap();
        let foreign = model[span.clone()].iter().flatten().any(|(other, _)| *other != owner);
        if numbers.next(3) == 0 {
            let result = range(&mut sim, fds[owner], request::UNREGISTER, at(start), count);
            assert_eq!(result == 0, !foreign, "step {step}");
            if !foreign {
                model[span].fill(None);
            }
        } else {
            let modes = [RegisterModes::MISSING, RegisterModes::WP, RegisterModes::MISSING | RegisterModes::WP];
            let modes = modes[usize::try_from(numbers.next(3)).unwrap()];
            let result = sim.register(fds[owner], pages(at(start), count), modes);
            assert_eq!(result.is_ok(), !foreign, "step {step}");
            if !foreign {
                for page in &mut model[span] {
                    let kept = page.is_some_and(|(_, held)| held.contains(modes));
                    *page = if kept { *page } else { Some((owner, modes)) };
                }
            }
        }
        let runs = model.chunk_by(|one, two| one == two).filter(|run| run[0].is_some()).count();
        assert_eq!(sim.space().registrations(), runs, "step {step}");
        for (page, held) in (0..).zip(model) {
            let found = sim.space().registration(userfault_engine::Page::new((A + page * PAGE) / PAGE));
            assert_eq!(found.map(|(_, found)| found.modes), held.map(|(_, modes)| modes), "step {step}, page {page}");
        }
    }
}

// spec: W24, o/register/answer-fault, m/register/efault-answer
#[test]
fn a_registration_whose_answer_is_lost_stays() {
    for protocol in BOTH {
        let mut sim = Simulator::default();
        let fd = ready(&mut sim, protocol);
        map(&mut sim, A, 1);
        let range = userfault_abi::Range { start: A, len: PAGE };
        let mut argument = userfault_abi::Register { range, mode: 1, ioctls: 7 }.encode();
        let result = sim.ioctl(fd, request::REGISTER, &mut argument, userfault_sim::Place::ReadOnly);
        assert_eq!(result, Err(Errno::EFAULT));
        sleeper(&mut sim, 0, 0);
    }
}

// spec: W25, o/unregister/scan, m/unregister/order
#[test]
fn a_range_with_other_memory_in_it_cannot_be_unregistered() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 3);
        sim.map(at(1), 1, MappingKind::File, Protection::ReadWrite);
        assert_eq!(range(&mut sim, fd, request::UNREGISTER, A, 3), Errno::EINVAL.raw());
        assert_eq!(range(&mut sim, fd, request::UNREGISTER, A, 1), 0);
    }
}

// spec: W26, o/register/scan
#[test]
fn only_memory_that_the_host_calls_private_and_anonymous_is_registered_or_shared_for_missing_pages() {
    let wrong = Err(RegisterError::WrongKind);
    for (kind, modern, original) in [
        (MappingKind::PrivateAnonymous, Ok(()), Ok(())),
        (MappingKind::Shared, Ok(()), wrong),
        (MappingKind::HugePages, wrong, wrong),
        (MappingKind::File, wrong, wrong),
        (MappingKind::Unknown, wrong, wrong),
    ] {
        for protocol in BOTH {
            let mut sim = Simulator::default();
            let fd = ready(&mut sim, protocol);
            sim.map(A, 1, kind, Protection::ReadWrite);
            let expected = if protocol == Protocol::Modern { modern } else { original };
            assert_eq!(sim.register(fd, pages(A, 1), RegisterModes::MISSING).map(|_| ()), expected, "{kind:?}");
            if protocol == Protocol::Modern && kind == MappingKind::Shared {
                let both = RegisterModes::MISSING | RegisterModes::WP;
                assert_eq!(sim.register(fd, pages(A, 1), both).map(|_| ()), wrong);
                assert_eq!(range(&mut sim, fd, request::UNREGISTER, A, 1), 0);
            }
        }
    }
}

// spec: W27, o/wake/no-preconditions, m/wake/order
#[test]
fn wake_works_on_a_range_that_is_gone() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        assert_eq!(range(&mut sim, fd, request::UNREGISTER, A, 1), 0);
        wake(&mut sim, fd, A, 1);
        sim.unmap(A, 1);
        wake(&mut sim, fd, A, 1);
    }
}

// spec: W28, o/register/atomic-scan
#[test]
fn a_duplicate_keeps_the_registration_and_its_close_ends_it() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 1);
        let owner = sim.context(fd).unwrap();
        let other = ready(&mut sim, protocol);
        sim.duplicate(fd);
        sim.close(fd);
        let busy = sim.register(other, pages(A, 1), RegisterModes::MISSING);
        assert_eq!(busy, Err(RegisterError::Busy(owner)), "and it is said by whom");
        sim.close(fd);
        assert!(sim.register(other, pages(A, 1), RegisterModes::MISSING).is_ok());
    }
}

// spec: W33, o/range/whose
#[test]
fn ranges_are_judged_by_the_contexts_address_space() {
    let limits = userfault_engine::Limits { page_shift: 12, lowest: 0x1_0000, size: 0xC000_0000 };
    for (start, valid) in [(0xBFFF_F000_u64, true), (0xC000_0000, false), (0x7FFF_FFFF_E000, false)] {
        assert_eq!(limits.parse(start, PAGE, true).is_ok(), valid, "{start:#x}");
    }
}

// spec: W21, m/unregister/other
#[test]
fn the_error_of_a_foreign_range_names_its_owner() {
    let (mut sim, fd) = world(Protocol::Modern, 1);
    let other = ready(&mut sim, Protocol::Modern);
    let (owner, stranger) = (sim.context(fd).unwrap(), sim.context(other).unwrap());
    let mapping = userfault_engine::Mapping { range: pages(A, 1), kind: MappingKind::PrivateAnonymous, tag: 2 };
    let refused = sim.space().unregister(stranger, pages(A, 1), &[mapping]);
    assert!(matches!(refused, Err(UnregisterError::Foreign(named)) if named == owner));
    let _ = (Privilege::Full, State::Idle);
}
