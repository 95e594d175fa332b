//! Host calls that fail, one after the other: a page stays as it was, or is what it was to become.

use std::fs::File;

use userfault_abi::errno::Errno;
use userfault_abi::{CopyModes, Features, Range};
use userfault_process::raw::Memory;
use userfault_process::testing::{fail_host_calls, host_calls};

use crate::access::{load, store};
use crate::alone::alone_both_ways;
use crate::door::{Door, discard, pages};
use crate::os;
use crate::support::{CHUNK, Mode, PAGE, asleep, contents, contents_of, open_in, word};

const MISSING: u64 = 1;
const WP: u64 = 2;
/// The pages that an operation is tried on: over a chunk's border.
const TARGET: std::ops::Range<usize> = CHUNK - 6..CHUNK + 6;
/// More than the host tries again.
const FOR_EVER: usize = 1 << 20;

/// What a page is, as far as anybody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Missing,
    /// Every word says this generation, 0 for zeros; whether a system call may write there.
    Present(u64, bool),
}

struct World {
    door: Door,
    memory: Memory,
    file: File,
}

impl World {
    /// Two chunks, of which every fourth page is present, and nothing of the target.
    fn new(scattered: bool) -> Self {
        let world =
            Self { door: Door::open(Features::NONE), memory: Memory::map(2 * CHUNK).unwrap(), file: os::memory_file() };
        world.door.register(world.all(), MISSING | WP).unwrap();
        let others = (0..2 * CHUNK).step_by(if scattered { 40 } else { CHUNK }).filter(|page| !TARGET.contains(page));
        others.for_each(|page| world.copy(page..page + 1, 9, 0).unwrap());
        world
    }

    fn all(&self) -> Range {
        pages(&self.memory, 0..2 * CHUNK)
    }

    fn target(&self) -> Range {
        pages(&self.memory, TARGET)
    }

    fn copy(&self, target: std::ops::Range<usize>, generation: u64, modes: u64) -> Result<(), Errno> {
        self.door.copy(pages(&self.memory, target.clone()), &contents_of(target, generation), modes)
    }

    fn address(&self, page: usize) -> usize {
        self.memory.base() + page * PAGE
    }

    /// Tells what a page is without changing it, if it can.
    fn look(&self, page: usize) -> Page {
        let unreadable = os::kernel_reads(&self.file, self.address(page), PAGE).is_none();
        let probe = self.copy(page..page + 1, 77, CopyModes::DONTWAKE.bits());
        if probe.is_ok() {
            assert!(unreadable, "page {page} was missing, but could be read");
            discard(&self.memory, page..page + 1).unwrap();
            return Page::Missing;
        }
        assert_eq!(probe, Err(Errno::EEXIST), "page {page}");
        let first = load(self.address(page));
        let generation = if first == 0 { 0 } else { first >> 32 };
        let expected = if first == 0 { vec![0; PAGE] } else { contents(page, generation) };
        assert_eq!(os::kernel_reads(&self.file, self.address(page), PAGE), Some(expected), "page {page}");
        Page::Present(generation, is_writable(self.address(page)))
    }
}

/// Whether the hardware lets the page be written, as the kernel's list of mappings says.
fn is_writable(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address) && rest.starts_with("rw")
    })
}

/// Makes the `n`th host call of `work` fail, and all calls after it, for n = 1, 2, … until none does; each
/// time in a new world, where every page of the target is then one of `allowed`, and `work` done again
/// makes all of them the last of `allowed`.
fn fail_each(
    scattered: bool,
    how_many: usize,
    prepare: impl Fn(&World),
    work: impl Fn(&World) -> Result<(), Errno>,
    allowed: &[Page],
) {
    let last = *allowed.last().unwrap();
    for n in 0.. {
        let world = World::new(scattered);
        prepare(&world);
        fail_host_calls(n, how_many);
        let before = host_calls();
        let result = work(&world);
        let calls = host_calls() - before;
        fail_host_calls(0, 0);
        for page in TARGET {
            let seen = world.look(page);
            assert!(allowed.contains(&seen), "call {n} of {calls} failed: page {page} is {seen:?}");
            assert!(result.is_err() || seen == last, "call {n} of {calls}: success, but page {page} is {seen:?}");
        }
        for page in (0..2 * CHUNK).filter(|page| !TARGET.contains(page)).step_by(100) {
            let seen = world.look(page);
            assert!(matches!(seen, Page::Missing | Page::Present(9, _)), "call {n} failed: page {page} is {seen:?}");
        }
        finish(&world, &work, last, n);
        assert_eq!(asleep(), 0);
        if calls <= n {
            assert_eq!(result, Ok(()));
            println!("measured: {n} calls failed one after the other, {how_many} each time");
            break;
        }
    }
}

