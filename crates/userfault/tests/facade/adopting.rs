//! The program's own memory, registered where it stands, with both providers.
//!
//! 1. A buffer that is adopted is neither dropped nor grown before its region is.
#![expect(unsafe_code, reason = "adopts memory; the invariant above is the promise that takes")]

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use userfault::prelude::*;
use userfault::{AdoptError, Region, RegisterModes, Stopped, Uffd, UffdError, Unfit, WriteProtect};

use crate::support::{both, byte_at, pattern};

const PAGE: usize = 4096;
const BOTH: RegisterModes = RegisterModes::MISSING.union(RegisterModes::WP);

fn adopt(uffd: &Uffd, bytes: &mut [u8], modes: RegisterModes) -> Result<Region, AdoptError> {
    // SAFETY: invariant 1.
    unsafe { uffd.adopt(NonNull::from(bytes), modes) }
}

fn read(bytes: &[u8], at: usize) -> u8 {
    // SAFETY: in bounds; contents may come from elsewhere, so it is read anew.
    unsafe { std::ptr::from_ref(&bytes[at]).read_volatile() }
}

// spec(process): H11
#[test]
fn a_vector_is_tracked_where_it_stands_and_is_as_before_afterwards() {
    for len in [1 << 20, 100_000, 3 * PAGE] {
        for uffd in both() {
            let mut vector: Vec<u8> = (0..len).map(byte_at).collect();
            let region = adopt(&uffd, &mut vector, BOTH).unwrap();
            let skipped = region.base() - vector.as_ptr().addr();
            assert!(skipped < PAGE && (region.pages() + 2) * PAGE > len, "{skipped}, {} pages", region.pages());
            let dirty = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&dirty);
            let monitor = uffd.monitor(&region).on_write(move |page| noted.lock().unwrap().push(page));
            let monitor = monitor.serve(pattern).unwrap();
            region.writeprotect(0..region.pages(), WriteProtect::Protect).unwrap();
            let written: BTreeSet<usize> = [0, region.pages() / 2, region.pages() - 1].into();
            for page in &written {
                vector[skipped + page * PAGE + 100] = 0;
                vector[skipped + page * PAGE + 101] = 0;
            }
            monitor.join().unwrap();
            drop(region);
            let mut noted = dirty.lock().unwrap().clone();
            noted.sort_unstable();
            assert_eq!(noted, written.iter().copied().collect::<Vec<_>>());
            for (at, byte) in vector.iter().enumerate() {
                let (page, offset) = (at.wrapping_sub(skipped) / PAGE, at.wrapping_sub(skipped) % PAGE);
                let is_written = written.contains(&page) && [100, 101].contains(&offset);
                assert_eq!(*byte, if is_written { 0 } else { byte_at(at) }, "byte {at} of {len}");
            }
            vector.fill(1);
        }
    }
}

#[test]
fn the_first_write_to_a_page_that_was_never_touched_is_told_where_fills_are_protected() {
    for (fills_protected, expected) in [(true, vec![3, 7, 100]), (false, vec![])] {
        for uffd in both() {
            // Large enough to be fresh from the kernel.
            let mut vector = vec![0_u8; 64 << 20];
            let region = adopt(&uffd, &mut vector, BOTH).unwrap();
            let skipped = region.base() - vector.as_ptr().addr();
            let dirty = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&dirty);
            let monitor = uffd.monitor(&region).on_write(move |page| noted.lock().unwrap().push(page));
            let monitor = if fills_protected { monitor.fill_protected() } else { monitor };
            let monitor = monitor.serve(|_, _: &mut [u8]| Ok(())).unwrap();
            region.writeprotect(0..region.pages(), WriteProtect::Protect).unwrap();
            for page in [3, 7, 100] {
                vector[skipped + page * PAGE] = 1;
                vector[skipped + page * PAGE + 1] = 1;
            }
            assert_eq!(read(&vector, skipped + 8 * PAGE), 0);
            let stats = monitor.join().unwrap();
            assert_eq!((stats.faults, stats.pages_filled), (4, 4), "{stats:?}");
            assert_eq!(*dirty.lock().unwrap(), expected);
            drop(region);
            let written = vector.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at - skipped);
            let both_bytes = |page: usize| [page * PAGE, page * PAGE + 1];
            assert_eq!(written.collect::<Vec<_>>(), [3, 7, 100].map(both_bytes).concat());
        }
    }
}

