//! The program's own memory, registered where it stands.
//!
//! 1. What is adopted is a mapping of the test's own, which stays as it is until it is unregistered; it is
//!    reached by address only.
#![expect(unsafe_code, reason = "adopts memory; the invariant above is this file's proof")]

use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use userfault_client::{AdoptError, Event, Region as _, RegisterModes, Stopped, Uffd as _, UffdError, Unfit, Wait};
use userfault_client::{FaultKind, WriteProtect};
use userfault_process::testing::{fail_host_calls, host_calls};
use userfault_process::{Region, Tuning, Uffd, tune};

use crate::access::{add, load, store};
use crate::alone::alone;
use crate::os;
use crate::support::{
    CHUNK, Mode, PAGE, Random, WATCHDOG, contents, fill, mappings, open, page_of, read, status_kb, word,
};

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub(crate) const BOTH: RegisterModes = RegisterModes::MISSING.union(RegisterModes::WP);

/// A mapping of the test's own.
pub(crate) struct Memory {
    pub(crate) base: usize,
    pub(crate) pages: usize,
}

impl Memory {
    pub(crate) fn map(pages: usize) -> Self {
        Self { base: os::map(0, pages * PAGE, RW, 0), pages }
    }

    pub(crate) fn address(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    /// Writes every word of these pages.
    pub(crate) fn write(&self, pages: impl IntoIterator<Item = usize>, generation: u64) {
        for page in pages {
            (0..PAGE).step_by(8).for_each(|at| store(self.address(page) + at, word(page, generation)));
        }
    }

    /// Compares every word of a page; generation 0 is zeros.
    pub(crate) fn check(&self, page: usize, generation: u64) {
        let expected = if generation == 0 { 0 } else { word(page, generation) };
        for at in (0..PAGE).step_by(8) {
            assert_eq!(load(self.address(page) + at), expected, "page {page}, byte {at}");
        }
    }

    pub(crate) fn adopt(&self, uffd: &Uffd) -> Result<Region, AdoptError> {
        adopt(uffd, self.base..self.base + self.pages * PAGE, BOTH)
    }
}

pub(crate) fn adopt(uffd: &Uffd, range: Range<usize>, modes: RegisterModes) -> Result<Region, AdoptError> {
    let start = NonNull::new(ptr::with_exposed_provenance_mut(range.start)).unwrap();
    // SAFETY: invariant 1.
    unsafe { uffd.adopt(NonNull::slice_from_raw_parts(start, range.len()), modes) }
}

pub(crate) fn discard(region: &Region, pages: Range<usize>) -> Result<(), UffdError> {
    // SAFETY: invariant 1: nothing refers to these bytes.
    unsafe { region.discard_adopted(pages) }
}

/// Answers faults, on a thread of its own, until the descriptor is shut down: missing pages get `generation`,
/// protected ones are freed. How many of each.
fn answer(uffd: &Uffd, region: &Region, generation: u64) -> (usize, usize) {
    let (mut filled, mut written) = (0, 0);
    let mut events = Vec::new();
    while uffd.read(Wait::AtMost(WATCHDOG), &mut events) != Err(UffdError::ShutDown) {
        for event in events.drain(..) {
            let page = page_of(region, &event);
            let Event::Fault(fault) = event else { panic!("{event:?}") };
            if fault.kind == FaultKind::WriteProtect {
                region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap();
                written += 1;
            } else if generation == 0 {
                // Zeros as bytes: they would write over what a page has that was taken for missing.
                filled += region.copy(page, &[0; PAGE]).unwrap().pages_done;
            } else {
                filled += region.copy(page, &contents(page, generation)).unwrap().pages_done;
            }
        }
    }
    (filled, written)
}

/// Opens a host that has guards, or none.
fn open_in(mode: Mode) -> Uffd {
    if mode == Mode::Plain {
        tune(Tuning { without_guards: true, ..Tuning::default() }).unwrap();
    }
    open()
}

/// Adopts memory of which some has contents; everything is there, missing is answered, and in the end it is
/// plain memory with what it had.
fn contents_are_kept(mode: Mode) {
    let uffd = open_in(mode);
    let memory = Memory::map(2 * CHUNK + 100);
    let mut random = Random::new();
    // Runs in the first chunk, scattered in the second, nothing but its last page in the third.
    let mut generations = vec![0_u64; memory.pages];
    generations[10..200].fill(1);
    for _ in 0..200 {
        generations[CHUNK + random.below(CHUNK)] = 1;
    }
    generations[memory.pages - 1] = 1;
    let present: Vec<usize> = (0..memory.pages).filter(|page| generations[*page] == 1).collect();
    memory.write(present.iter().copied(), 1);
    let region = memory.adopt(&uffd).unwrap();
    assert_eq!((region.base(), region.pages()), (memory.base, memory.pages));
    present.iter().for_each(|page| memory.check(*page, 1));
    thread::scope(|scope| {
        let monitor = scope.spawn(|| answer(&uffd, &region, 2));
        for page in (0..memory.pages).step_by(3) {
            memory.check(page, if generations[page] == 1 { 1 } else { 2 });
            generations[page] = generations[page].max(if page % 3 == 0 { 2 - generations[page] } else { 0 });
        }
        uffd.shut_down();
        monitor.join().unwrap();
    });
    drop(region);
    for page in 0..memory.pages {
        let was_present = present.contains(&page);
        memory.check(
            page,
            if was_present {
                1
            } else if page % 3 == 0 {
                2
            } else {
                0
            },
        );
        store(memory.address(page), 7);
        assert_eq!(load(memory.address(page)), 7);
    }
}

// spec: H11, H12
#[test]
fn adopted_memory_keeps_its_contents_and_what_it_has_not_is_missing() {
    alone(|| contents_are_kept(Mode::Guarded));
}

// spec: H11
#[test]
fn without_guards_adopted_memory_keeps_its_contents_too() {
    alone(|| contents_are_kept(Mode::Plain));
}

/// Two threads count in every page while it is adopted. No count is lost: neither one that was made before
/// its page was looked at, nor one made meanwhile. Seen to fail where the page map is read before the pages are
/// closed.
fn counts(mode: Mode) {
    const PAGES: usize = 16 * CHUNK + 10;
    const THREADS: usize = 2;
    let _host = open_in(mode);
    for turn in 0..10 {
        let uffd = open();
        let memory = Memory::map(PAGES);
        let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let counted = thread::scope(|scope| {
            let counters: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (memory, stop, begun) = (&memory, &stop, &begun);
                    scope.spawn(move || {
                        let mut counted = vec![0_u64; PAGES];
                        let mut random = Random::from(turn * 10 + thread as u64 + 1);
                        while !stop.load(Ordering::Relaxed) {
                            let page = random.below(PAGES);
                            add(memory.address(page) + 8 * (page % 500), 1);
                            counted[page] += 1;
                            begun.fetch_add(1, Ordering::Relaxed);
                            // Slowly, so that there are untouched pages left when those with contents are looked for.
                            (0..200).for_each(|_| std::hint::spin_loop());
                        }
                        counted
                    })
                })
                .collect();
            while begun.load(Ordering::Relaxed) < 1000 {
                thread::yield_now();
            }
            let region = memory.adopt(&uffd).unwrap();
            let monitor = scope.spawn({
                let (uffd, region) = (&uffd, region.clone());
                move || answer(uffd, &region, 0)
            });
            for _ in 0..100 {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            let counted: Vec<_> = counters.into_iter().map(|counter| counter.join().unwrap()).collect();
            uffd.shut_down();
            monitor.join().unwrap();
            drop(region);
            counted
        });
        for page in 0..PAGES {
            let expected: u64 = counted.iter().map(|counted| counted[page]).sum();
            assert_eq!(load(memory.address(page) + 8 * (page % 500)), expected, "turn {turn}, page {page}");
        }
    }
}

