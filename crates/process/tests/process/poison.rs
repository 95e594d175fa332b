//! Bus errors: poisoned pages, and the SIGBUS feature.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use userfault_abi::{Features, RegisterModes};
use userfault_client::{Options, Progress, Region as _, Stopped, Uffd as _};
use userfault_process::raw::Memory;
use userfault_process::{Region, Uffd};

use crate::access::{load, load_byte, store_at_known_place};
use crate::alone::{Ended, alone_both_ways, child};
use crate::door::{Door, pages};
use crate::os;
use crate::support::{CHUNK, PAGE, asleep, contents, fill, map, open, scatter, until_asleep, word};

static INSTRUCTION: AtomicUsize = AtomicUsize::new(0);
static WHERE: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

mod landing {
    //! Where to go on instead of repeating the store: behind it, found from its own bytes.

    use crate::access::load_byte;

    /// The length of `mov byte ptr [reg], reg8`: opcode, operands, prefix and displacement if need be.
    pub(super) fn behind(store: usize) -> usize {
        let prefix = usize::from(load_byte(store) & 0xF0 == 0x40);
        let operands = load_byte(store + prefix + 1);
        let index = usize::from(operands & 7 == 4);
        let displacement = usize::from(operands >> 6 == 1);
        store + prefix + 2 + index + displacement
    }
}

/// Handles the bus error of one store, and goes on behind it.
extern "C" fn step_over(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    COUNT.fetch_add(1, Relaxed);
    ADDRESS.store(os::address_of(info), Relaxed);
    WHERE.store(os::instruction_of(context), Relaxed);
    os::continue_at(context, landing::behind(os::instruction_of(context)));
}

fn store_is_a_bus_error(at: usize, count: usize) {
    store_at_known_place(at, 7, &INSTRUCTION);
    assert_eq!(COUNT.load(Relaxed), count);
    assert_eq!(ADDRESS.load(Relaxed), at, "the exact byte");
    assert_eq!(WHERE.load(Relaxed), INSTRUCTION.load(Relaxed), "the instruction itself");
}

fn with_sigbus() -> (Uffd, Region) {
    let options = Options { require: Features::SIGBUS, ..Options::default() };
    let uffd = Uffd::open(&options).unwrap();
    let region = uffd.map(4, RegisterModes::MISSING).unwrap();
    (uffd, region)
}

// spec: H33
#[test]
fn a_touch_of_a_poisoned_page_is_a_bus_error_at_the_exact_byte_and_instruction() {
    alone_both_ways(|| {
        os::handle(libc::SIGBUS, step_over, 0);
        let uffd = open();
        let region = map(&uffd, CHUNK);
        assert_eq!(region.poison(0..2).unwrap().complete(), Ok(2));
        let base = region.base();
        store_is_a_bus_error(base + PAGE + 77, 1);
        scatter(&region, 10..40, 1);
        assert_eq!(region.poison(41..42).unwrap().complete(), Ok(1));
        store_is_a_bus_error(base + 41 * PAGE + 4095, 2);
        // Contents replace poison; zeros do not.
        assert_eq!(region.zeropage(1..2).unwrap(), Progress::stopped(0, Stopped::AlreadyPresent));
        for page in [1, 41] {
            fill(&region, page, 2);
            assert_eq!(load(base + page * PAGE), word(page, 2));
        }
        store_is_a_bus_error(base, 3);
    });
}

// spec: H33
#[test]
fn a_thread_asleep_on_a_page_that_is_poisoned_gets_the_bus_error() {
    alone_both_ways(|| {
        os::handle(libc::SIGBUS, step_over, 0);
        let uffd = open();
        let region = map(&uffd, 2);
        let at = region.base() + 9;
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(move || store_is_a_bus_error(at, 1));
            until_asleep(1);
            assert_eq!(region.poison(0..1).unwrap().complete(), Ok(1));
            sleeper.join().unwrap();
        });
        assert_eq!(asleep(), 0);
    });
}

