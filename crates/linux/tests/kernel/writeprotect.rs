//! Write protection, answered by a monitor and by the kernel.

use std::thread;

use userfault_client::{
    Event, FaultKind, Features, Options, Progress, Region as _, RegisterModes, Uffd as _, UffdError, WriteProtect,
};

use crate::support::{Rescue, open, pattern, patterns, read, until_asleep};

fn page() -> usize {
    rustix::param::page_size()
}

const BOTH: RegisterModes = RegisterModes::MISSING.union(RegisterModes::WP);

// spec: m/fault/wp, m/writeprotect/wake
#[test]
fn a_write_to_a_protected_page_waits_until_the_protection_is_lifted() {
    let uffd = open!();
    let region = uffd.map(3, BOTH).unwrap();
    region.copy(0, &patterns(0..3, 0)).unwrap().complete().unwrap();
    region.writeprotect(0..2, WriteProtect::Protect).unwrap();
    let mut window = region.window(0..3).unwrap();
    assert_eq!(window.as_ref(), patterns(0..3, 0), "reads pass");
    window.as_mut()[2 * page()] = 0x5A; // and so do writes elsewhere
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let writer = scope.spawn(|| window.as_mut()[page() + 9] = 0xA5);
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!(region.page_at(fault.address), Some(1));
        assert_eq!((fault.kind, fault.write), (FaultKind::WriteProtect, true));
        region.writeprotect(1..2, WriteProtect::LiftWithoutWake).unwrap();
        assert_eq!(uffd.info().unwrap().total, 1);
        region.writeprotect(1..2, WriteProtect::Lift).unwrap();
        writer.join().unwrap();
    });
    let mut expected = patterns(0..3, 0);
    expected[page() + 9] = 0xA5;
    expected[2 * page()] = 0x5A;
    assert_eq!(window.as_ref(), expected);
}

// spec: m/copy/wp
#[test]
fn a_page_copied_protected_is_readable_and_raises_the_first_write() {
    let uffd = open!();
    let region = uffd.map(1, BOTH).unwrap();
    assert_eq!(region.copy_protected(0, &pattern(0, 0)), Ok(Progress::all(1)));
    let mut window = region.window(0..1).unwrap();
    assert_eq!(window.as_ref(), pattern(0, 0));
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let writer = scope.spawn(|| window.as_mut()[0] = 0);
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!(fault.kind, FaultKind::WriteProtect);
        region.writeprotect(0..1, WriteProtect::Lift).unwrap();
        writer.join().unwrap();
    });
    assert_eq!((window.as_ref()[0], &window.as_ref()[1..]), (0, &pattern(0, 0)[1..]));
}

// spec: m/copy/order, m/writeprotect/order
#[test]
fn protection_without_its_registration_is_refused() {
    let uffd = open!();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let refused = UffdError::ModesUnsupported { modes: RegisterModes::WP };
    assert_eq!(region.writeprotect(0..1, WriteProtect::Protect), Err(refused.clone()));
    assert_eq!(region.copy_protected(0, &pattern(0, 0)), Err(refused));
    assert_eq!(region.written(0..1), Err(UffdError::FeaturesMissing { missing: Features::WP_ASYNC }));
    assert_eq!(region.copy(0, &pattern(0, 0)), Ok(Progress::all(1)), "nothing was filled");
}

// spec: m/writeprotect/anon
#[test]
fn only_with_unpopulated_protection_a_missing_page_is_marked() {
    for (wish, kind) in [(Features::NONE, None), (Features::WP_UNPOPULATED, Some(FaultKind::WriteProtect))] {
        let uffd = open!(&Options { require: wish, ..Options::default() });
        let region = uffd.map(1, RegisterModes::WP).unwrap();
        region.writeprotect(0..1, WriteProtect::Protect).unwrap();
        let mut window = region.window(0..1).unwrap();
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let writer = scope.spawn(|| window.as_mut()[1] = 1);
            if let Some(kind) = kind {
                until_asleep(&uffd, 1);
                let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
                assert_eq!(fault.kind, kind);
                region.writeprotect(0..1, WriteProtect::Lift).unwrap();
            }
            writer.join().unwrap();
        });
        assert_eq!(window.as_ref()[..3], [0, 1, 0]);
    }
}

// spec: m/writeprotect/async
#[test]
fn with_asynchronous_protection_exactly_the_written_pages_are_found() {
    let uffd = open!(&Options { require: Features::WP_ASYNC, ..Options::default() });
    let region = uffd.map(300, BOTH).unwrap();
    region.copy(0, &patterns(0..300, 0)).unwrap().complete().unwrap();
    region.writeprotect(0..300, WriteProtect::Protect).unwrap();
    assert_eq!(region.written(0..300), Ok(vec![]));
    let mut window = region.window(0..300).unwrap();
    // Every second page: more runs than one scan returns. No message, nobody waits.
    let mut expected = patterns(0..300, 0);
    for number in (1..300).step_by(2) {
        window.as_mut()[number * page() + 1] = 0;
        expected[number * page() + 1] = 0;
    }
    window.as_mut()[0] = 0;
    expected[0] = 0;
    let runs: Vec<_> = std::iter::once(0..2).chain((3..300).step_by(2).map(|number| number..number + 1)).collect();
    assert_eq!(region.written(0..300), Ok(runs.clone()));
    assert_eq!(region.written(2..4), Ok(Vec::from_iter(Some(3..4))));
    assert_eq!(region.take_written(0..300), Ok(runs));
    assert_eq!(region.take_written(0..300), Ok(vec![]));
    window.as_mut()[7 * page()..9 * page()].fill(3);
    expected[7 * page()..9 * page()].fill(3);
    assert_eq!(region.take_written(0..300), Ok(Vec::from_iter(Some(7..9))));
    assert_eq!(window.as_ref(), expected);
    assert_eq!(uffd.info().unwrap().total, 0);
}