// spec: H11
#[test]
fn no_count_is_lost_that_threads_make_while_their_memory_is_adopted() {
    alone(|| counts(Mode::Guarded));
}

// spec: H11
#[test]
fn without_guards_no_count_is_lost_either() {
    alone(|| counts(Mode::Plain));
}

// spec: H8
#[test]
fn adopted_memory_gives_up_huge_pages_and_may_have_them_again_afterwards() {
    alone(|| {
        let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        if enabled.is_empty() || enabled.contains("[never]") {
            println!("skipped, because there are no huge pages here: {enabled}");
            return;
        }
        let uffd = open();
        let memory = Memory::map(4 * CHUNK);
        os::advise(memory.base, memory.pages * PAGE, libc::MADV_HUGEPAGE).unwrap();
        assert!(flags(memory.base).contains(&"hg".into()), "{:?}", flags(memory.base));
        let region = memory.adopt(&uffd).unwrap();
        assert!(flags(memory.base).contains(&"nh".into()), "{:?}", flags(memory.base));
        let before = status_kb("VmRSS");
        fill(&region, CHUNK + 5, 1);
        let taken = status_kb("VmRSS") - before;
        assert!(taken < 1024, "one page took {taken} kB");
        region.unregister(0..CHUNK).unwrap();
        assert!(flags(memory.base).contains(&"hg".into()), "{:?}", flags(memory.base));
        assert!(flags(memory.address(CHUNK)).contains(&"nh".into()));
        drop(region);
        assert!(flags(memory.address(CHUNK)).contains(&"hg".into()));
        memory.check(CHUNK + 5, 1);
    });
}

