//! COPY, ZEROPAGE, POISON, MOVE, WAKE, UNREGISTER and discarding, on private memory.

use std::thread;

use userfault_abi::MoveModes;
use userfault_client::{
    Errno, Event, FaultKind, Progress, Region as _, RegisterModes, Shared as _, Stopped, Uffd as _, UffdError,
};
use userfault_linux::{Region, Uffd};

use crate::support::{Rescue, full, is_alone, open, path_of, pattern, patterns, read, start, until, until_asleep};

fn page() -> usize {
    rustix::param::page_size()
}

fn map(uffd: &Uffd, pages: usize) -> Region {
    uffd.map(pages, RegisterModes::MISSING).unwrap()
}

// spec: m/fault/missing, m/fault/address, m/fill/wake
#[test]
fn a_copy_answers_a_sleeping_reader_with_every_byte() {
    let uffd = open!();
    let region = map(&uffd, 4);
    let window = region.window(0..4).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        for number in 0..4 {
            let reader = scope.spawn({
                let window = &window;
                move || window.as_ref()[number * page() + 5]
            });
            let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
            assert_eq!(region.page_at(fault.address), Some(number));
            assert_eq!(fault.address % page() as u64, 0);
            assert_eq!((fault.kind, fault.write, fault.thread), (FaultKind::Missing, false, None));
            assert_eq!(region.copy(number, &pattern(number, 1)), Ok(Progress::all(1)));
            assert_eq!(reader.join().unwrap(), pattern(number, 1)[5]);
        }
    });
    assert_eq!(window.as_ref(), patterns(0..4, 1));
}

// spec: m/fault/two, m/fill/wake
#[test]
fn one_fill_wakes_every_sleeper_of_its_pages() {
    let uffd = open!();
    let region = map(&uffd, 2);
    let window = region.window(0..2).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let readers: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn({
                    let window = &window;
                    move || window.as_ref()[n % 2 * page()]
                })
            })
            .collect();
        until_asleep(&uffd, 6);
        assert_eq!(read(&uffd, 6).len(), 6);
        assert_eq!(region.copy(0, &patterns(0..2, 0)), Ok(Progress::all(2)));
        for (n, reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.join().unwrap(), pattern(n % 2, 0)[0]);
        }
    });
}

// spec: m/fill/wake, m/wake/range
#[test]
fn a_copy_without_wake_leaves_the_sleeper_to_a_wake() {
    let uffd = open!();
    let region = map(&uffd, 2);
    let window = region.window(0..2).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| window.as_ref()[0]);
        until_asleep(&uffd, 1);
        assert_eq!(region.copy_without_wake(0, &patterns(0..2, 0)), Ok(Progress::all(2)));
        assert_eq!(uffd.info().unwrap().total, 1);
        // Who meets a present page wakes nobody ...
        assert_eq!(region.copy(0, &pattern(0, 9)), Ok(Progress::stopped(0, Stopped::AlreadyPresent)));
        assert_eq!(uffd.info().unwrap().total, 1);
        // ... nor does a wake of other pages.
        region.wake(1..2).unwrap();
        assert_eq!(uffd.info().unwrap().total, 1);
        region.wake(0..1).unwrap();
        assert_eq!(reader.join().unwrap(), pattern(0, 0)[0]);
    });
    assert_eq!(window.as_ref(), patterns(0..2, 0));
}

// spec: m/fill/result, m/copy/partial
#[test]
fn a_copy_that_meets_a_present_page_reports_the_pages_before_it() {
    let uffd = open!();
    let region = map(&uffd, 5);
    assert_eq!(region.copy(2, &pattern(2, 0)), Ok(Progress::all(1)));
    assert_eq!(region.copy(0, &patterns(0..5, 1)), Ok(Progress::stopped(2, Stopped::AlreadyPresent)));
    assert_eq!(region.copy(2, &patterns(2..5, 1)), Ok(Progress::stopped(0, Stopped::AlreadyPresent)));
    assert_eq!(region.copy(3, &patterns(3..5, 1)), Ok(Progress::all(2)));
    let expected = [patterns(0..2, 1), pattern(2, 0), patterns(3..5, 1)].concat();
    assert_eq!(region.window(0..5).unwrap().as_ref(), expected);
}