/// With nothing in its way the work comes to its end.
fn finish(world: &World, work: impl Fn(&World) -> Result<(), Errno>, last: Page, n: usize) {
    for page in TARGET {
        if world.look(page) != last {
            // Page by page, as some are done.
            let _some_exist = work(world);
            let _none_is_left = world.copy(page..page + 1, 1, 0);
        }
    }
    let end: Vec<_> = TARGET.map(|page| world.look(page)).collect();
    assert!(end.iter().all(|page| *page != Page::Missing) || last == Page::Missing, "after call {n}: {end:?}");
}

fn each_way(test: impl Fn(bool, usize)) {
    for scattered in [false, true] {
        for how_many in [1, FOR_EVER] {
            test(scattered, how_many);
        }
    }
}

const NEW: Page = Page::Present(1, true);
const READONLY: Page = Page::Present(1, false);

fn copies() {
    each_way(|scattered, how_many| {
        let nothing = |_: &World| {};
        let copy = |world: &World| world.copy(TARGET, 1, 0);
        fail_each(scattered, how_many, nothing, copy, &[Page::Missing, NEW]);
        let protected = |world: &World| world.copy(TARGET, 1, CopyModes::WP.bits());
        fail_each(scattered, how_many, nothing, protected, &[Page::Missing, READONLY]);
    });
}

// spec: H5
#[test]
fn a_copy_of_which_any_host_call_fails_leaves_each_page_missing_or_complete() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        copies();
    });
}

// spec: H5
#[test]
fn without_guards_a_copy_of_which_any_host_call_fails_leaves_each_page_missing_or_complete() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Soft);
        copies();
    });
}

// spec: H5
#[test]
fn after_a_copy_that_failed_halfway_zeros_are_zeros() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        each_way(|scattered, how_many| {
            let prepare = |world: &World| {
                for n in 0..6 {
                    fail_host_calls(n, FOR_EVER);
                    let _fails = world.copy(TARGET, 5, 0);
                    fail_host_calls(0, 0);
                    for page in TARGET {
                        let _gone = discard(&world.memory, page..page + 1);
                    }
                }
                // A source that ends in the middle of a page.
                let source = crate::support::contents_of(0..3, 6);
                let held = Memory::map(2).unwrap();
                for (at, chunk) in source[..2 * PAGE].chunks(8).enumerate() {
                    store(held.base() + at * 8, u64::from_ne_bytes(chunk.try_into().unwrap()));
                }
                let short = pages(&world.memory, TARGET.start..TARGET.start + 3);
                os::protect(held.base() + PAGE, PAGE, libc::PROT_NONE).unwrap();
                assert!(world.door.copy_from(short, held.base() + 100, 0).is_err());
                os::protect(held.base() + PAGE, PAGE, libc::PROT_READ).unwrap();
                for page in TARGET {
                    assert_eq!(world.look(page), Page::Missing);
                }
            };
            let zeros = |world: &World| world.door.zeropage(world.target());
            fail_each(scattered, how_many, prepare, zeros, &[Page::Missing, Page::Present(0, true)]);
        });
    });
}

// spec: H5, H16
#[test]
fn a_discard_of_which_any_host_call_fails_leaves_each_page_missing_or_as_it_was() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        each_way(|scattered, how_many| {
            let prepare = |world: &World| world.copy(TARGET, 1, 0).unwrap();
            let work = |world: &World| discard(&world.memory, TARGET);
            fail_each(scattered, how_many, prepare, work, &[NEW, Page::Missing]);
        });
    });
}

// spec: H5
#[test]
fn write_protection_of_which_any_host_call_fails_is_never_lost_and_never_stuck() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        each_way(|scattered, how_many| {
            let prepare = |world: &World| {
                world.copy(TARGET, 1, 0).unwrap();
                // Several runs in one chunk: protected ones between others.
                for page in TARGET.step_by(3) {
                    world.door.writeprotect(pages(&world.memory, page..page + 1), true).unwrap();
                }
            };
            for protect in [true, false] {
                let work = |world: &World| world.door.writeprotect(world.target(), protect);
                let (from, to) = if protect { (NEW, READONLY) } else { (READONLY, NEW) };
                let before = |world: &World| {
                    prepare(world);
                    if !protect {
                        world.door.writeprotect(world.target(), true).unwrap();
                    }
                };
                fail_each(scattered, how_many, before, work, &[from, to]);
            }
        });
    });
}