/// The kernel's flags of the mapping that holds `address`.
fn flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut holds = false;
    for line in smaps.lines() {
        if let Some((range, _)) = line.split_once(' ')
            && let Some((start, end)) = range.split_once('-')
        {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            holds = (number(start)..number(end)).contains(&address);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| holds) {
            return flags.split_whitespace().map(String::from).collect();
        }
    }
    panic!("{address:#x} is not mapped");
}

// spec: H4, H11
#[test]
fn adopting_scattered_contents_takes_few_mappings() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(8 * CHUNK);
        memory.write((0..memory.pages).step_by(2), 1);
        let before = mappings();
        let region = memory.adopt(&uffd).unwrap();
        let taken = mappings() - before;
        assert!(taken < 20, "{taken} mappings for {} runs", memory.pages / 2);
        (0..memory.pages).step_by(2).for_each(|page| memory.check(page, 1));
        fill(&region, 1, 3);
        memory.check(1, 3);
    });
}

// spec: H5, H11
#[test]
fn adopting_of_which_any_host_call_fails_leaves_the_memory_as_it_was() {
    alone(|| {
        let uffd = open();
        for n in 0.. {
            let memory = Memory::map(2 * CHUNK);
            memory.write((0..memory.pages).filter(|page| page % 7 < 3), 1);
            fail_host_calls(n, 1);
            let before = host_calls();
            let adopted = memory.adopt(&uffd);
            let calls = host_calls() - before;
            fail_host_calls(0, 0);
            match adopted {
                Ok(region) => {
                    (0..memory.pages).filter(|page| page % 7 < 3).for_each(|page| memory.check(page, 1));
                    for page in (0..memory.pages).filter(|page| page % 7 >= 3) {
                        fill(&region, page, 2);
                        memory.check(page, 2);
                    }
                }
                Err(error) => {
                    assert!(matches!(error, AdoptError::Uffd(UffdError::System { .. })), "{error:?}");
                    for page in 0..memory.pages {
                        memory.check(page, u64::from(page % 7 < 3));
                        store(memory.address(page), 9);
                    }
                    // Nothing is left of it: it can be adopted now, and unmapped.
                    memory.adopt(&uffd).unwrap();
                }
            }
            os::unmap(memory.base, memory.pages * PAGE);
            if calls <= n {
                println!("measured: adopting, {n} calls failed one after the other");
                break;
            }
        }
    });
}

