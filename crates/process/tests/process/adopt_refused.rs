//! What is not adopted, and why: one row for each kind of memory that a test can make.
//!
//! Huge pages in use, devices, sealed memory and protection keys are rows of the table beside the survey
//! itself (`crates/memory`), from the kernel's own lists.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{AdoptError, Region as _, RegisterModes, Uffd as _, Unfit};
use userfault_signal::AlternateStack;

use crate::access::{load, store};
use crate::adopt::{BOTH, Memory, adopt};
use crate::alone::alone;
use crate::os;
use crate::support::{PAGE, open, until};

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

static DATA: AtomicUsize = AtomicUsize::new(1);
static ZEROS: [AtomicUsize; 4 * PAGE / 8] = [const { AtomicUsize::new(0) }; 4 * PAGE / 8];

/// The whole pages around `address`.
fn around(address: usize, pages: usize) -> Range<usize> {
    let start = address / PAGE * PAGE;
    start..start + pages * PAGE
}

/// The first of this process's mappings of which the kernel's line says that.
fn mapping(says: impl Fn(&str) -> bool) -> Range<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| says(line)).unwrap();
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()
}

fn refused(range: Range<usize>) -> Unfit {
    let uffd = open();
    match adopt(&uffd, range.clone(), BOTH) {
        Err(AdoptError::Unfit { range: found, why }) => {
            assert!(
                range.start <= found.start && found.end <= range.end && !found.is_empty(),
                "{found:#x?} of {range:#x?}"
            );
            let sentence = AdoptError::Unfit { range: found, why }.to_string();
            assert!(sentence.contains("cannot be adopted: ") && sentence.contains("; "), "{sentence}");
            why
        }
        other => panic!("{range:#x?}: {other:?}"),
    }
}

// spec: H13
#[test]
fn each_kind_of_memory_is_refused_with_its_reason_and_left_as_it_is() {
    alone(|| {
        let uffd = open();
        let four = |protection, flags| around(os::map(0, 4 * PAGE, protection, flags), 4);
        let locked = four(RW, 0);
        os::lock(locked.start + 2 * PAGE, PAGE).unwrap();
        let guarded = four(RW, 0);
        let has_guards = os::advise(guarded.start + PAGE, PAGE, 102).is_ok();
        let kept = four(RW, 0);
        os::advise(kept.start, PAGE, libc::MADV_DONTFORK).unwrap();
        let part = four(RW, 0);
        os::protect(part.start + 3 * PAGE, PAGE, libc::PROT_READ).unwrap();
        let own = uffd.map(4, RegisterModes::MISSING).unwrap();
        let adopted = Memory::map(4);
        let registered = adopted.adopt(&uffd).unwrap();
        let large = os::map(0, 4 << 20, libc::PROT_NONE, libc::MAP_HUGETLB | libc::MAP_NORESERVE);
        let rows = [
            // So low that nothing is mapped there by itself.
            ("a hole", around(0x20_0000, 4), Unfit::NotMapped),
            ("grows down", four(RW, libc::MAP_GROWSDOWN), Unfit::GrowsDown),
            ("locked, a page of it", locked, Unfit::Locked),
            ("huge pages", large..large + (2 << 20), Unfit::HugePages),
            ("the kernel's", mapping(|line| line.ends_with("[vvar]")), Unfit::Device),
            ("kept from children, a page of it", kept, Unfit::NotForChildren),
            ("code", four(RW | libc::PROT_EXEC, 0), Unfit::Executable),
            ("shared", four(RW, libc::MAP_SHARED), Unfit::Shared),
            ("closed", four(libc::PROT_NONE, 0), Unfit::NotWritable),
            ("read-only", four(libc::PROT_READ, 0), Unfit::NotWritable),
            ("read-only, a page of it", part, Unfit::NotWritable),
            ("a region", around(own.base(), 4), Unfit::Own),
            ("the host's table", mapping(is_table), Unfit::Own),
            ("the main stack", mapping(|line| line.ends_with("[stack]")), Unfit::Stack),
            ("this thread's stack", around((&raw const uffd).addr(), 1), Unfit::Stack),
            ("data of the program", around((&raw const DATA).addr(), 1), Unfit::LoadedObject),
            ("zeros of the program", around((&raw const ZEROS).addr() + PAGE, 1), Unfit::LoadedObject),
            ("data of libc", mapping(|line| line.contains("libc.so") && line.contains("rw-p")), Unfit::LoadedObject),
            (
                "data of the loader",
                mapping(|line| line.contains("ld-linux") && line.contains("rw-p")),
                Unfit::LoadedObject,
            ),
            ("the main thread's locals", around(os::robust_list(std::process::id()), 1), Unfit::ThreadData),
        ];
        for (what, range, expected) in rows {
            assert_eq!(refused(range), expected, "{what}");
        }
        if has_guards {
            assert_eq!(refused(guarded), Unfit::Guarded);
        } else {
            println!("skipped, because this kernel has no guard markers");
        }
        let why = refused(adopted.base..adopted.address(4));
        assert!(matches!(why, Unfit::NotWritable | Unfit::Registered), "{why:?}");
        drop((own, registered));
        // Nothing was changed: this thread runs, and its data is there.
        assert_eq!((DATA.load(Relaxed), ZEROS.iter().map(|word| word.load(Relaxed)).sum::<usize>()), (1, 0));
    });
}

