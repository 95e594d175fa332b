//! Events other than faults: REMOVE, UNMAP, REMAP. FORK has a file of its own.

use std::thread;

use userfault_client::{
    Errno, Event, FaultKind, Features, Options, Progress, Region as _, RegisterModes, Stopped, Uffd as _, UffdError,
    Wait, WriteProtect,
};

use crate::outside::Raw;
use crate::support::{Events, Rescue, open, pattern, read, until_asleep, until_readable};

fn page() -> usize {
    rustix::param::page_size()
}

fn with(require: Features) -> Options {
    Options { require, ..Options::default() }
}

// spec: m/event/remove, m/event/pending, m/event/wait
#[test]
fn while_a_removal_is_unread_every_fill_says_that_an_event_waits() {
    let uffd = open!(&with(Features::EVENT_REMOVE));
    let modes = RegisterModes::MISSING | RegisterModes::WP;
    let region = uffd.map(4, modes).unwrap();
    region.copy(1, &pattern(1, 0)).unwrap().complete().unwrap();
    let mut window = region.window(0..4).unwrap();
    let base = region.base() as u64;
    thread::scope(|scope| {
        let remover = scope.spawn(|| {
            region.discard(&mut window, 1..3).unwrap();
            window
        });
        until_readable(&uffd);
        assert!(!remover.is_finished());
        let pending = Ok(Progress::stopped(0, Stopped::EventPending));
        assert_eq!(region.copy(3, &pattern(3, 0)), pending);
        assert_eq!(region.zeropage(3..4), pending);
        assert_eq!(region.poison(3..4), pending);
        let refused = UffdError::System { operation: "UFFDIO_WRITEPROTECT", errno: Errno::EAGAIN };
        assert_eq!(region.writeprotect(3..4, WriteProtect::Protect), Err(refused));
        region.wake(0..4).unwrap();

        let page = page() as u64;
        let events = read(&uffd, 1);
        assert!(
            matches!(events[..], [Event::Remove { start, end }] if (start, end) == (base + page, base + 3 * page)),
            "{events:?}"
        );
        let window = remover.join().unwrap();
        assert_eq!(region.copy(1, &pattern(1, 1)), Ok(Progress::all(1)), "it was removed");
        assert_eq!(region.copy(3, &pattern(3, 1)), Ok(Progress::all(1)));
        assert_eq!(window.as_ref()[page_range(1)], pattern(1, 1));
        assert_eq!(window.as_ref()[page_range(3)], pattern(3, 1));
    });
}

fn page_range(number: usize) -> std::ops::Range<usize> {
    number * page()..(number + 1) * page()
}

// spec: m/read/order
#[test]
fn faults_are_read_before_an_older_removal() {
    let uffd = open!(&with(Features::EVENT_REMOVE));
    let region = uffd.map(2, RegisterModes::MISSING).unwrap();
    let (mut removed, touched) = region.window(0..2).unwrap().split_before(1).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let remover = scope.spawn(|| region.discard(&mut removed, 0..1));
        until_readable(&uffd);
        let toucher = scope.spawn(|| touched.as_ref()[7]);
        until_asleep(&uffd, 1);
        let events = read(&uffd, 2);
        assert!(matches!(events[..], [Event::Fault(fault), Event::Remove { .. }] if fault.kind == FaultKind::Missing));
        remover.join().unwrap().unwrap();
        region.copy(1, &pattern(1, 0)).unwrap().complete().unwrap();
        assert_eq!(toucher.join().unwrap(), pattern(1, 0)[7]);
    });
}

// spec: m/event/unmap
#[test]
fn unmapping_registered_memory_waits_until_the_monitor_has_read_of_it() {
    let uffd = open!(&with(Features::EVENT_UNMAP));
    let memory = Raw::map(3 * page());
    memory.register(&uffd, RegisterModes::MISSING).unwrap();
    let (from, to) = (memory.start(), memory.end());
    thread::scope(|scope| {
        let unmapper = scope.spawn(|| memory.unmap());
        until_readable(&uffd);
        assert!(!unmapper.is_finished());
        let events = read(&uffd, 1);
        assert!(matches!(events[..], [Event::Unmap { start, end }] if (start, end) == (from, to)), "{events:?}");
        unmapper.join().unwrap();
    });
}

// spec: m/event/remap
#[test]
fn moving_registered_memory_tells_where_it_went() {
    let uffd = open!(&with(Features::EVENT_REMAP));
    let memory = Raw::map(2 * page());
    memory.register(&uffd, RegisterModes::MISSING).unwrap();
    let was = memory.start();
    thread::scope(|scope| {
        let mover = scope.spawn(|| memory.remap());
        let events = read(&uffd, 1);
        let moved = mover.join().unwrap();
        let [Event::Remap { from, to, len }] = events[..] else { panic!("{events:?}") };
        assert_eq!((from, to, len), (was, moved.start(), 2 * page() as u64));
        // The registration went along: a touch is a fault there.
        let toucher = scope.spawn(move || moved.read(page()));
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!(fault.address, to + page() as u64);
        crate::outside::zeropage(&uffd, fault.address);
        assert_eq!(toucher.join().unwrap(), 0);
    });
}

// spec: m/event/unmap, m/unregister/split
#[test]
fn dropping_a_region_sends_no_event_and_waits_for_nobody() {
    let uffd = open!(&with(Features::EVENT_UNMAP | Features::EVENT_REMOVE | Features::EVENT_REMAP));
    let region = uffd.map(3, RegisterModes::MISSING).unwrap();
    region.unregister(1..2).unwrap();
    let window = region.window(0..3).unwrap();
    drop(region);
    drop(window);
    drop(uffd.map_shared(2, RegisterModes::MINOR).unwrap());
    assert_eq!(uffd.read(Wait::Never, &mut Events::new()), Ok(0));
}