// spec: H5, H11
#[test]
fn what_cannot_be_undone_is_said_and_nothing_is_lost() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(CHUNK);
        memory.write(0..100, 1);
        // Closed, and from then on everything is refused.
        fail_host_calls(1, 1 << 20);
        let error = memory.adopt(&uffd).unwrap_err();
        fail_host_calls(0, 0);
        let AdoptError::LeftClosed { range, .. } = &error else { panic!("{error:?}") };
        os::protect(range.start, range.len(), RW).unwrap();
        (0..memory.pages).for_each(|page| memory.check(page, u64::from(page < 100)));
    });
}

// spec: H5, H15
#[test]
fn unregistering_adopted_pages_of_which_any_host_call_fails_is_done_or_left_page_by_page() {
    alone(|| {
        let uffd = open();
        for (how_many, n) in [1, 1 << 20].into_iter().flat_map(|how_many| (0..5).map(move |n| (how_many, n))) {
            let memory = Memory::map(2 * CHUNK);
            // The second chunk is guarded, and some pages are protected.
            memory.write((0..memory.pages).filter(|page| page % 3 == 0 && *page >= CHUNK || *page < 5), 1);
            let region = memory.adopt(&uffd).unwrap();
            region.writeprotect(3..4, WriteProtect::Protect).unwrap();
            fail_host_calls(n, how_many);
            let asked = 2..memory.pages - 2;
            let result = region.unregister(asked.clone());
            fail_host_calls(0, 0);
            let mut left = 0;
            for page in asked.clone() {
                let had = page < 5 || page % 3 == 0 && page >= CHUNK;
                let progress = region.copy(page, &contents(page, 8)).unwrap();
                if progress.stopped_by == Some(Stopped::NotRegistered) {
                    memory.check(page, u64::from(had));
                    store(memory.address(page), 1);
                } else if had {
                    assert_eq!(progress.stopped_by, Some(Stopped::AlreadyPresent), "page {page}");
                    memory.check(page, 1);
                    left += 1;
                } else {
                    assert_eq!(progress.complete(), Ok(1), "page {page}");
                    memory.check(page, 8);
                    left += 1;
                }
            }
            match result {
                Ok(()) => assert_eq!(left, 0),
                Err(UffdError::StillRegistered { pages, .. }) => assert_eq!((pages, pages > 0), (left, true)),
                Err(error) => panic!("{error:?}"),
            }
            region.unregister(asked).unwrap();
            assert_eq!(region.copy(2, &contents(2, 8)).unwrap().stopped_by, Some(Stopped::NotRegistered));
            drop(region);
            os::unmap(memory.base, memory.pages * PAGE);
        }
    });
}

#[test]
fn what_the_program_holds_is_not_lent() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(4);
        let region = memory.adopt(&uffd).unwrap();
        assert_eq!(region.window(0..1).unwrap_err(), UffdError::Adopted);
        assert_eq!(region.shared(0..1).unwrap_err(), UffdError::Adopted);
        let own = uffd.map(1, RegisterModes::MISSING).unwrap();
        let mut window = own.window(0..1).unwrap();
        assert_eq!(region.discard(&mut window, 0..1).unwrap_err(), UffdError::Adopted);
        drop(window);
        let shared = own.shared(0..1).unwrap();
        assert_eq!(region.discard_shared(&shared, 0..1).unwrap_err(), UffdError::Adopted);
        assert!(discard(&own, 0..1).is_err(), "memory of ours is discarded by way of its windows");
    });
}

