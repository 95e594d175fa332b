//! What only pages that are made ready in a mirror can get wrong (M4); everything else runs both ways.

use userfault_abi::Features;
use userfault_client::{Region as _, Uffd as _, WriteProtect};
use userfault_process::raw::Memory;
use userfault_process::testing::{fail_host_calls, host_calls};
use userfault_process::{Region, Tuning, Uffd, tune};

use crate::access::{load, store};
use crate::alone::alone;
use crate::door::{Door, pages};
use crate::os;
use crate::seccomp::{install, refuse_if};
use crate::support::{
    CHUNK, PAGE, Random, contents, contents_of, fill, map, map_protectable, mappings, open, status_kb, word,
};

fn open_mirrored() -> Uffd {
    tune(Tuning { without_forced_writes: true, ..Tuning::default() }).unwrap();
    open()
}

fn holds(region: &Region, page: usize, generation: u64) {
    let file = os::memory_file();
    assert_eq!(
        os::kernel_reads(&file, region.base() + page * PAGE, PAGE),
        Some(contents(page, generation)),
        "page {page}"
    );
}

/// Whether all of these addresses are mapped.
fn is_mapped(addresses: std::ops::Range<usize>) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text| usize::from_str_radix(text, 16).unwrap();
    let reached = maps.lines().fold(addresses.start, |reached, line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        if (number(start)..number(end)).contains(&reached) { number(end) } else { reached }
    });
    reached >= addresses.end
}

// spec: H4
#[test]
fn pages_from_a_mirror_merge_with_their_neighbours_after_whole_fills_protected_ones_and_forks() {
    alone(|| {
        let uffd = open_mirrored();
        for pages in [1, 2, 3, 48, CHUNK, 3 * CHUNK + 5] {
            let region = crate::support::map_protectable(&uffd, pages);
            let mut window = region.window(0..pages).unwrap();
            for generation in 1..4 {
                // Everything the mirror has at once, twice.
                assert_eq!(region.copy(0, &contents_of(0..pages, generation)).unwrap().complete(), Ok(pages));
                (0..pages).for_each(|page| holds(&region, page, generation));
                region.discard(&mut window, 0..pages).unwrap();
                assert_eq!(region.copy_protected(0, &contents_of(0..pages, 9)).unwrap().complete(), Ok(pages));
                region.discard(&mut window, 0..pages).unwrap();
                assert_eq!(os::forked(|| 0), 0);
            }
            let before = mappings();
            let order = Random::new().order(pages);
            let (some, others) = order.split_at(pages / 2);
            for part in [some, others] {
                part.iter().for_each(|page| fill(&region, *page, 5));
                part.iter().for_each(|page| holds(&region, *page, 5));
                // Two open runs before a chunk is guarded.
                let chunks = pages.div_ceil(CHUNK);
                assert!(mappings() <= before + 4 * chunks, "{pages} pages: {before} mappings became {}", mappings());
            }
        }
    });
}

// spec: H4
#[test]
fn pages_from_a_mirror_merge_with_what_the_program_wrote_before_it_registered_its_memory() {
    alone(|| {
        tune(Tuning { without_forced_writes: true, ..Tuning::default() }).unwrap();
        let door = Door::open(Features::NONE);
        let memory = Memory::map(CHUNK).unwrap();
        (0..CHUNK).for_each(|page| store(memory.base() + page * PAGE, word(page, 1)));
        door.register(pages(&memory, 0..CHUNK), 1).unwrap();
        let before = mappings();
        crate::door::discard(&memory, 0..CHUNK).unwrap();
        for page in Random::new().order(CHUNK).into_iter().take(CHUNK / 2) {
            door.copy(pages(&memory, page..page + 1), &contents(page, 2), 0).unwrap();
            assert_eq!(load(memory.base() + page * PAGE + 8), word(page, 2));
        }
        assert!(mappings() <= before + 4, "{before} mappings became {}", mappings());
    });
}

/// Lets nothing be mapped again where a failed call has left nothing: there must be no such place.
fn forbid_mending() {
    let mended = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    install(&[refuse_if(libc::SYS_mmap, 3, mended.cast_unsigned(), libc::EPERM)], 0);
}

