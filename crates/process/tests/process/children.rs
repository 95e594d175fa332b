//! What forked children find, whatever other threads of the parent are doing.
//!
//! Method: a child looks at every word by plain loads, allocates nothing, and tells by its exit status.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, RegisterModes, Uffd as _, UffdError, Wait, WriteProtect};
use userfault_process::{Region, statistics};

use crate::access::{load, store};
use crate::alone::{alone, alone_both_ways, child};
use crate::os;
use crate::support::{
    Mode, PAGE, Random, asleep, contents, fill, map, map_protectable, open, open_in, page_of, read, scatter,
    until_asleep, word,
};

const EXIT_42: i32 = 42 << 8;
const KILLED_BY_BUS: i32 = libc::SIGBUS;

/// The number of the first page that is neither zeros nor one generation of itself, from 1; 0 if there is none.
fn first_torn(base: usize, pages: usize) -> usize {
    let is_torn = |page: &usize| {
        let start = base + page * PAGE;
        let first = load(start);
        let is_known = first == 0 || first & 0xFFFF_FFFF == word(*page, 0);
        !is_known || (1..PAGE / 8).any(|at| load(start + at * 8) != first)
    };
    (0..pages).find(is_torn).map_or(0, |page| page + 1)
}

/// The number of the first page of the range that is not what `expected` says in every word, from 1.
fn first_wrong(base: usize, pages: std::ops::Range<usize>, expected: impl Fn(usize) -> u64) -> usize {
    let is_wrong = |page: &usize| (0..PAGE / 8).any(|at| load(base + page * PAGE + at * 8) != expected(*page));
    pages.clone().find(is_wrong).map_or(0, |page| page + 1)
}

/// An exit status that names a page.
fn code(page: usize) -> i32 {
    i32::try_from(page.min(255)).unwrap()
}

/// Present pages, protected ones, one that is open again, missing ones, in all kinds of chunks.
fn checkered(region: &Region) {
    scatter(region, 0..40, 1);
    region.writeprotect(0..10, WriteProtect::Protect).unwrap();
    region.writeprotect(4..6, WriteProtect::Lift).unwrap();
    let lent = region.shared(20..22).unwrap();
    region.discard_shared(&lent, 20..22).unwrap();
}

fn is_there(page: usize) -> bool {
    page < 40 && page.is_multiple_of(2) && !(20..22).contains(&page)
}

fn as_checkered(page: usize) -> u64 {
    if is_there(page) { word(page, 1) } else { 0 }
}

/// Both see their own writes from the fork on, and what the child does is no fault of the parent.
fn separate(forked: fn(&mut dyn FnMut() -> i32) -> i32) {
    let uffd = open();
    let region = map_protectable(&uffd, 64);
    checkered(&region);
    let base = region.base();
    let status = forked(&mut || {
        let wrong = first_wrong(base, 0..64, as_checkered);
        (0..64).for_each(|page| store(base + page * PAGE, 7));
        let stored = (0..64).all(|page| load(base + page * PAGE) == 7);
        if wrong == 0 && stored { 42 } else { code(wrong.max(100)) }
    });
    assert_eq!(status, EXIT_42, "status / 256 - 1 is a page");
    // Nothing came here; missing is missing still, and protected protected.
    for page in (0..64).filter(|page| is_there(*page)) {
        assert_eq!(first_wrong(base, page..page + 1, as_checkered), 0);
    }
    thread::scope(|scope| {
        scope.spawn(|| store(base, 9));
        scope.spawn(|| assert_eq!(load(base + 63 * PAGE), word(63, 2)));
        let mut asked: Vec<usize> = read(&uffd, 2).iter().map(|event| page_of(&region, event)).collect();
        asked.sort_unstable();
        assert_eq!(asked, [0, 63]);
        region.writeprotect(0..1, WriteProtect::Lift).unwrap();
        fill(&region, 63, 2);
    });
}

// spec: H17, H19
#[test]
fn a_forked_child_has_plain_memory_of_its_own() {
    alone_both_ways(|| separate(|body| os::forked(body)));
}

