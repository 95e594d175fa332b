//! Pages that are not the host's to fill, or not the region's to name.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, RegisterModes, Shared as _, Stopped, Uffd as _, UffdError};

use crate::alone::alone;
use crate::support::{PAGE, contents, open, until_asleep};

/// A range that a careless subtraction makes: its start wraps below the region's first page.
fn backwards(gap: usize) -> std::ops::Range<usize> {
    0_usize.wrapping_sub(gap)..1
}

// spec: H15
#[test]
fn a_backwards_range_never_reaches_the_pages_of_another_region() {
    alone(|| {
        let uffd = open();
        let (one, other) =
            (uffd.map(16, RegisterModes::MISSING).unwrap(), uffd.map(16, RegisterModes::MISSING).unwrap());
        let (low, high) = if one.base() < other.base() { (one, other) } else { (other, one) };
        let gap = (high.base() - low.base()) / PAGE;
        for region in [&low, &high] {
            for page in 0..16 {
                region.copy(page, &contents(page, 1)).unwrap().complete().unwrap();
            }
        }
        let lent = low.window(0..16).unwrap();
        let mut window = high.window(0..16).unwrap();
        let outside = |result: Result<(), UffdError>| assert!(matches!(result, Err(UffdError::OutsideRegion { .. })));
        outside(high.discard(&mut window, backwards(gap)));
        outside(high.unregister(backwards(gap)));
        outside(high.wake(backwards(gap)));
        outside(high.zeropage(backwards(gap)).map(|_| ()));
        for page in 0..16 {
            assert_eq!(lent.as_slice()[page * PAGE..][..PAGE], contents(page, 1)[..], "page {page}");
        }
    });
}

// spec: H15
#[test]
fn installing_never_touches_pages_that_are_no_longer_registered() {
    alone(|| {
        let region = open().map(512, RegisterModes::MISSING).unwrap();
        // Two open runs: the next scattered fill would guard what it takes for missing.
        region.copy(10, &contents(10, 1)).unwrap().complete().unwrap();
        region.copy(20, &contents(20, 1)).unwrap().complete().unwrap();
        region.unregister(0..512).unwrap();
        let mut window = region.window(0..512).unwrap();
        window.as_mut_slice().fill(7);
        let installed = region.install(100, &contents(100, 2)).unwrap();
        assert_eq!((installed.pages_done, installed.stopped_by), (0, Some(Stopped::NotRegistered)));
        assert!(window.as_slice().iter().all(|byte| *byte == 7));
    });
}

// spec: H11
#[test]
fn writers_that_race_with_unregistering_lose_nothing() {
    alone(|| {
        let uffd = open();
        for round in 0..300 {
            let region = uffd.map(512, RegisterModes::WP).unwrap();
            let shared = region.shared(0..512).unwrap();
            let written = AtomicUsize::new(0);
            let page_of = |thread: usize, step: usize| (step * 3 + thread) * 37 % 512;
            let value = |page: usize| (page as u64 + 1).to_ne_bytes();
            thread::scope(|scope| {
                for writer in 0..3 {
                    let (shared, written) = (shared.clone(), &written);
                    scope.spawn(move || {
                        for step in 0..170 {
                            let page = page_of(writer, step);
                            shared.write(page * PAGE, &value(page));
                            written.fetch_add(1, Relaxed);
                        }
                    });
                }
                while written.load(Relaxed) < round * 7 % 400 {
                    thread::yield_now();
                }
                region.unregister(0..512).unwrap();
            });
            for (writer, step) in (0..3).flat_map(|writer| (0..170).map(move |step| (writer, step))) {
                let page = page_of(writer, step);
                let mut found = [0; 8];
                shared.read(page * PAGE, &mut found);
                assert_eq!(found, value(page), "round {round}, page {page}");
            }
        }
    });
}

// spec: W32
#[test]
fn missing_pages_do_not_become_zeros_when_only_a_region_is_left() {
    alone(|| {
        let region = open().map(2, RegisterModes::MISSING).unwrap();
        let window = region.window(0..2).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| window.as_slice()[..PAGE].to_vec());
            until_asleep(1);
            region.copy(0, &contents(0, 1)).unwrap().complete().unwrap();
            assert_eq!(reader.join().unwrap(), contents(0, 1));
        });
    });
}
