//! Shared memory at both providers, by the same calls.

use std::fs::File;
use std::os::unix::fs::FileExt;

use userfault::prelude::*;
use userfault::{Event, FileRegion, Progress, RegisterModes, Stopped, Wait};

use crate::support::{both, pattern};

fn bytes_of(region: &FileRegion, pages: std::ops::Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; pages.len() * region.page_size()];
    pattern(pages, &mut bytes).unwrap();
    bytes
}

#[test]
fn shared_memory_is_asked_for_filled_seen_through_its_file_and_missing_again_at_both_providers() {
    for uffd in both() {
        let region = uffd.map_shared(64).unwrap();
        let page = region.page_size();
        let shared = region.shared(0..64).unwrap();
        let file = File::from(region.file().unwrap().try_clone_to_owned().unwrap());
        for round in 0..3 {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| shared.compare(7 * page, &bytes_of(&region, 7..8)));
                let mut events = Vec::new();
                assert_eq!(uffd.read(Wait::Forever, &mut events).unwrap(), 1);
                let Event::Fault(fault) = &events[0] else { panic!("{events:?}") };
                assert_eq!(region.page_at(fault.address), Some(7), "{} round {round}", uffd.provider());
                assert_eq!(region.copy(4, &bytes_of(&region, 4..10)), Ok(Progress::all(6)));
                assert_eq!(reader.join().unwrap(), None);
            });
            // Written by somebody else: there, and not overwritten.
            region.populate(20, &bytes_of(&region, 40..42)).unwrap();
            let present = Progress::stopped(0, Stopped::AlreadyPresent);
            assert_eq!(region.copy(20, &bytes_of(&region, 20..21)), Ok(present));
            assert_eq!(shared.compare(20 * page, &bytes_of(&region, 40..42)), None);
            assert_eq!(region.zeropage(30..32), Ok(Progress::all(2)));
            assert_eq!(shared.compare(30 * page, &vec![0; 2 * page]), None);
            let mut seen = vec![0; 6 * page];
            file.read_exact_at(&mut seen, 4 * page as u64).unwrap();
            assert_eq!(seen, bytes_of(&region, 4..10), "every byte, beside the mapping");
            region.punch(0..64).unwrap();
            assert_eq!(uffd.read(Wait::Never, &mut Vec::new()).unwrap(), 0);
        }
        region.unregister(0..64).unwrap();
        assert_eq!(shared.compare(0, &vec![0; 64 * page]), None);
        assert!(uffd.map(1, RegisterModes::MISSING).is_ok());
    }
}