// spec: H18, H19
#[test]
fn a_child_that_nobody_told_finds_out_at_its_first_fault() {
    alone_both_ways(|| separate(|body| os::cloned(body)));
}

// spec: H17, H19
#[test]
fn pages_that_were_closed_to_save_mappings_are_there_in_a_child() {
    alone_both_ways(|| {
        let uffd = open_in(Mode::Soft);
        let region = map(&uffd, 2048);
        (0..2048).step_by(3).for_each(|page| fill(&region, page, 1));
        let base = region.base();
        let expected = |page: usize| if page.is_multiple_of(3) { word(page, 1) } else { 0 };
        assert_eq!(os::forked(|| code(first_wrong(base, 0..2048, expected))), 0);
        assert_eq!(os::cloned(|| code(first_wrong(base, 0..2048, expected))), 0);
        (0..2048).step_by(3).for_each(|page| assert_eq!(first_wrong(base, page..page + 1, expected), 0));
    });
}

/// Fills, protects, lifts and discards pages of its own share, round and round.
fn churn(region: &Region, share: std::ops::Range<usize>, seed: u64, done: &AtomicBool) {
    let mut random = Random::from(seed);
    let lent = region.shared(share.clone()).unwrap();
    let mut generation = 1;
    while !done.load(Relaxed) {
        let start = share.start + random.below(share.len());
        let end = (start + 1 + random.below(6)).min(share.end);
        generation += 1;
        match random.below(5) {
            0 => region.discard_shared(&lent, start..end).unwrap(),
            1 => region.writeprotect(start..end, WriteProtect::Protect).unwrap(),
            2 => region.writeprotect(start..end, WriteProtect::Lift).unwrap(),
            3 => {
                let bytes: Vec<u8> = (start..end).flat_map(|page| contents(page, generation)).collect();
                let _present_ones_stay = region.copy_missing(start, &bytes).unwrap();
            }
            _ => {
                let _present_stops_it = region.install(start, &contents(start, generation)).unwrap();
            }
        }
    }
}

fn children_under_churn(mode: Mode) {
    const PAGES: usize = 96;
    const CHILDREN: usize = 250;
    let uffd = open_in(mode);
    let region = map_protectable(&uffd, PAGES + 8);
    if mode == Mode::Guarded {
        scatter(&region, 0..8, 1);
    }
    let base = region.base();
    // The last pages: four that stay, four that somebody sleeps at.
    (PAGES..PAGES + 4).for_each(|page| fill(&region, page, 5));
    let done = AtomicBool::new(false);
    let forks = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..3_usize {
            let (region, done) = (&region, &done);
            scope.spawn(move || churn(region, thread * 32..thread * 32 + 32, thread as u64 + 1, done));
        }
        for page in PAGES + 4..PAGES + 8 {
            scope.spawn(move || assert_eq!(load(base + page * PAGE), word(page, 6)));
        }
        until_asleep(4);
        let children: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for turn in 0..CHILDREN {
                        let look = || {
                            let torn = first_torn(base, PAGES);
                            let kept = first_wrong(base, PAGES..PAGES + 4, |page| word(page, 5));
                            let missing = first_wrong(base, PAGES + 4..PAGES + 8, |_| 0);
                            code(torn.max(kept).max(missing))
                        };
                        let status = if turn.is_multiple_of(2) { os::forked(look) } else { os::cloned(look) };
                        assert_eq!(status, 0, "status / 256 - 1 is a page; turn {turn}");
                        forks.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.join().unwrap());
        done.store(true, Relaxed);
        assert_eq!(asleep(), 4);
        (PAGES + 4..PAGES + 8).for_each(|page| fill(&region, page, 6));
    });
    assert_eq!(forks.load(Relaxed), 2 * CHILDREN);
    assert_eq!(first_torn_of_present(&region, PAGES), 0);
}

