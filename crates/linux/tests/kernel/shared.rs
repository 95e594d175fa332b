//! Shared memory: minor faults, CONTINUE, and the file beside the mapping.

use std::thread;

use userfault_abi::{ContinueModes, CopyModes, PoisonModes, ZeropageModes};
use userfault_client::{
    Errno, Event, FaultKind, Progress, RegisterModes, Shared as _, Stopped, UffdError, WriteProtect,
};
use userfault_linux::FileRegion;

use crate::support::{open, pattern, patterns, read, until_asleep};

fn page() -> usize {
    rustix::param::page_size()
}

const ALL: RegisterModes = RegisterModes::MISSING.union(RegisterModes::MINOR).union(RegisterModes::WP);

fn contents(region: &FileRegion, pages: std::ops::Range<usize>) -> Vec<u8> {
    let shared = region.shared(pages).unwrap();
    let mut bytes = vec![0; shared.len_bytes()];
    shared.read(0, &mut bytes);
    bytes
}

/// As `support::Rescue`.
struct Rescue<'a>(&'a FileRegion);

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.unregister(0..self.0.pages());
        }
    }
}

// spec: m/fault/file, m/continue/effect
#[test]
fn a_page_that_the_file_has_is_a_minor_fault_and_continued_with_every_byte() {
    let uffd = open!();
    let region = uffd.map_shared(3, ALL).unwrap();
    region.populate(0, &patterns(0..2, 0)).unwrap();
    let shared = region.shared(0..3).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| shared.compare(page(), &pattern(1, 0)));
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!((fault.kind, fault.write), (FaultKind::Minor, false));
        assert_eq!(region.page_at(fault.address), Some(1));
        assert_eq!(region.continue_pages(0..2, ContinueModes::NONE), Ok(Progress::all(2)));
        assert_eq!(reader.join().unwrap(), None);

        let reader = scope.spawn(|| shared.compare(2 * page(), &pattern(2, 0)));
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!(fault.kind, FaultKind::Missing);
        assert_eq!(region.copy(2, &pattern(2, 0), CopyModes::NONE), Ok(Progress::all(1)));
        assert_eq!(reader.join().unwrap(), None);
    });
    assert_eq!(contents(&region, 0..3), patterns(0..3, 0));
}

// spec: m/continue/errors, m/copy/shared, m/zeropage/kind
#[test]
fn fills_of_shared_memory_say_what_stopped_them() {
    let uffd = open!();
    let region = uffd.map_shared(6, ALL).unwrap();
    region.populate(0, &patterns(0..2, 0)).unwrap();
    let hole = Stopped::Other(Errno::EFAULT);
    assert_eq!(region.continue_pages(0..4, ContinueModes::NONE), Ok(Progress::stopped(2, hole)));
    let present = Progress::stopped(0, Stopped::AlreadyPresent);
    assert_eq!(region.continue_pages(1..2, ContinueModes::NONE), Ok(present));
    assert_eq!(region.zeropage(2..4, ZeropageModes::NONE), Ok(Progress::all(2)));
    // In the file, though not mapped: present for a copy, not for poison.
    region.populate(4, &patterns(4..6, 0)).unwrap();
    assert_eq!(region.copy(4, &pattern(4, 9), CopyModes::NONE), Ok(present));
    assert_eq!(region.poison(5..6, PoisonModes::NONE), Ok(Progress::all(1)));
    assert_eq!(region.continue_pages(4..5, ContinueModes::NONE), Ok(Progress::all(1)));
    region.unmap(5..6).unwrap();
    assert_eq!(region.continue_pages(5..6, ContinueModes::NONE), Ok(Progress::all(1)));
    // Reserved room is present, too, though nobody has written to it.
    let reserved = open!().map_shared(1, RegisterModes::MISSING).unwrap();
    rustix::fs::fallocate(&reserved, rustix::fs::FallocateFlags::KEEP_SIZE, 0, page() as u64).unwrap();
    assert_eq!(reserved.copy(0, &pattern(0, 9), CopyModes::NONE), Ok(present));
    let expected = [patterns(0..2, 0), vec![0; 2 * page()], patterns(4..6, 0)].concat();
    assert_eq!(contents(&region, 0..6), expected);
}

// spec: m/register/populated, m/event/remove-not
#[test]
fn an_unmapped_page_is_minor_again_and_a_punched_one_missing() {
    let uffd = open!();
    let region = uffd.map_shared(2, ALL).unwrap();
    region.copy(0, &patterns(0..2, 0), CopyModes::NONE).unwrap().complete().unwrap();
    region.unmap(0..1).unwrap();
    region.punch(1..2).unwrap();
    let shared = region.shared(0..2).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        for (number, kind) in [(0, FaultKind::Minor), (1, FaultKind::Missing)] {
            let reader = scope.spawn({
                let shared = &shared;
                move || shared.compare(number * page(), &pattern(number, number))
            });
            let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
            assert_eq!(fault.kind, kind);
            let answer = match kind {
                FaultKind::Minor => region.continue_pages(0..1, ContinueModes::NONE),
                FaultKind::Missing | FaultKind::WriteProtect => region.copy(1, &pattern(1, 1), CopyModes::NONE),
            };
            assert_eq!(answer, Ok(Progress::all(1)));
            assert_eq!(reader.join().unwrap(), None);
        }
    });
}

// spec: m/writeprotect/shared, m/continue/effect
#[test]
fn shared_memory_can_be_protected_and_written_beside_the_protection() {
    let uffd = open!();
    let region = uffd.map_shared(2, ALL).unwrap();
    region.populate(0, &patterns(0..2, 0)).unwrap();
    assert_eq!(region.continue_pages(0..2, ContinueModes::WP), Ok(Progress::all(2)));
    let shared = region.shared(0..2).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let writer = scope.spawn(|| shared.write(8, &[1; 8]));
        until_asleep(&uffd, 1);
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!(fault.kind, FaultKind::WriteProtect);
        region.populate(1, &pattern(1, 1)).unwrap();
        region.writeprotect(0..2, WriteProtect::Lift).unwrap();
        writer.join().unwrap();
    });
    let mut expected = [pattern(0, 0), pattern(1, 1)].concat();
    expected[8..16].fill(1);
    assert_eq!(contents(&region, 0..2), expected);
    let mut file = vec![0; 2 * page()];
    rustix::io::pread(&region, &mut file, 0).unwrap();
    assert_eq!(file, expected, "the file has the same");
}

// spec: m/register/kinds
#[test]
fn what_shared_memory_lacks_is_refused_by_name() {
    let uffd = open!();
    let region = uffd.map_shared(1, RegisterModes::MINOR).unwrap();
    let refused = Err(UffdError::ModesUnsupported { modes: RegisterModes::WP });
    assert_eq!(region.continue_pages(0..1, ContinueModes::WP), refused);
    assert_eq!(region.populate(1, &pattern(0, 0)), Err(UffdError::OutsideRegion { asked: 1..2, pages: 1 }));
    let modes = RegisterModes::from_bits(8);
    assert_eq!(uffd.map_shared(1, modes).unwrap_err(), UffdError::ModesUnsupported { modes });
    // Its length is sealed.
    assert_eq!(rustix::fs::ftruncate(&region, 0), Err(rustix::io::Errno::PERM));
}
