//! Monitors that do what they should.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use userfault::prelude::*;
use userfault::{Builder, Choice, FileSource, MonitorError, Protocol, RegisterModes, SourceError, Uffd, WriteProtect};

use crate::sandbox::folder;
use crate::support::{both, byte_at, first_wrong, name, pattern};

const ORIGINAL: [Protocol; 2] = [Protocol::Original { fills: false }, Protocol::Original { fills: true }];

/// Both providers, and the original protocol.
fn all() -> Vec<Uffd> {
    let original = ORIGINAL.map(|protocol| Builder::new().provider(Choice::Process).protocol(protocol).open().unwrap());
    both().into_iter().chain(original).collect()
}

#[test]
fn a_closure_fills_the_pages_that_are_touched_and_no_others() {
    for uffd in all() {
        let region = uffd.map(64, RegisterModes::MISSING).unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        let window = region.window(0..64).unwrap();
        let page = region.page_size();
        for touched in [63, 0, 7] {
            assert_eq!(window.as_ref()[touched * page + 5], byte_at(touched * page + 5), "{}", name(&uffd));
        }
        let stats = monitor.stats();
        assert_eq!((stats.faults, stats.write_faults), (3, 0));
        assert_eq!(first_wrong(window.as_ref()), None);
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults, stats.pages_filled, stats.pages_present), (64, 64, 0), "{}", name(&uffd));
    }
}

#[test]
fn windows_are_aligned_and_cut_at_the_end_of_the_region() {
    for uffd in all() {
        let region = uffd.map(10, RegisterModes::MISSING).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let source = move |pages: Range<usize>, into: &mut [u8]| {
            seen.lock().unwrap().push(pages.clone());
            pattern(pages, into)
        };
        let monitor = uffd.monitor(&region).with_window(4).serve(source).unwrap();
        let window = region.window(0..10).unwrap();
        for touched in [9, 5, 8, 4, 7, 0, 3] {
            assert_eq!(window.as_ref()[touched * region.page_size()], byte_at(touched * region.page_size()));
        }
        assert_eq!(first_wrong(window.as_ref()), None);
        assert_eq!(monitor.join().unwrap().faults, 3);
        assert_eq!(*asked.lock().unwrap(), [8..10, 4..8, 0..4], "{}", name(&uffd));
    }
}

#[test]
fn a_window_larger_than_the_region_is_the_region() {
    for uffd in all() {
        let region = uffd.map(3, RegisterModes::MISSING).unwrap();
        let _monitor = uffd.monitor(&region).with_window(usize::MAX).serve(pattern).unwrap();
        assert_eq!(first_wrong(region.window(0..3).unwrap().as_ref()), None);
    }
}

#[test]
fn several_threads_answer_one_descriptor_and_every_page_comes_once() {
    const PAGES: usize = 512;
    for uffd in all() {
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let monitor = uffd.monitor(&region).with_window(8).serve_with_threads(4, pattern).unwrap();
        let shared = region.shared(0..PAGES).unwrap();
        let page = region.page_size();
        std::thread::scope(|scope| {
            for reader in 0..8 {
                let shared = &shared;
                scope.spawn(move || {
                    let mut bytes = vec![0; page];
                    for step in 0..PAGES {
                        // Odd factors visit every page; all readers meet on the same pages.
                        let at = (step * 77 + reader * 3) % PAGES;
                        shared.read(at * page, &mut bytes);
                        assert!(bytes.iter().zip(at * page..).all(|(byte, at)| *byte == byte_at(at)));
                    }
                });
            }
        });
        let stats = monitor.join().unwrap();
        assert_eq!(stats.pages_filled, PAGES as u64, "{}: {stats:?}", name(&uffd));
        assert!(stats.faults >= PAGES as u64 / 8);
        assert_eq!((stats.errors, stats.pages_poisoned), (0, 0));
    }
}

#[test]
fn discarded_pages_come_again_from_the_source() {
    for uffd in all() {
        let region = uffd.map(4, RegisterModes::MISSING).unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        let mut window = region.window(0..4).unwrap();
        window.as_mut().fill(0);
        region.discard(&mut window, 1..3).unwrap();
        let page = region.page_size();
        let expected: Vec<u8> = (0..4 * page).map(|at| if at / page % 3 == 0 { 0 } else { byte_at(at) }).collect();
        assert!(window.as_ref() == expected, "{}", name(&uffd));
        assert_eq!(monitor.join().unwrap().pages_filled, 6);
    }
}