/// As [`first_torn`], in the parent, where a missing page would be waited for.
fn first_torn_of_present(region: &Region, pages: usize) -> usize {
    for page in 0..pages {
        let _present_ones_stay = region.copy_missing(page, &contents(page, 1)).unwrap();
    }
    first_torn(region.base(), pages)
}

// spec: H17, H18
#[test]
fn whatever_is_being_done_to_pages_a_child_finds_them_whole() {
    alone_both_ways(|| children_under_churn(Mode::Plain));
}

// spec: H17, H18
#[test]
fn whatever_is_being_done_to_guarded_pages_a_child_finds_them_whole() {
    alone_both_ways(|| children_under_churn(Mode::Guarded));
}

// spec: H17, H18
#[test]
fn whatever_is_being_done_to_pages_closed_for_their_mappings_a_child_finds_them_whole() {
    alone_both_ways(|| children_under_churn(Mode::Soft));
}

// spec: H18
#[test]
fn a_child_that_shares_the_memory_is_answered_as_the_parent_is() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 2);
        let base = region.base();
        thread::scope(|scope| {
            scope.spawn(|| {
                let event = read(&uffd, 1).pop().unwrap();
                fill(&region, page_of(&region, &event), 3);
            });
            let status = os::vforked(|| if load(base + PAGE) == word(1, 3) { 42 } else { 1 });
            assert_eq!(status, EXIT_42);
        });
        // Still the opener: a fault sleeps, and is told.
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(load(base), word(0, 4)));
            until_asleep(1);
            fill(&region, 0, 4);
        });
    });
}

// spec: H17
#[test]
fn programs_are_started_while_pages_come_and_go() {
    alone(|| {
        let uffd = open();
        let region = map_protectable(&uffd, 64);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| churn(&region, 0..32, 1, &done));
            scope.spawn(|| churn(&region, 32..64, 2, &done));
            for turn in 0..200 {
                let status = if turn % 2 == 0 {
                    std::process::Command::new("true").status().unwrap()
                } else {
                    os::command_by_fork("true").status().unwrap()
                };
                assert!(status.success(), "{status}");
            }
            done.store(true, Relaxed);
        });
    });
}

// spec: H17
#[test]
fn a_poisoned_page_is_a_bus_error_in_a_child_too() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 8);
        fill(&region, 0, 1);
        region.poison(2..4).unwrap().complete().unwrap();
        let base = region.base();
        for forked in
            [|body: &mut dyn FnMut() -> i32| os::forked(body), |body: &mut dyn FnMut() -> i32| os::cloned(body)]
        {
            for page in 0..8 {
                let status =
                    forked(&mut || if load(base + page * PAGE) == [word(0, 1), 0][page.min(1)] { 42 } else { 1 });
                assert_eq!(status, if (2..4).contains(&page) { KILLED_BY_BUS } else { EXIT_42 }, "page {page}");
            }
        }
    });
}

// spec: H17
#[test]
fn a_child_opens_a_host_of_its_own_and_so_does_its_child() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 4);
        fill(&region, 0, 1);
        let base = region.base();
        let works = || {
            let own = open();
            let region = map_protectable(&own, 8);
            fill(&region, 3, 2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let event = read(&own, 1).pop().unwrap();
                    fill(&region, page_of(&region, &event), 3);
                });
                assert_eq!(load(region.base()), word(0, 3));
            });
            let is_right =
                load(region.base() + 3 * PAGE) == word(3, 2) && statistics().is_some_and(|now| now.asleep == 0);
            (own, region, is_right)
        };
        let status = os::forked(|| {
            let (own, own_region, is_right) = works();
            let own_base = own_region.base();
            let status = os::forked(|| {
                let plain = load(own_base) == word(0, 3) && load(own_base + 7 * PAGE) == 0 && load(base) == word(0, 1);
                let refused = own_region.copy(5, &contents(5, 1)).is_err() && region.copy(2, &contents(2, 1)).is_err();
                drop((own_region.clone(), region.clone()));
                if plain && refused && works().2 { 42 } else { 1 }
            });
            drop((own, own_region));
            if is_right && status == EXIT_42 && load(base) == word(0, 1) && load(base + PAGE) == 0 { 42 } else { 2 }
        });
        assert_eq!(status, EXIT_42);
        fill(&region, 1, 1);
        assert_eq!(load(base + PAGE), word(1, 1));
        assert_eq!(uffd.read(Wait::Never, &mut Vec::new()).unwrap(), 0);
    });
}