// spec: m/fill/wake, m/fault/retry, m/fill/one-mapping
#[test]
fn copying_what_is_missing_wakes_the_sleepers_of_pages_that_others_filled() {
    let uffd = open!();
    let region = map(&uffd, 6);
    let window = region.window(0..6).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| window.as_ref()[3 * page()]);
        until_asleep(&uffd, 1);
        for number in [0, 3, 5] {
            region.copy_without_wake(number, &pattern(number, 1)).unwrap().complete().unwrap();
        }
        assert_eq!(uffd.info().unwrap().total, 1);
        assert_eq!(region.copy_missing(0, &patterns(0..6, 0)), Ok(Progress::all(6)));
        assert_eq!(reader.join().unwrap(), pattern(3, 1)[0]);
    });
    let expected: Vec<_> =
        (0..6).flat_map(|number| pattern(number, usize::from([0, 3, 5].contains(&number)))).collect();
    assert_eq!(window.as_ref(), expected);
    region.unregister(2..4).unwrap();
    // The kernel fills nothing of a range that is not one registered piece.
    assert_eq!(region.copy_missing(0, &patterns(0..6, 0)), Ok(Progress::stopped(0, Stopped::NotRegistered)));
}

// spec: m/copy/src-fault, m/copy/page-order
#[test]
fn a_copy_from_an_unreadable_source_reports_the_pages_before_it() {
    let uffd = open!();
    let (region, source) = (map(&uffd, 4), map(&uffd, 4));
    source.copy(0, &patterns(0..2, 0)).unwrap().complete().unwrap();
    let bytes = source.window(0..4).unwrap();
    assert_eq!(region.copy(0, bytes.as_ref()), Ok(Progress::stopped(2, Stopped::SourceUnreadable)));
    assert_eq!(uffd.info().unwrap().total, 0);
    region.zeropage(2..4).unwrap().complete().unwrap();
    let expected = [patterns(0..2, 0), vec![0; 2 * page()]].concat();
    assert_eq!(region.window(0..4).unwrap().as_ref(), expected);
}

// spec: m/zeropage/kind, m/zeropage/errors, m/fault/write-zeropage
#[test]
fn zero_pages_are_zero_and_take_the_write_that_waited() {
    let uffd = open!();
    let region = map(&uffd, 3);
    let mut window = region.window(0..3).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let writer = scope.spawn(|| window.as_mut()[page() + 1] = 0xAB);
        let [Event::Fault(fault)] = read(&uffd, 1)[..] else { panic!("a fault") };
        assert_eq!((fault.kind, fault.write), (FaultKind::Missing, true));
        assert_eq!(region.zeropage(0..3), Ok(Progress::all(3)));
        writer.join().unwrap();
    });
    let mut expected = vec![0; 3 * page()];
    expected[page() + 1] = 0xAB;
    assert_eq!(window.as_ref(), expected);
    assert_eq!(region.zeropage(2..3), Ok(Progress::stopped(0, Stopped::AlreadyPresent)));
    assert_eq!(region.copy(2, &pattern(2, 0)), Ok(Progress::stopped(0, Stopped::AlreadyPresent)));
}