// spec: H33
#[test]
fn with_the_sigbus_feature_a_missing_page_is_a_bus_error_and_nobody_is_asked() {
    alone_both_ways(|| {
        os::handle(libc::SIGBUS, step_over, 0);
        let (uffd, region) = with_sigbus();
        store_is_a_bus_error(region.base() + 3 * PAGE + 8, 1);
        assert_eq!(uffd.read(userfault_client::Wait::Never, &mut Vec::new()), Ok(0));
        fill(&region, 3, 1);
        assert_eq!(load_byte(region.base() + 3 * PAGE + 8), contents(3, 1)[8]);
        assert_eq!(asleep(), 0);
    });
}

fn died_by_bus_error(ended: &Ended) {
    assert_eq!(ended.signal, Some(libc::SIGBUS), "{ended:?}");
}

// spec: H33
#[test]
fn a_bus_error_that_is_blocked_ends_the_process() {
    died_by_bus_error(&child(|| {
        os::handle(libc::SIGBUS, step_over, 0);
        let (_uffd, region) = with_sigbus();
        os::set_blocked(libc::SIGBUS, true);
        load(region.base());
    }));
}

// spec: H33
#[test]
fn a_bus_error_that_is_ignored_ends_the_process() {
    died_by_bus_error(&child(|| {
        os::set_action(libc::SIGBUS, libc::SIG_IGN, 0);
        let (_uffd, region) = with_sigbus();
        load(region.base());
    }));
}

// spec: H33
#[test]
fn a_bus_error_that_nobody_handles_ends_the_process() {
    died_by_bus_error(&child(|| {
        os::set_action(libc::SIGBUS, libc::SIG_DFL, 0);
        let uffd = open();
        let region = map(&uffd, 1);
        let _done = region.poison(0..1).unwrap();
        load(region.base());
    }));
}

// spec: H33, H5
#[test]
fn poison_of_a_guarded_chunk_is_replaced_after_the_page_was_unregistered_and_registered_again() {
    alone_both_ways(|| {
        let door = Door::open(Features::NONE);
        let memory = Memory::map(CHUNK).unwrap();
        let all = pages(&memory, 0..CHUNK);
        door.register(all, 1).unwrap();
        for page in (0..40).step_by(2) {
            door.copy(pages(&memory, page..page + 1), &contents(page, 1), 0).unwrap();
        }
        door.poison(pages(&memory, 51..53)).unwrap();
        // Nothing is left: the chunk will be a plain one.
        crate::door::discard(&memory, 0..40).unwrap();
        door.unregister(all).unwrap();
        door.register(all, 1).unwrap();
        for page in [51, 52, 53] {
            door.copy(pages(&memory, page..page + 1), &contents(page, 2), 0).unwrap();
            assert_eq!(load(memory.base() + page * PAGE), word(page, 2));
        }
    });
}

// spec: H33
#[test]
fn poison_of_memory_that_is_not_registered_any_more_ends_when_it_is_given_back() {
    alone_both_ways(|| {
        os::handle(libc::SIGBUS, step_over, 0);
        let door = Door::open(Features::NONE);
        let memory = Memory::map(CHUNK).unwrap();
        door.register(pages(&memory, 0..CHUNK), 1).unwrap();
        for page in (0..40).step_by(2) {
            door.copy(pages(&memory, page..page + 1), &contents(page, 1), 0).unwrap();
        }
        for (turn, range) in [0..CHUNK, 30..60].into_iter().enumerate() {
            door.poison(pages(&memory, 51..53)).unwrap();
            door.unregister(pages(&memory, range.clone())).unwrap();
            store_is_a_bus_error(memory.base() + 51 * PAGE + 5, 1 + turn);
            crate::door::discard(&memory, 50..55).unwrap();
            (50..55).for_each(|page| assert_eq!(load(memory.base() + page * PAGE), 0));
            door.register(pages(&memory, 0..CHUNK), 1).unwrap();
            crate::door::discard(&memory, 40..60).unwrap();
        }
    });
}