// spec(process): H16
#[test]
fn contents_that_are_discarded_come_from_the_source() {
    for uffd in both() {
        let mut vector = vec![9_u8; 64 * PAGE];
        let region = adopt(&uffd, &mut vector, RegisterModes::MISSING).unwrap();
        let skipped = region.base() - vector.as_ptr().addr();
        let pages = region.pages();
        // SAFETY: no reference is used across it, and bytes are bytes.
        unsafe { region.discard_adopted(10..20) }.unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        for at in 0..pages * PAGE {
            let expected = if (10..20).contains(&(at / PAGE)) { byte_at(at) } else { 9 };
            assert_eq!(read(&vector, skipped + at), expected, "byte {at}");
        }
        assert_eq!(monitor.join().unwrap().pages_filled, 10);
        drop(region);
        for at in 0..pages * PAGE {
            let expected = if (10..20).contains(&(at / PAGE)) { byte_at(at) } else { 9 };
            assert_eq!(read(&vector, skipped + at), expected, "byte {at}");
        }
    }
}

// spec(process): H15
#[test]
fn what_was_given_back_is_not_reached_any_more() {
    for uffd in both() {
        let mut vector = vec![9_u8; 64 * PAGE];
        let region = adopt(&uffd, &mut vector, BOTH).unwrap();
        region.unregister(10..20).unwrap();
        for pages in [10..11, 15..25, 5..11, 0..60] {
            let bytes = vec![1; pages.len() * PAGE];
            assert_eq!(region.copy(pages.start, &bytes).unwrap().stopped_by, Some(Stopped::NotRegistered), "{pages:?}");
            assert_eq!(region.zeropage(pages.clone()).unwrap().stopped_by, Some(Stopped::NotRegistered));
            assert!(region.writeprotect(pages.clone(), WriteProtect::Protect).is_err(), "{pages:?}");
            // SAFETY: it is refused, and bytes are bytes.
            assert!(unsafe { region.discard_adopted(pages.clone()) }.is_err(), "{pages:?}");
        }
        assert!(vector.iter().all(|byte| *byte == 9));
        region.unregister(5..30).unwrap();
        region.unregister(0..region.pages()).unwrap();
        drop(region);
        assert!(vector.iter().all(|byte| *byte == 9));
        vector.fill(3);
    }
}

// spec(process): H13
#[test]
fn what_cannot_be_adopted_is_refused_with_the_reason() {
    for uffd in both() {
        let other = both().into_iter().find(|other| other.provider() == uffd.provider()).unwrap();
        let mut vector = vec![9_u8; 64 * PAGE];
        let region = adopt(&uffd, &mut vector[..32 * PAGE], BOTH).unwrap();
        for uffd in [&uffd, &other] {
            let error = adopt(uffd, &mut vector, BOTH).unwrap_err();
            let AdoptError::Unfit { why, .. } = error else { panic!("{error:?}") };
            assert_eq!(why, Unfit::Registered, "{}", uffd.provider());
        }
        assert_eq!(region.window(0..1).unwrap_err(), UffdError::Adopted);
        assert_eq!(region.shared(0..1).unwrap_err(), UffdError::Adopted);
        let mut local = [0_u8; 3 * PAGE];
        let error = adopt(&uffd, &mut local, BOTH).unwrap_err();
        assert!(matches!(error, AdoptError::Unfit { why: Unfit::Stack, .. }), "{error:?}");
        let error = adopt(&uffd, &mut vector[..PAGE - 1], BOTH).unwrap_err();
        assert!(matches!(error, AdoptError::NoWholePage { .. }), "{error:?}");
        let own = uffd.map(4, RegisterModes::MISSING).unwrap();
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(own.base())).unwrap();
        // SAFETY: it is refused.
        let error = unsafe { uffd.adopt(NonNull::slice_from_raw_parts(start, 4 * PAGE), BOTH) }.unwrap_err();
        assert!(matches!(error, AdoptError::Unfit { why: Unfit::Own, .. }), "{error:?}");
        drop(region);
        assert!(vector.iter().all(|byte| *byte == 9));
    }
}