// spec: m/range/valid, m/fill/one-mapping
#[test]
fn what_is_not_inside_the_region_is_refused_before_the_kernel_is_asked() {
    let uffd = open!();
    let region = map(&uffd, 3);
    let outside = |asked| Err(UffdError::OutsideRegion { asked, pages: 3 });
    for (why, asked) in [
        ("empty", 1..1),
        ("backwards", std::ops::Range { start: 2, end: 1 }),
        ("one too far", 2..4),
        ("behind", 3..4),
        ("far away", usize::MAX - 1..usize::MAX),
    ] {
        assert_eq!(region.zeropage(asked.clone()), outside(asked.clone()), "{why}");
        assert_eq!(region.poison(asked.clone()), outside(asked.clone()), "{why}");
        assert_eq!(region.wake(asked.clone()).map(|()| Progress::all(0)), outside(asked.clone()), "{why}");
        assert_eq!(region.unregister(asked.clone()).map(|()| Progress::all(0)), outside(asked.clone()), "{why}");
        assert_eq!(region.window(asked.clone()).unwrap_err(), outside(asked.clone()).unwrap_err(), "{why}");
        assert_eq!(region.shared(asked.clone()).unwrap_err(), outside(asked.clone()).unwrap_err(), "{why}");
    }
    assert_eq!(region.copy(3, &pattern(0, 0)), outside(3..4));
    assert_eq!(region.copy(usize::MAX, &pattern(0, 0)), outside(usize::MAX..usize::MAX));
    for len_bytes in [0, 1, page() - 1, page() + 1] {
        let refused = UffdError::NotWholePages { len_bytes, page_size: page() };
        assert_eq!(region.copy(0, &vec![1; len_bytes]), Err(refused));
    }
    assert_eq!(uffd.map(0, RegisterModes::MISSING).unwrap_err(), UffdError::OutsideRegion { asked: 0..0, pages: 0 });
    let modes = RegisterModes::from_bits(1 << 9);
    assert_eq!(uffd.map(1, modes).unwrap_err(), UffdError::ModesUnsupported { modes });
    assert_eq!(
        uffd.map(usize::MAX, RegisterModes::MISSING).unwrap_err(),
        UffdError::System { operation: "mmap", errno: Errno::ENOMEM }
    );
    assert_eq!(region.zeropage(0..3), Ok(Progress::all(3)), "nothing was filled by any of these");
}

// spec: m/unregister/split, m/fill/one-mapping, m/unregister/nothing
#[test]
fn unregistered_pages_read_as_zeros_and_cannot_be_filled() {
    let uffd = open!();
    let region = map(&uffd, 4);
    region.unregister(1..3).unwrap();
    region.unregister(1..3).unwrap();
    assert_eq!(region.copy(1, &pattern(1, 0)), Ok(Progress::stopped(0, Stopped::NotRegistered)));
    assert_eq!(region.copy(0, &pattern(0, 0)), Ok(Progress::all(1)));
    assert_eq!(region.copy(3, &pattern(3, 0)), Ok(Progress::all(1)));
    let expected = [pattern(0, 0), vec![0; 2 * page()], pattern(3, 0)].concat();
    assert_eq!(region.window(0..4).unwrap().as_ref(), expected);
}

// spec: m/unregister/wakes
#[test]
fn unregistering_wakes_sleepers_who_then_read_zeros() {
    let uffd = open!();
    let region = map(&uffd, 2);
    let window = region.window(0..2).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let readers = [0, 1].map(|n| {
            scope.spawn({
                let window = &window;
                move || window.as_ref()[n * page()]
            })
        });
        until_asleep(&uffd, 2);
        region.unregister(0..2).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 0);
        }
    });
}

// spec: m/wake/unread, m/fault/retry
#[test]
fn waking_all_makes_every_sleeper_of_every_region_ask_again() {
    let uffd = open!();
    let regions = [map(&uffd, 1), map(&uffd, 1)];
    let windows = regions.each_ref().map(|region| region.window(0..1).unwrap());
    thread::scope(|scope| {
        let _rescue = regions.each_ref().map(Rescue);
        let readers = windows.each_ref().map(|window| scope.spawn(|| window.as_ref()[0]));
        for _ in 0..3 {
            let faults = read(&uffd, 2);
            assert_eq!(faults.len(), 2);
            uffd.wake_all();
        }
        for region in &regions {
            region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), pattern(0, 0)[0]);
        }
    });
}

// spec: m/poison/access
#[test]
fn touching_a_poisoned_page_ends_the_process_with_sigbus() {
    use std::os::unix::process::ExitStatusExt;
    if is_alone() {
        let uffd = open!();
        let region = map(&uffd, 1);
        region.poison(0..1).unwrap().complete().unwrap();
        println!("poisoned");
        println!("{}", region.window(0..1).unwrap().as_ref()[0]);
        return;
    }
    drop(open!());
    let output = start(&path_of(&touching_a_poisoned_page_ends_the_process_with_sigbus));
    assert!(String::from_utf8_lossy(&output.stdout).contains("poisoned"), "{output:?}");
    let sigbus = rustix::process::Signal::BUS.as_raw();
    assert_eq!(output.status.signal(), Some(sigbus), "{output:?}");
}