#[test]
fn only_whole_pages_are_adopted() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(4);
        let at = |start: usize, end: usize| adopt(&uffd, memory.base + start..memory.base + end, BOTH);
        for (start, end, expected) in [
            (0, 2 * PAGE, Some(0..2)),
            (1, 2 * PAGE, Some(1..2)),
            (1, 4 * PAGE - 1, Some(1..3)),
            (PAGE, PAGE, None),
            (1, 2 * PAGE - 1, None),
            (0, PAGE - 1, None),
            (0, PAGE, Some(0..1)),
        ] {
            match (at(start, end), expected) {
                (Ok(region), Some(pages)) => {
                    assert_eq!((region.base(), region.pages()), (memory.address(pages.start), pages.len()));
                }
                (Err(AdoptError::NoWholePage { len_bytes, page_size: PAGE }), None) => {
                    assert_eq!(len_bytes, end - start)
                }
                (other, expected) => panic!("{start}..{end}: {other:?}, not {expected:?}"),
            }
        }
        let none = adopt(&uffd, memory.base..memory.base + PAGE, RegisterModes::NONE).unwrap_err();
        assert!(matches!(none, AdoptError::Uffd(UffdError::ModesUnsupported { .. })), "{none:?}");
    });
}

#[test]
fn memory_of_several_mappings_is_one_region() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(30);
        memory.write(5..25, 1);
        // Three mappings: the middle one is not dumped, the last is empty in children.
        os::advise(memory.address(10), 10 * PAGE, libc::MADV_DONTDUMP).unwrap();
        os::advise(memory.address(20), 10 * PAGE, libc::MADV_WIPEONFORK).unwrap();
        let region = memory.adopt(&uffd).unwrap();
        fill(&region, 28, 2);
        region.writeprotect(8..22, WriteProtect::Protect).unwrap();
        thread::scope(|scope| {
            let monitor = scope.spawn(|| answer(&uffd, &region, 0));
            memory.write(8..22, 3);
            uffd.shut_down();
            assert_eq!(monitor.join().unwrap(), (0, 14));
        });
        drop(region);
        for page in 0..30 {
            memory.check(
                page,
                match page {
                    8..22 => 3,
                    5..8 | 22..25 => 1,
                    28 => 2,
                    _ => 0,
                },
            );
        }
        assert!(flags(memory.address(15)).contains(&"dd".into()));
        assert!(flags(memory.address(25)).contains(&"wf".into()));
    });
}

#[test]
fn memory_that_is_registered_is_not_adopted_again() {
    alone(|| {
        let (uffd, other) = (open(), open());
        let memory = Memory::map(10);
        let region = adopt(&uffd, memory.address(2)..memory.address(6), BOTH).unwrap();
        for (start, end) in [(0, 3), (5, 10), (3, 4), (0, 10), (2, 6)] {
            for uffd in [&uffd, &other] {
                let error = adopt(uffd, memory.address(start)..memory.address(end), BOTH).unwrap_err();
                // A page that is missing cannot be read now: either is a good answer, and nothing was changed.
                let AdoptError::Unfit { why, .. } = error else { panic!("{error:?}") };
                assert!(matches!(why, Unfit::Registered | Unfit::NotWritable | Unfit::Guarded), "{why:?}");
            }
        }
        let beside = adopt(&other, memory.address(6)..memory.address(10), BOTH).unwrap();
        fill(&region, 3, 1);
        fill(&beside, 3, 2);
        assert_eq!((load(memory.address(5)), load(memory.address(9))), (word(3, 1), word(3, 2)));
        // Read events of the wrong descriptor would hang the next line, not fail it: each has its own.
        thread::scope(|scope| {
            let reader = scope.spawn(|| load(memory.address(7)));
            assert_eq!(page_of(&beside, &read(&other, 1)[0]), 1);
            beside.zeropage(1..2).unwrap().complete().unwrap();
            assert_eq!(reader.join().unwrap(), 0);
        });
    });
}

// spec: H12
#[test]
fn nothing_asks_mincore_about_private_memory() {
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut folders = vec![format!("{crates}/process/src"), format!("{crates}/memory/src")];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(name);
                continue;
            }
            looked_at += 1;
            let text = std::fs::read_to_string(path).unwrap();
            assert!(!text.contains("mincore(") || name.ends_with("/sys.rs"), "{name}");
            // Of shared memory it tells something else.
            let is_shared = ["/alias.rs", "/probe.rs"].iter().any(|file| name.ends_with(file));
            assert!(!text.contains("sys::resident(") || is_shared, "{name}");
        }
    }
    assert!(looked_at > 30, "{looked_at}");
}