/// Fills nothing under half of what there is of `name`, as `limit` sets it.
fn missing_still(without_guards: bool, limit: fn(u64) -> u64, name: &str) {
    tune(Tuning { without_forced_writes: true, without_guards, ..Tuning::default() }).unwrap();
    let uffd = open();
    let region = map(&uffd, 64);
    fill(&region, 1, 1);
    forbid_mending();
    // Less than there is: inaccessible pages cannot become data, and nothing can be mapped.
    let (bytes, most) = (contents_of(20..30, 2), status_kb(name) as u64 * 1024 / 2);
    // Nothing may be allocated until the limit is what it was.
    let before = limit(most);
    let progress = region.copy(20, &bytes);
    limit(before);
    assert!(is_mapped(region.base()..region.base() + 64 * PAGE), "nobody else can get a place in the region");
    assert!(progress.unwrap().complete().is_err(), "the limit was reached");
    let file = os::memory_file();
    for page in (0..64).filter(|page| *page != 1) {
        assert_eq!(os::kernel_reads(&file, region.base() + page * PAGE, PAGE), None, "page {page}");
    }
    // What was made ready for them is gone, too.
    assert_eq!(region.zeropage(20..25).unwrap().complete(), Ok(5));
    (20..25)
        .for_each(|page| assert_eq!(os::kernel_reads(&file, region.base() + page * PAGE, PAGE), Some(vec![0; PAGE])));
    assert_eq!(region.copy(25, &contents_of(25..30, 3)).unwrap().complete(), Ok(5));
    (25..30).for_each(|page| holds(&region, page, 3));
    holds(&region, 1, 1);
}

// spec: H5
#[test]
fn where_data_is_limited_no_hole_is_ever_unmapped_and_pages_are_missing_still() {
    alone(|| missing_still(false, os::limit_data, "VmData"));
}

// spec: H5
#[test]
fn where_data_is_limited_and_there_are_no_guards_pages_are_missing_still() {
    alone(|| missing_still(true, os::limit_data, "VmData"));
}

// spec: H5
#[test]
fn where_addresses_are_limited_no_hole_is_ever_unmapped_and_pages_are_missing_still() {
    alone(|| missing_still(false, os::limit_addresses, "VmSize"));
}

// spec: H1, H5
#[test]
fn where_data_is_limited_and_suffices_pages_come_and_merge_with_their_neighbours() {
    alone(|| {
        let uffd = open_mirrored();
        let region = map_protectable(&uffd, CHUNK);
        fill(&region, 0, 1);
        forbid_mending();
        let before = mappings();
        os::limit_data(1 << 40);
        for page in Random::new().order(CHUNK).into_iter().filter(|page| *page != 0) {
            if page % 3 == 0 {
                assert_eq!(region.copy_protected(page, &contents(page, 1)).unwrap().complete(), Ok(1));
                region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap();
            } else {
                fill(&region, page, 1);
            }
        }
        (0..CHUNK).for_each(|page| holds(&region, page, 1));
        store(region.base() + 7 * PAGE, 1);
        assert!(mappings() <= before + 4, "{before} mappings became {}", mappings());
    });
}

#[test]
fn a_program_that_locks_all_its_memory_has_only_its_pages_locked_not_the_mirror() {
    alone(|| {
        let uffd = open_mirrored();
        let old = map(&uffd, 16 * CHUNK);
        fill(&old, 3, 1);
        if let Err(error) = os::lock_all() {
            println!("skipped: because {error}");
            return;
        }
        let before = status_kb("VmRSS");
        let new = map(&uffd, 16 * CHUNK);
        for region in [&old, &new] {
            // What was made ready and could not be moved is gone.
            fail_host_calls(1, usize::MAX);
            assert!(region.copy(8, &contents(8, 3)).unwrap().complete().is_err());
            fail_host_calls(0, 0);
            (5..40).step_by(2).for_each(|page| fill(region, page, 2));
            let mut window = region.window(0..64).unwrap();
            region.discard(&mut window, 7..8).unwrap();
            assert_eq!(region.zeropage(7..9).unwrap().complete(), Ok(2));
            assert_eq!([7, 8].map(|page| load(region.base() + page * PAGE + 64)), [0, 0]);
            assert_eq!(load(region.base() + 9 * PAGE + 64), word(9, 2));
        }
        let grown = status_kb("VmRSS").saturating_sub(before);
        assert!(grown < 1024, "{grown} kB");
    });
}

// spec: H6
#[test]
fn a_mirror_takes_as_many_calls_and_mappings_for_a_tebibyte_as_for_a_mebibyte() {
    alone(|| {
        let uffd = open_mirrored();
        drop(map(&uffd, 256));
        let cost = |pages| {
            let (lines, calls) = (mappings(), host_calls());
            let region = uffd.map(pages, userfault_abi::RegisterModes::MISSING).unwrap();
            (mappings() - lines, host_calls() - calls, region)
        };
        let (small, large) = (cost(256), cost(1 << 28));
        assert_eq!(small.1, large.1);
        assert!(small.0 <= 8 && large.0 <= 8, "{} {}", small.0, large.0);
        for page in [0, (1 << 28) - 1, 12_345_678] {
            fill(&large.2, page, 1);
            holds(&large.2, page, 1);
        }
    });
}