// spec: m/poison/clear, m/poison/errors
#[test]
fn poison_is_refused_over_contents_and_cleared_by_a_copy_or_a_discard() {
    let uffd = open!();
    let region = map(&uffd, 3);
    region.copy(2, &pattern(2, 0)).unwrap().complete().unwrap();
    assert_eq!(region.poison(0..3), Ok(Progress::stopped(2, Stopped::AlreadyPresent)));
    assert_eq!(region.zeropage(0..1), Ok(Progress::stopped(0, Stopped::AlreadyPresent)));
    let mut window = region.window(0..3).unwrap();
    let (_out, into) = rustix::pipe::pipe().unwrap();
    assert_eq!(rustix::io::write(&into, &window.as_ref()[..1]), Err(rustix::io::Errno::FAULT));
    assert_eq!(region.copy(0, &pattern(0, 1)), Ok(Progress::all(1)));
    region.discard(&mut window, 1..2).unwrap();
    assert_eq!(region.copy(1, &pattern(1, 1)), Ok(Progress::all(1)));
    assert_eq!(window.as_ref(), [patterns(0..2, 1), pattern(2, 0)].concat());
}

// spec: m/move/effect
#[test]
fn moved_pages_arrive_with_every_byte_and_are_missing_where_they_were() {
    let uffd = open!();
    let (region, source) = (map(&uffd, 4), map(&uffd, 4));
    source.copy(0, &patterns(0..4, 0)).unwrap().complete().unwrap();
    let mut taken = source.window(0..4).unwrap();
    assert_eq!(region.move_from(1, &mut taken, 2..4, MoveModes::NONE), Ok(Progress::all(2)));
    assert_eq!(region.window(1..3).unwrap().as_ref(), patterns(2..4, 0));
    assert_eq!(source.copy(2, &patterns(2..4, 5)), Ok(Progress::all(2)), "missing there");
    assert_eq!(taken.as_ref(), [patterns(0..2, 0), patterns(2..4, 5)].concat());
}

// spec: m/move/effect, m/fill/wake
#[test]
fn a_move_wakes_the_sleeper_it_answers() {
    let uffd = open!();
    let (region, source) = (map(&uffd, 1), map(&uffd, 1));
    source.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
    let mut taken = source.window(0..1).unwrap();
    let window = region.window(0..1).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| window.as_ref().to_vec());
        until_asleep(&uffd, 1);
        assert_eq!(region.move_from(0, &mut taken, 0..1, MoveModes::NONE), Ok(Progress::all(1)));
        assert_eq!(reader.join().unwrap(), pattern(0, 0));
    });
}

// spec: m/move/page-order, m/move/partial, m/move/holes
#[test]
fn a_move_stops_at_a_hole_or_counts_it_and_at_a_present_page() {
    let uffd = open!();
    let (region, source) = (map(&uffd, 4), map(&uffd, 4));
    let mut taken = source.window(0..4).unwrap();
    source.copy(0, &patterns(0..2, 0)).unwrap().complete().unwrap();
    source.copy(3, &pattern(3, 0)).unwrap().complete().unwrap();
    let hole = Progress::stopped(2, Stopped::Other(Errno::ENOENT));
    assert_eq!(region.move_from(0, &mut taken, 0..4, MoveModes::NONE), Ok(hole));
    assert_eq!(region.move_from(2, &mut taken, 2..4, MoveModes::ALLOW_SRC_HOLES), Ok(Progress::all(2)));
    region.zeropage(2..3).unwrap().complete().unwrap();
    let expected = [patterns(0..2, 0), vec![0; page()], pattern(3, 0)].concat();
    assert_eq!(region.window(0..4).unwrap().as_ref(), expected);

    source.copy(0, &pattern(0, 7)).unwrap().complete().unwrap();
    let present = Progress::stopped(0, Stopped::AlreadyPresent);
    assert_eq!(region.move_from(0, &mut taken, 0..1, MoveModes::NONE), Ok(present));
    assert_eq!(taken.as_ref()[..page()], pattern(0, 7), "nothing was taken");
}