#[test]
fn the_write_hook_sees_a_page_before_it_changes() {
    for uffd in both() {
        let region = uffd.map(8, RegisterModes::MISSING | RegisterModes::WP).unwrap();
        let shared = region.shared(0..8).unwrap();
        let page = region.page_size();
        let saved = Arc::new(Mutex::new(Vec::new()));
        let save = {
            let (saved, shared) = (Arc::clone(&saved), shared.clone());
            move |at: usize| {
                let mut bytes = vec![0; page];
                shared.read(at * page, &mut bytes);
                saved.lock().unwrap().push((at, bytes));
            }
        };
        let monitor = uffd.monitor(&region).on_write(save).serve(pattern).unwrap();
        let mut all = vec![0; 8 * page];
        shared.read(0, &mut all);
        region.writeprotect(0..8, WriteProtect::Protect).unwrap();
        for at in [6, 2] {
            shared.write(at * page + 8, &[0; 16]);
            // Lifted: no message any more.
            shared.write(at * page + 8, &[0; 16]);
        }
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults, stats.write_faults), (8, 2), "{}", name(&uffd));
        let saved = saved.lock().unwrap();
        assert_eq!(saved.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [6, 2]);
        for (at, bytes) in saved.iter() {
            assert!(*bytes == all[at * page..][..page], "{}", name(&uffd));
        }
    }
}

#[test]
fn writes_without_a_hook_go_on() {
    for uffd in both() {
        let region = uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        let shared = region.shared(0..1).unwrap();
        shared.read(0, &mut [0]);
        region.writeprotect(0..1, WriteProtect::Protect).unwrap();
        shared.write(0, &[9; 8]);
        assert_eq!(shared.compare(0, &[9; 8]), None);
        assert_eq!(monitor.join().unwrap().write_faults, 1);
    }
}

#[test]
fn a_panicking_write_hook_is_reported_and_the_write_goes_on() {
    for uffd in both() {
        let region = uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).unwrap();
        let monitor = uffd.monitor(&region).on_write(|_| panic!("no room")).serve(pattern).unwrap();
        let shared = region.shared(0..1).unwrap();
        shared.read(0, &mut [0]);
        region.writeprotect(0..1, WriteProtect::Protect).unwrap();
        shared.write(0, &[9; 8]);
        let error = monitor.join().unwrap_err();
        assert!(matches!(&error, MonitorError::WritePanicked { page: 0, message } if message == "no room"), "{error}");
    }
}

#[test]
fn a_file_is_followed_by_zeros_to_the_end_of_its_last_page() {
    let place = folder("file-source");
    for (len, pages) in [(1, 1), (4095, 1), (4096, 1), (4097, 2), (50_001, 13)] {
        let path = place.join("contents");
        let mut bytes: Vec<u8> = (0..len).map(byte_at).collect();
        std::fs::write(&path, &bytes).unwrap();
        let source = FileSource::open(&path).unwrap();
        bytes.resize(pages * 4096, 0);
        for uffd in all() {
            if uffd.capabilities().page_size != 4096 {
                continue;
            }
            assert_eq!(source.pages(4096), pages);
            let region = uffd.map(pages, RegisterModes::MISSING).unwrap();
            let _monitor = uffd.monitor(&region).with_window(4).serve(source.clone()).unwrap();
            assert!(region.window(0..pages).unwrap().as_ref() == bytes, "{len} at {}", name(&uffd));
        }
    }
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_page_that_cannot_be_had_does_not_spoil_its_neighbours() {
    for uffd in both() {
        let region = uffd.map(8, RegisterModes::MISSING).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let all_but_the_last = move |pages: Range<usize>, into: &mut [u8]| {
            counted.fetch_add(1, SeqCst);
            if pages.contains(&7) {
                return Err(SourceError::from("the end is missing"));
            }
            pattern(pages, into)
        };
        let monitor = uffd.monitor(&region).with_window(8).serve(all_but_the_last).unwrap();
        assert_eq!(first_wrong(region.window(0..7).unwrap().as_ref()), None);
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults, stats.pages_filled, stats.errors), (7, 7, 0), "{}", name(&uffd));
        assert_eq!(calls.load(SeqCst), 14, "each time the window, then the page");
    }
}

#[test]
fn a_fault_in_another_region_of_the_descriptor_is_reported() {
    for uffd in both() {
        let served = uffd.map(1, RegisterModes::MISSING).unwrap();
        let other = uffd.map(1, RegisterModes::MISSING).unwrap();
        let rescue = other.clone();
        // Only this lets the reader below go on.
        let on_error = move |_: &MonitorError| assert!(rescue.copy(0, &vec![3; rescue.page_size()]).is_ok());
        let monitor = uffd.monitor(&served).on_error(on_error).serve(pattern).unwrap();
        assert_eq!(other.window(0..1).unwrap().as_ref()[0], 3);
        let address = other.base() as u64;
        let error = monitor.join().unwrap_err();
        assert!(matches!(error, MonitorError::OutsideRegion { address: told } if told == address), "{error}");
    }
}