// spec: H18
#[test]
fn what_a_child_unmaps_is_not_touched_when_it_leaves() {
    alone(|| {
        let uffd = open();
        let (kept, gone) = (map(&uffd, 4), map(&uffd, 4));
        fill(&kept, 0, 1);
        let (base, gone_base) = (kept.base(), gone.base());
        let mut gone = Some(gone);
        let status = os::cloned(|| {
            // Before the first fault: nobody has told this process that it is a child.
            drop(gone.take());
            let stranger = os::map_at(gone_base, 4 * PAGE, libc::PROT_READ);
            let plain = load(base) == word(0, 1) && load(base + PAGE) == 0;
            let unharmed = os::protection_of(gone_base).is_some_and(|bits| bits.starts_with("r--"));
            if stranger == gone_base && plain && unharmed { 42 } else { 1 }
        });
        assert_eq!(status, EXIT_42);
    });
}

// spec: H15, H18
#[test]
fn what_a_child_has_made_of_adopted_memory_after_it_unregistered_that_is_not_touched_when_it_faults() {
    alone(|| {
        let uffd = open();
        let other = map(&uffd, 4);
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let [private, shared] =
            [libc::MAP_PRIVATE, libc::MAP_SHARED].map(|flags| os::map(0, 4 * PAGE, read_write, flags));
        let region = crate::adopt::adopt(&uffd, private..private + 4 * PAGE, RegisterModes::MISSING).unwrap();
        let shared_region = crate::adopting::adopt(&uffd, shared, 4, None).unwrap();
        let status = os::cloned(|| {
            // Before the first fault: nobody has told this process that it is a child.
            let told = [region.unregister(0..4), shared_region.unregister(0..4)];
            let is_told = told.into_iter().all(|told| told == Err(UffdError::Forked));
            let unharmed = |base: usize| os::protection_of(base).is_some_and(|bits| bits.starts_with("r--"));
            for base in [private, shared] {
                os::unmap(base, 4 * PAGE);
                assert_eq!(os::map_at(base, 4 * PAGE, libc::PROT_READ), base);
            }
            let plain = load(other.base()) == 0;
            if is_told && plain && unharmed(private) && unharmed(shared) { 42 } else { 1 }
        });
        assert_eq!(status, EXIT_42);
    });
}

// spec: H17
#[test]
fn leaving_a_large_region_looks_at_few_of_its_states() {
    alone(|| {
        let uffd = open();
        let pages = 1 << 28;
        let region = uffd.map(pages, RegisterModes::MISSING).unwrap();
        let base = region.base();
        for page in [0, pages / 2, pages - 1] {
            fill(&region, page, 1);
        }
        let status = os::forked(|| {
            // It has read neither 2^28 states nor a table of them: 4,096 each, as the kernel maps them.
            let is_little = os::minor_faults() < 2048;
            let kept = [0, pages / 2, pages - 1].iter().all(|page| load(base + page * PAGE) == word(*page, 1));
            if kept && is_little && load(base + PAGE) == 0 { 42 } else { 1 + i32::from(is_little) }
        });
        assert_eq!(status, EXIT_42);
    });
}

// spec: H17
#[test]
fn a_real_segmentation_fault_in_a_child_stays_one() {
    let ended = child(|| {
        let uffd = open();
        let _region = map(&uffd, 4);
        let statuses = [os::forked(|| i32::from(load(16) == 0)), os::cloned(|| i32::from(load(16) == 0))];
        assert_eq!(statuses, [libc::SIGSEGV; 2]);
    });
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}