// spec: H5, H7
#[test]
fn a_protection_that_could_not_be_lifted_as_a_whole_still_reports_the_writes_it_says_it_does() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Soft);
        let target = 100..164;
        for n in 0..40 {
            let world = World::new(false);
            world.copy(target.clone(), 1, CopyModes::WP.bits()).unwrap();
            // For lack of mappings all of them are closed; then some are touched: several runs to lift.
            world.copy(CHUNK + 8..CHUNK + 80, 1, 0).unwrap();
            (0..8).for_each(|page| world.copy(page * 7 + 1..page * 7 + 2, 1, 0).unwrap());
            target.clone().step_by(3).for_each(|page| assert_eq!(load(world.address(page)), word(page, 1)));
            fail_host_calls(n, FOR_EVER);
            let result = world.door.writeprotect(pages(&world.memory, target.clone()), false);
            fail_host_calls(0, 0);
            for page in target.clone() {
                // Protecting again changes nothing where the page is protected, as the engine has it.
                world.door.writeprotect(pages(&world.memory, page..page + 1), true).unwrap();
                assert!(!is_writable(world.address(page)), "call {n} failed: page {page}, {result:?}");
            }
        }
    });
}

// spec: H5
#[test]
fn unregistering_of_which_any_host_call_fails_leaves_plain_memory_with_its_contents() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        each_way(|scattered, how_many| {
            for n in 0..8 {
                let world = World::new(scattered);
                world.copy(TARGET, 1, CopyModes::WP.bits()).unwrap();
                fail_host_calls(n, how_many);
                let part = pages(&world.memory, TARGET.start - 20..TARGET.end - 3);
                assert_eq!(world.door.unregister(part), Ok(()));
                fail_host_calls(0, 0);
                for page in TARGET.start - 20..TARGET.end - 3 {
                    let there = TARGET.contains(&page) || scattered && page % 40 == 0;
                    let generation = if page % 40 == 0 && !TARGET.contains(&page) { 9 } else { 1 };
                    let expected = if there { word(page, generation) } else { 0 };
                    assert_eq!(load(world.address(page) + 8), expected, "call {n} failed: page {page}");
                    store(world.address(page) + 8, 3);
                    assert_eq!(load(world.address(page) + 8), 3);
                }
                assert_eq!(world.look(TARGET.end - 1), READONLY);
            }
        });
    });
}

// spec: H5
#[test]
fn registering_of_which_any_host_call_fails_changes_nothing() {
    alone_both_ways(|| {
        let _host = open_in(Mode::Guarded);
        for how_many in [1, FOR_EVER] {
            for n in 0.. {
                let world = World::new(true);
                // Two gaps with contents between registered pages.
                let gaps = [40..60, 700..720];
                for gap in gaps.clone() {
                    world.door.unregister(pages(&world.memory, gap.clone())).unwrap();
                    gap.clone().step_by(2).for_each(|page| store(world.address(page), word(page, 4)));
                }
                fail_host_calls(n, how_many);
                let before = host_calls();
                let result = world.door.register(world.all(), MISSING | WP);
                let calls = host_calls() - before;
                fail_host_calls(0, 0);
                for page in gaps.clone().into_iter().flatten() {
                    if result.is_err() && page % 2 == 1 {
                        // Plain memory: zeros, without anybody being asked.
                        assert_eq!(load(world.address(page)), 0, "call {n} failed: page {page}");
                        continue;
                    }
                    if page % 2 == 0 {
                        assert_eq!(load(world.address(page)), word(page, 4), "call {n} failed: page {page}");
                    } else {
                        assert_eq!(world.look(page), Page::Missing, "call {n} failed: page {page}");
                    }
                }
                if result.is_err() {
                    // What is given back now is missing once it is registered.
                    for gap in gaps.clone() {
                        discard(&world.memory, gap).unwrap();
                    }
                    world.door.register(world.all(), MISSING | WP).unwrap();
                    for page in gaps.into_iter().flatten() {
                        assert_eq!(world.look(page), Page::Missing, "call {n} failed: page {page}");
                    }
                }
                if calls <= n {
                    assert_eq!(result, Ok(()));
                    println!("measured: register, {n} calls failed one after the other");
                    break;
                }
            }
        }
    });
}
