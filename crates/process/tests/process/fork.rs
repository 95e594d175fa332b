//! A forked child does not reach the parent's memory.

use userfault_abi::Features;
use userfault_client::{Region as _, Uffd as _, UffdError, Wait, WriteProtect};
use userfault_process::raw::Memory;
use userfault_process::statistics;

use crate::access::{load, store};
use crate::alone::alone;
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{PAGE, contents, fill, map_protectable, open, word};

// spec: H10
#[test]
fn in_a_forked_child_every_operation_is_refused_and_the_parents_bytes_stay() {
    alone(|| {
        let uffd = open();
        let region = map_protectable(&uffd, 8);
        (0..4).for_each(|page| fill(&region, page, 1));
        let file = os::memory_file();
        let status = os::forked(|| {
            let forked = Some(UffdError::Forked);
            let refused = [
                region.copy(4, &contents(4, 2)).err() == forked,
                region.copy_without_wake(5, &contents(5, 2)).err() == forked,
                region.zeropage(5..6).err() == forked,
                region.poison(5..6).err() == forked,
                region.writeprotect(0..2, WriteProtect::Protect).err() == forked,
                region.unregister(0..8).err() == forked,
                region.install(6, &contents(6, 2)).err() == forked,
                region.wake(0..1).err() == forked,
                uffd.map(1, userfault_abi::RegisterModes::MISSING).err() == forked,
                uffd.read(Wait::Never, &mut Vec::new()).err() == forked,
                uffd.descriptor().err() == forked,
                uffd.sleepers().err() == forked,
                userfault_process::print_sleepers() == 0,
                statistics().is_none(),
                (0..4).all(|page| load(region.base() + page * PAGE) == word(page, 1)),
            ];
            drop((region.clone(), uffd.clone()));
            refused.iter().position(|refused| !refused).map_or(0, |at| i32::try_from(at).unwrap() + 1)
        });
        assert_eq!(status, 0, "the first row that was not refused, from 1, in the second byte");
        for page in 0..4 {
            assert_eq!(os::kernel_reads(&file, region.base() + page * PAGE, PAGE), Some(contents(page, 1)));
        }
        (4..8).for_each(|page| fill(&region, page, 3));
        (4..8).for_each(|page| assert_eq!(load(region.base() + page * PAGE), word(page, 3)));
    });
}

// spec: H10
#[test]
fn a_fill_through_the_raw_door_of_a_forked_child_does_not_write_the_parent() {
    alone(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(8).unwrap();
        door.register(pages(&memory, 0..8), 1).unwrap();
        door.copy(pages(&memory, 0..1), &contents(0, 1), 0).unwrap();
        let status = os::forked(|| {
            store(memory.base(), 99);
            let copied = door.copy(pages(&memory, 1..2), &contents(1, 2), 0);
            let installed = door.0.install(memory.base() + 2 * PAGE, &contents(2, 2));
            let _own_copy_only = discard(&memory, 0..1);
            i32::from(copied.is_ok()) + 2 * i32::from(installed.is_ok())
        });
        assert_eq!(status, 0);
        assert_eq!(load(memory.base()), word(0, 1));
        // Missing as before: the fill would meet a page that is there.
        for page in 1..3 {
            door.copy(pages(&memory, page..page + 1), &contents(page, 3), 0).unwrap();
            assert_eq!(load(memory.base() + page * PAGE), word(page, 3));
        }
    });
}