/// A byte for each page of the address space.
fn is_table(line: &str) -> bool {
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    usize::from_str_radix(end, 16).unwrap() - usize::from_str_radix(start, 16).unwrap() > 8 << 30
}

// spec: H13
#[test]
fn a_file_is_refused() {
    alone(|| {
        let file = os::memory_file();
        file.set_len(4 * PAGE as u64).unwrap();
        let base = os::map_file(&file, 4 * PAGE, libc::MAP_PRIVATE);
        assert_eq!(refused(around(base, 4)), Unfit::File);
        store(base, 7);
        assert_eq!(load(base), 7);
        let base = os::map_file(&file, 4 * PAGE, libc::MAP_SHARED);
        assert_eq!(refused(around(base, 4)), Unfit::Shared);
    });
}

// spec: H13
#[test]
fn other_threads_stacks_are_refused_whether_they_sleep_or_run() {
    alone(|| {
        static STACKS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        static DONE: AtomicBool = AtomicBool::new(false);
        let place = |index: usize| {
            let here = 0_u8;
            STACKS[index].store((&raw const here).addr(), Relaxed);
        };
        let sleeper = thread::spawn(move || {
            place(0);
            thread::park();
        });
        let runner = thread::spawn(move || {
            place(1);
            while !DONE.load(Relaxed) {
                std::hint::spin_loop();
            }
        });
        until("the threads have stacks", || STACKS.iter().all(|stack| stack.load(Relaxed) != 0));
        for stack in &STACKS {
            let why = refused(around(stack.load(Relaxed), 1));
            assert!(matches!(why, Unfit::Stack | Unfit::ThreadData), "{why:?}");
        }
        DONE.store(true, Relaxed);
        sleeper.thread().unpark();
        sleeper.join().unwrap();
        runner.join().unwrap();
    });
}

// spec: H13
#[test]
fn alternate_stacks_of_this_thread_and_those_we_made_are_refused() {
    alone(|| {
        let own = os::use_stack(16 * PAGE, 0);
        assert_eq!(refused(around(own, 16)), Unfit::AlternateStack);
        assert_eq!(refused(around(own + 15 * PAGE, 1)), Unfit::AlternateStack);
        // One that another thread was given.
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let stack = AlternateStack::ensure(0).unwrap();
            assert!(stack.is_new());
            tell.send(os::alternate_stack()).unwrap();
            assert!(ended.recv().is_err());
        });
        let range = told.recv().unwrap();
        assert_eq!(refused(range.clone()), Unfit::AlternateStack);
        drop(end);
        other.join().unwrap();
    });
}