#[test]
fn a_move_of_pages_outside_the_window_is_refused() {
    let uffd = open!();
    let (region, source) = (map(&uffd, 4), map(&uffd, 4));
    let mut taken = source.window(1..3).unwrap();
    for asked in [0..2, 2..4, 1..1, 3..5] {
        let refused = UffdError::OutsideRegion { asked: asked.clone(), pages: 4 };
        assert_eq!(region.move_from(0, &mut taken, asked, MoveModes::NONE), Err(refused));
    }
    let refused = UffdError::OutsideRegion { asked: 3..5, pages: 4 };
    assert_eq!(region.move_from(3, &mut taken, 1..3, MoveModes::NONE), Err(refused));
}

// spec: m/event/none
#[test]
fn a_discarded_page_is_missing_again() {
    let uffd = open!();
    let (region, other) = (map(&uffd, 3), map(&uffd, 3));
    region.copy(0, &patterns(0..3, 0)).unwrap().complete().unwrap();
    let mut window = region.window(1..3).unwrap();
    region.discard(&mut window, 2..3).unwrap();
    assert_eq!(region.copy(2, &pattern(2, 1)), Ok(Progress::all(1)));
    assert_eq!(window.as_ref(), [pattern(1, 0), pattern(2, 1)].concat());
    assert_eq!(region.discard(&mut window, 0..2), Err(UffdError::OutsideRegion { asked: 0..2, pages: 3 }));
    assert_eq!(other.discard(&mut window, 1..2), Err(UffdError::ForeignWindow));
    drop(window);

    let shared = region.shared(0..3).unwrap();
    region.discard_shared(&shared, 0..1).unwrap();
    assert_eq!(other.discard_shared(&shared, 0..1), Err(UffdError::ForeignWindow));
    assert_eq!(region.copy(0, &pattern(0, 2)), Ok(Progress::all(1)));
    let mut seen = vec![0; page()];
    shared.read(0, &mut seen);
    assert_eq!(seen, pattern(0, 2));
    assert_eq!(shared.compare(page(), &pattern(1, 0)), None);
    shared.write(page() + 3, &[0; 9]);
    assert_eq!(shared.compare(page(), &pattern(1, 0)), Some(3));
}

#[test]
fn windows_exclude_each_other_and_can_be_cut() {
    let uffd = open!();
    let region = map(&uffd, 4);
    let window = region.window(0..4).unwrap();
    assert_eq!(region.window(3..4).unwrap_err(), UffdError::Lent { asked: 3..4 });
    assert_eq!(region.shared(0..1).unwrap_err(), UffdError::Lent { asked: 0..1 });
    let window = window.split_before(0).unwrap_err().split_before(4).unwrap_err();
    let (first, mut second) = window.split_before(1).unwrap();
    assert_eq!((first.pages(), second.pages()), (0..1, 1..4));
    drop(first);
    assert!(region.window(0..1).is_ok());
    region.copy(0, &patterns(0..4, 0)).unwrap().complete().unwrap();
    assert_eq!(second.as_ref(), patterns(1..4, 0));
    region.discard(&mut second, 3..4).unwrap();
    assert_eq!(region.copy(3, &pattern(3, 1)), Ok(Progress::all(1)));
}

// spec: m/close/references
#[test]
fn a_window_keeps_its_pages_missing_after_everything_else_was_dropped() {
    let uffd = open!(&full());
    let region = map(&uffd, 1);
    let descriptor = std::os::fd::AsFd::as_fd(&uffd).try_clone_to_owned().unwrap();
    let window = region.window(0..1).unwrap();
    drop((uffd, region));
    thread::scope(|scope| {
        let reader = scope.spawn(move || window.as_ref()[0]);
        let total = || userfault_linux::FdInfo::of(&descriptor).unwrap().total;
        until("the reader sleeps", || total() == 1);
        // Whoever takes the descriptor over can still answer.
        let again = Uffd::from_fd(descriptor.try_clone().unwrap(), &userfault_linux::Handshake::Done).unwrap();
        let [Event::Fault(fault)] = read(&again, 1)[..] else { panic!("a fault") };
        assert_eq!(fault.kind, FaultKind::Missing);
        drop(again);
        crate::outside::zeropage(&descriptor, fault.address);
        assert_eq!(reader.join().unwrap(), 0);
    });
}
