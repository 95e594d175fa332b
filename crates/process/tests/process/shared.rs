//! Shared memory: what others write is seen and never overwritten, what we fill is theirs, too.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use userfault_abi::{CopyModes, RegisterModes, ZeropageModes};
use userfault_client::{Options, Progress, Shared as _, Stopped, Uffd as _, UffdError, Wait};
use userfault_process::testing::{fail_host_calls, host_calls};
use userfault_process::{FileRegion, Protocol, Tuning, Uffd, tune};

use crate::access::{load, store};
use crate::adopting::{adopt, adopt_in};
use crate::alone::{alone, alone_both_ways, tuning};
use crate::hammer::{refills, run_with};
use crate::os;
use crate::support::{
    CHUNK, Events, PAGE, Random, asleep, contents, contents_of, mappings, open, read, until_asleep, word,
};

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRESENT: Progress = Progress::stopped(0, Stopped::AlreadyPresent);

fn map_shared(uffd: &Uffd, pages: usize) -> FileRegion {
    uffd.map_shared(pages, RegisterModes::MISSING).unwrap()
}

fn fill(region: &FileRegion, page: usize, generation: u64) {
    let progress = region.copy(page, &contents(page, generation), CopyModes::NONE);
    assert_eq!(progress.unwrap().complete(), Ok(1), "page {page}");
}

/// Every byte of a page of a mapping that faults on nothing.
fn differs(view: usize, page: usize, expected: u64) -> Option<usize> {
    (0..PAGE).step_by(8).find(|at| load(view + page * PAGE + at) != expected)
}

fn write_page(view: usize, page: usize, generation: u64) {
    (0..PAGE).step_by(8).for_each(|at| store(view + page * PAGE + at, word(page, generation)));
}

fn no_events(uffd: &Uffd) {
    let mut events = Events::new();
    assert_eq!(uffd.read(Wait::Never, &mut events).unwrap(), 0, "{events:?}");
}

/// Lets a failing test fail instead of hanging.
struct Rescue<'a>(&'a FileRegion);

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.unregister(0..self.0.pages());
        }
    }
}

/// Adopts memory that `view` shows, too: old contents, another process's, ours, and what is left.
fn share_with_another_process(uffd: &Uffd, base: usize, view: usize, file: Option<&File>) {
    const PAGES: usize = CHUNK + 40;
    [3, 4, 500].into_iter().for_each(|page| write_page(base, page, 1));
    let region = adopt(uffd, base, PAGES, file).unwrap();
    for page in [3, 4, 500] {
        assert_eq!(differs(base, page, word(page, 1)), None, "page {page} kept what it had");
        assert_eq!(region.copy(page, &contents(page, 9), CopyModes::NONE), Ok(PRESENT));
    }
    // Another process writes pages that are missing here.
    let others = [5, 20, 40, 41, 42, CHUNK, CHUNK + 39];
    let status = os::forked(|| {
        others.into_iter().for_each(|page| write_page(view, page, 2));
        0
    });
    assert_eq!(status, 0);
    // Some are touched, some are filled in the middle of others, the last stays as it is.
    for page in [5, 20, 40] {
        assert_eq!(differs(base, page, word(page, 2)), None, "page {page}");
    }
    no_events(uffd);
    let progress = region.copy(39, &contents_of(39..44, 3), CopyModes::NONE);
    assert_eq!(progress, Ok(Progress::stopped(1, Stopped::AlreadyPresent)));
    assert_eq!(region.copy(CHUNK, &contents(CHUNK, 3), CopyModes::NONE), Ok(PRESENT));
    assert_eq!(region.zeropage(41..43, ZeropageModes::NONE), Ok(PRESENT));
    for page in [41, 42, CHUNK] {
        assert_eq!(differs(base, page, word(page, 2)), None, "page {page} was not overwritten");
    }
    // What is filled here is seen there.
    (100..200).step_by(3).for_each(|page| fill(&region, page, 4));
    assert_eq!(region.zeropage(300..302, ZeropageModes::NONE), Ok(Progress::all(2)));
    let status = os::forked(|| {
        let filled = (100..200).step_by(3).all(|page| differs(view, page, word(page, 4)).is_none());
        let zeros = (300..302).all(|page| differs(view, page, 0).is_none());
        i32::from(!filled) + 2 * i32::from(!zeros)
    });
    assert_eq!(status, 0);
    // A page that is missing is asked for.
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| load(base + 60 * PAGE + 16));
        assert_eq!(crate::adopting::page_of(&region, &read(uffd, 1)[0]), 60);
        fill(&region, 60, 5);
        assert_eq!(reader.join().unwrap(), word(60, 5));
    });
    drop(region);
    // Plain shared memory with its contents; the rest are zeros, and nobody is asked.
    let generations = |page| match page {
        3 | 4 | 500 => 1,
        5 | 20 | 40 | 41 | 42 | CHUNK => 2,
        _ if page == CHUNK + 39 => 2,
        39 => 3,
        60 => 5,
        100..200 if page % 3 == 1 => 4,
        _ => 0,
    };
    for page in 0..PAGES {
        let expected = if generations(page) == 0 { 0 } else { word(page, generations(page)) };
        assert_eq!((differs(base, page, expected), differs(view, page, expected)), (None, None), "page {page}");
        write_page(base, page, 7);
        assert_eq!(differs(view, page, word(page, 7)), None);
    }
    no_events(uffd);
    assert_eq!(asleep(), 0);
}

// spec: H20, m/copy/shared, m/fault/file
#[test]
fn adopted_shared_memory_without_a_file_is_shared_with_another_process() {
    alone_both_ways(|| {
        let uffd = open();
        let base = os::map_shared(None, (CHUNK + 40) * PAGE, READ_WRITE);
        let view = os::second_view(base, (CHUNK + 40) * PAGE);
        share_with_another_process(&uffd, base, view, None);
        // And once more: it was given back whole.
        os::forget_contents(base, (CHUNK + 40) * PAGE);
        share_with_another_process(&uffd, base, view, None);
    });
}

fn share_a_file_with_another_process(uffd: &Uffd) {
    let file = os::memory_file();
    // It begins in the middle of the file.
    file.set_len((2 * CHUNK * PAGE) as u64).unwrap();
    let [whole, view] = [(); 2].map(|()| os::map_shared(Some(&file), 2 * CHUNK * PAGE, READ_WRITE));
    share_with_another_process(uffd, whole + 7 * PAGE, view + 7 * PAGE, Some(&file));
}

// spec: H20, m/copy/shared, m/fault/file
#[test]
fn an_adopted_file_in_memory_is_shared_with_another_process() {
    alone_both_ways(|| share_a_file_with_another_process(&open()));
}

// spec: H20, m/copy/shared, m/fault/file
#[test]
fn without_guards_an_adopted_file_in_memory_is_shared_with_another_process() {
    alone_both_ways(|| {
        tune(Tuning { without_guards: true, ..tuning() }).unwrap();
        share_a_file_with_another_process(&open());
    });
}

/// The file's bytes, read beside every mapping.
fn in_file(region: &FileRegion, page: usize) -> Vec<u8> {
    let file = File::from(region.file().unwrap().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; PAGE];
    file.read_exact_at(&mut bytes, (page * PAGE) as u64).unwrap();
    bytes
}

// spec: H20, H4, m/zeropage/kind
#[test]
fn mapped_shared_memory_is_filled_punched_and_filled_again_with_every_byte_in_the_file() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map_shared(&uffd, CHUNK);
        let shared = region.shared(0..CHUNK).unwrap();
        let before = mappings();
        for generation in 1..4 {
            for page in Random::new().order(CHUNK) {
                fill(&region, page, generation);
            }
            for page in 0..CHUNK {
                assert_eq!(shared.compare(page * PAGE, &contents(page, generation)), None);
                assert_eq!(in_file(&region, page), contents(page, generation));
            }
            assert!(mappings() <= before + 2, "guards merge: {before} became {}", mappings());
            region.punch(10..CHUNK - 3).unwrap();
            assert_eq!(in_file(&region, 10), vec![0; PAGE], "a hole");
            assert_eq!(shared.compare(9 * PAGE, &contents(9, generation)), None);
            region.punch(0..CHUNK).unwrap();
        }
        // Written beside the mapping: there, without anybody being asked.
        region.populate(100, &contents_of(100..103, 8)).unwrap();
        assert_eq!(shared.compare(100 * PAGE, &contents_of(100..103, 8)), None);
        no_events(&uffd);
        // Punched before it was ever touched here.
        region.populate(200, &contents(200, 8)).unwrap();
        region.punch(200..201).unwrap();
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let reader = scope.spawn(|| shared.compare(200 * PAGE, &contents(200, 9)));
            assert_eq!(crate::adopting::page_of(&region, &read(&uffd, 1)[0]), 200);
            fill(&region, 200, 9);
            assert_eq!(reader.join().unwrap(), None);
        });
        // Unregistered holes are zeros.
        region.unregister(190..210).unwrap();
        assert_eq!(shared.compare(190 * PAGE, &vec![0; 10 * PAGE]), None);
        assert_eq!(shared.compare(200 * PAGE, &contents(200, 9)), None);
        region.punch(190..210).unwrap();
        assert_eq!(shared.compare(190 * PAGE, &vec![0; 20 * PAGE]), None);
        let reached = region.copy(195, &contents(195, 1), CopyModes::NONE);
        assert_eq!(reached, Ok(Progress::stopped(0, Stopped::NotRegistered)));
    });
}

// spec: H17, H20
#[test]
fn a_forked_child_has_plain_shared_memory_and_what_it_writes_is_there_for_its_parent() {
    alone_both_ways(|| {
        let uffd = open();
        let base = os::map_shared(None, CHUNK * PAGE, READ_WRITE);
        let adopted = adopt(&uffd, base, CHUNK, None).unwrap();
        let mapped = map_shared(&uffd, CHUNK);
        for region in [&adopted, &mapped] {
            // Guarded in one half, closed in the other.
            (0..CHUNK / 2).step_by(2).for_each(|page| fill(region, page, 1));
        }
        let status = os::forked(|| {
            let bases = [base, mapped.base()];
            let is_plain = bases.into_iter().all(|base| {
                (0..CHUNK).all(|page| {
                    let is_there = page < CHUNK / 2 && page % 2 == 0;
                    let is_right = differs(base, page, if is_there { word(page, 1) } else { 0 }).is_none();
                    if page == 33 || page == 400 {
                        write_page(base, page, 2);
                    }
                    is_right
                })
            });
            i32::from(!is_plain)
        });
        assert_eq!(status, 0);
        for base in [base, mapped.base()] {
            for page in [33, 400] {
                assert_eq!(differs(base, page, word(page, 2)), None, "page {page}");
            }
            // Looked at by the child: zeros, which are contents of a file.
            assert_eq!(differs(base, 34, word(34, 1)), None);
        }
        no_events(&uffd);
    });
}

// spec: m/fault/shared-file
#[test]
fn who_sleeps_on_one_mapping_of_a_file_is_not_woken_by_a_fill_through_another() {
    alone(|| {
        let uffd = open();
        let region = map_shared(&uffd, 8);
        let file = File::from(region.file().unwrap().try_clone_to_owned().unwrap());
        let base = os::map_shared(Some(&file), 8 * PAGE, READ_WRITE);
        let other = adopt(&uffd, base, 8, Some(&file)).unwrap();
        thread::scope(|scope| {
            let _rescue = Rescue(&other);
            let reader = scope.spawn(|| load(base + 2 * PAGE + 8));
            assert_eq!(crate::adopting::page_of(&other, &read(&uffd, 1)[0]), 2);
            until_asleep(1);
            fill(&region, 2, 1);
            assert_eq!(asleep(), 1);
            assert_eq!(other.copy(2, &contents(2, 9), CopyModes::NONE), Ok(PRESENT));
            assert_eq!(asleep(), 1);
            other.wake(2..3).unwrap();
            assert_eq!(reader.join().unwrap(), word(2, 1));
        });
        assert_eq!(differs(base, 2, word(2, 1)), None);
    });
}

// spec: H20, m/copy/shared
#[test]
fn room_that_is_reserved_in_a_file_and_not_written_is_missing() {
    alone(|| {
        let uffd = open();
        let region = map_shared(&uffd, 4);
        os::reserve(&region.file().unwrap(), PAGE, 2 * PAGE);
        fill(&region, 1, 1);
        assert_eq!(in_file(&region, 1), contents(1, 1));
        let shared = region.shared(0..4).unwrap();
        assert_eq!(shared.compare(PAGE, &contents(1, 1)), None);
    });
}

// spec: H20, m/copy/shared
#[test]
fn the_last_page_of_a_file_that_ends_inside_of_it_keeps_its_contents() {
    alone_both_ways(|| {
        let uffd = open();
        // The last length ends inside of a page that has no contents.
        for (len, present) in [(2 * PAGE + 1, true), (2 * PAGE + 100, true), (3 * PAGE, true), (2 * PAGE + 100, false)]
        {
            let file = os::memory_file();
            file.set_len(len as u64).unwrap();
            let base = os::map_shared(Some(&file), 3 * PAGE, READ_WRITE);
            store(base, word(0, 1));
            if present {
                store(base + 2 * PAGE, word(2, 1));
            }
            let region = adopt(&uffd, base, 3, Some(&file)).unwrap();
            fill(&region, 1, 2);
            let last = region.copy(2, &contents(2, 2), CopyModes::NONE);
            assert_eq!(last, Ok(if present { PRESENT } else { Progress::all(1) }), "{len}");
            let generation = if present { 1 } else { 2 };
            let expected = [word(0, 1), word(1, 2), word(2, generation)];
            assert_eq!([0, 1, 2].map(|page| load(base + page * PAGE)), expected, "{len}");
            no_events(&uffd);
        }
    });
}

/// Refills pages under readers, as `hammer` does to private memory.
fn hammer(uffd: &Uffd, pages: &[usize], count: usize) {
    let region = map_shared(uffd, count);
    let shared = region.shared(0..count).unwrap();
    pages.iter().for_each(|page| fill(&region, *page, 1));
    run_with(&shared, pages, refills(), |page, generation| {
        region.punch(page..page + 1).unwrap();
        fill(&region, page, generation);
    });
}

// spec: H1, H20
#[test]
fn a_shared_page_is_complete_or_absent_while_it_is_filled_punched_and_filled_again() {
    alone_both_ways(|| hammer(&open(), &(0..48).collect::<Vec<_>>(), 48));
}

// spec: H1, H2, H20
#[test]
fn a_shared_page_of_a_guarded_chunk_is_complete_or_absent_while_it_is_filled_punched_and_filled_again() {
    alone_both_ways(|| hammer(&open(), &(0..96).step_by(2).collect::<Vec<_>>(), CHUNK));
}

// spec: H1, H7, H20
#[test]
fn a_shared_page_is_complete_or_absent_where_present_pages_are_closed_again_for_lack_of_mappings() {
    alone_both_ways(|| {
        tune(Tuning { mapping_budget: Some(2), without_guards: true, ..tuning() }).unwrap();
        let pages: Vec<_> = (0..20).flat_map(|chunk| [chunk * CHUNK + 3, chunk * CHUNK + 7]).collect();
        hammer(&open(), &pages, 20 * CHUNK);
    });
}

const TARGET: std::ops::Range<usize> = CHUNK - 6..CHUNK + 6;

/// Fails the nth host call of a copy, of zeros and of a punch: each page is as it was or as it was to be.
fn fail_each(scattered: bool, how_many: usize) {
    let uffd = open();
    for n in 0.. {
        let region = map_shared(&uffd, 2 * CHUNK);
        let others = (0..2 * CHUNK).step_by(if scattered { 40 } else { CHUNK }).filter(|page| !TARGET.contains(page));
        others.clone().for_each(|page| fill(&region, page, 9));
        let bytes = contents_of(TARGET, 1);
        let before = host_calls();
        let failed = |work: &dyn Fn() -> bool| {
            fail_host_calls(n, how_many);
            let worked = work();
            fail_host_calls(0, 0);
            worked
        };
        let copied = failed(&|| region.copy(TARGET.start, &bytes, CopyModes::NONE).unwrap().complete().is_ok());
        let missing = |page| {
            let absent = os::kernel_reads(&os::memory_file(), region.base() + page * PAGE, PAGE).is_none();
            assert!(
                !absent || in_file(&region, page) == vec![0; PAGE],
                "call {n} failed: page {page}: bytes left behind"
            );
            absent
        };
        for page in TARGET {
            let is_whole = !missing(page) && in_file(&region, page) == contents(page, 1);
            assert!(is_whole || missing(page) && !copied, "call {n} failed: page {page}");
            if !is_whole {
                fill(&region, page, 1);
            }
        }
        let punched = failed(&|| region.punch(TARGET).is_ok());
        for page in TARGET {
            let first = in_file(&region, page);
            assert!(first == contents(page, 1) && !punched || first == vec![0; PAGE] && missing(page), "page {page}");
        }
        region.punch(TARGET).unwrap();
        let zeroed = failed(&|| region.zeropage(TARGET, ZeropageModes::NONE).unwrap().complete().is_ok());
        for page in TARGET {
            assert_eq!(in_file(&region, page), vec![0; PAGE]);
            assert!(!zeroed || !missing(page), "call {n} failed: page {page}");
        }
        for page in others {
            assert_eq!(in_file(&region, page), contents(page, 9));
            assert_eq!(load(region.base() + page * PAGE), word(page, 9));
        }
        if host_calls() - before <= n {
            assert!(copied && punched && zeroed);
            println!("measured: {n} calls failed one after the other, {how_many} each time");
            break;
        }
    }
}

// spec: H5, H20
#[test]
fn of_shared_memory_a_host_call_that_fails_leaves_each_page_missing_or_complete() {
    alone_both_ways(|| {
        for scattered in [false, true] {
            for how_many in [1, 1 << 20] {
                fail_each(scattered, how_many);
            }
        }
    });
}

// spec: H5, H20
#[test]
fn what_others_have_written_outlives_host_calls_that_fail_when_it_is_opened() {
    alone_both_ways(|| {
        let uffd = open();
        for (scattered, n) in [false, true].into_iter().flat_map(|scattered| (0..12).map(move |n| (scattered, n))) {
            for how_many in [1, 1 << 20] {
                let region = map_shared(&uffd, CHUNK);
                let step = if scattered { 40 } else { CHUNK };
                (0..CHUNK).step_by(step).for_each(|page| fill(&region, page, 9));
                region.populate(90, &contents_of(90..100, 2)).unwrap();
                fail_host_calls(n, how_many);
                let copied = region.copy(89, &contents_of(89..101, 1), CopyModes::NONE).unwrap();
                fail_host_calls(0, 0);
                assert!(copied.complete().is_err(), "what is there is not overwritten");
                (90..100).for_each(|page| assert_eq!(in_file(&region, page), contents(page, 2), "call {n} failed"));
                let shared = region.shared(0..CHUNK).unwrap();
                assert_eq!(shared.compare(90 * PAGE, &contents_of(90..100, 2)), None);
                no_events(&uffd);
            }
        }
    });
}

// spec: H5, H20
#[test]
fn adopting_of_which_any_host_call_fails_leaves_the_memory_as_it_was() {
    alone(|| {
        let uffd = open();
        let base = os::map_shared(None, CHUNK * PAGE, READ_WRITE);
        (0..CHUNK).step_by(5).for_each(|page| write_page(base, page, 1));
        for n in 0.. {
            let before = host_calls();
            fail_host_calls(n, 1);
            let adopted = adopt(&uffd, base, CHUNK, None);
            fail_host_calls(0, 0);
            let calls = host_calls() - before;
            let is_adopted = adopted.is_ok();
            drop(adopted);
            for page in 0..CHUNK {
                let expected = if page % 5 == 0 { word(page, 1) } else { 0 };
                if expected != 0 || calls <= n {
                    assert_eq!(differs(base, page, expected), None, "call {n} failed: page {page}");
                }
            }
            if calls <= n {
                assert!(is_adopted);
                break;
            }
        }
    });
}

// spec: H5, H20
#[test]
fn what_cannot_be_undone_is_said_and_nothing_is_lost() {
    alone(|| {
        let uffd = open();
        let base = os::map_shared(None, CHUNK * PAGE, READ_WRITE);
        (0..100).for_each(|page| write_page(base, page, 1));
        // Closed, and from then on everything is refused.
        fail_host_calls(1, 1 << 20);
        let error = adopt(&uffd, base, CHUNK, None).unwrap_err();
        fail_host_calls(0, 0);
        let UffdError::LeftClosed { range, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*range, base..base + CHUNK * PAGE);
        os::protect(range.start, range.len(), READ_WRITE).unwrap();
        (0..100).for_each(|page| assert_eq!(differs(base, page, word(page, 1)), None));
        // Of our own memory nobody hears.
        fail_host_calls(1, 1 << 20);
        let error = uffd.map_shared(CHUNK, RegisterModes::MISSING).unwrap_err();
        fail_host_calls(0, 0);
        assert!(matches!(error, UffdError::System { .. }), "{error:?}");
    });
}

// spec: H5, H15
#[test]
fn shared_memory_is_the_programs_again_when_its_adoption_ends_badly() {
    alone(|| {
        let uffd = open();
        let base = os::map_shared(None, CHUNK * PAGE, READ_WRITE);
        write_page(base, 3, 1);
        // The nth call fails, or all from there on.
        for (n, how_many) in (0..4).flat_map(|n| [(n, 1), (n, 1 << 20)]) {
            let region = adopt(&uffd, base, CHUNK, None).unwrap();
            fail_host_calls(n, how_many);
            drop(region);
            fail_host_calls(0, 0);
            if how_many == 1 {
                assert_eq!(differs(base, 3, word(3, 1)), None, "one refusal leaves nothing closed");
                assert_eq!(load(base + 100 * PAGE), 0);
            }
            os::forget_contents(base + 100 * PAGE, PAGE);
            os::protect(base, CHUNK * PAGE, READ_WRITE).unwrap();
            assert_eq!(differs(base, 3, word(3, 1)), None);
        }
        let region = adopt(&uffd, base, CHUNK, None).unwrap();
        fail_host_calls(0, 1 << 20);
        drop(region);
        fail_host_calls(0, 0);
        os::unmap(base, CHUNK * PAGE);
        assert_eq!(os::map_at(base, CHUNK * PAGE, libc::PROT_READ), base);
        // A stranger's now, here as in a child.
        for forked in [|body: fn() -> i32| os::forked(body), |body: fn() -> i32| os::cloned(body)] {
            STRANGER.store(base, SeqCst);
            let status = forked(|| {
                store(STRANGER.load(SeqCst), 1);
                0
            });
            assert_eq!(status, libc::SIGSEGV);
        }
        assert_eq!(os::protection_of(base).as_deref(), Some("r--p"));
    });
}

static STRANGER: AtomicUsize = AtomicUsize::new(0);

/// The remedy of a refusal to adopt.
fn remedy(result: Result<FileRegion, UffdError>) -> &'static str {
    match result {
        Err(UffdError::Refused { tried, .. }) => tried[0].remedy,
        other => panic!("{other:?}"),
    }
}

// spec: H13, H20
#[test]
fn what_is_not_one_shared_mapping_in_memory_is_refused_with_the_reason_and_is_unchanged() {
    alone(|| {
        let uffd = open();
        let len = 4 * PAGE;
        let base = os::map_shared(None, len, READ_WRITE);
        let private = userfault_process::raw::Memory::map(4).unwrap();
        let one = "pages of one shared mapping";
        assert!(remedy(adopt(&uffd, private.base(), 4, None)).contains(one), "private");
        assert!(remedy(adopt(&uffd, os::map_shared(None, len, libc::PROT_READ), 4, None)).contains(one), "read-only");
        let split = os::map_shared(None, len, READ_WRITE);
        os::protect(split + PAGE, PAGE, libc::PROT_READ).unwrap();
        assert!(remedy(adopt(&uffd, split, 4, None)).contains(one), "several mappings");
        assert!(remedy(adopt(&uffd, usize::MAX / PAGE * PAGE, 4, None)).contains(one), "beyond the end");
        let path = std::env::temp_dir().join(format!("userfault-{}", std::process::id()));
        let on_disk = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        on_disk.set_len(len as u64).unwrap();
        let disk = os::map_shared(Some(&on_disk), len, READ_WRITE);
        assert!(remedy(adopt(&uffd, disk, 4, Some(&on_disk))).contains("memfd_create"), "a file on a disk");
        assert!(adopt(&uffd, base + 8, 1, None).is_err() && adopt(&uffd, base, 0, None).is_err(), "not whole pages");
        assert!(adopt(&uffd, base, 4, Some(&os::memory_file())).is_err(), "another file");
        let wp = RegisterModes::MISSING | RegisterModes::WP;
        let unsupported = UffdError::ModesUnsupported { modes: RegisterModes::WP };
        assert_eq!(adopt_in(&uffd, base, 4, wp).unwrap_err(), unsupported);
        assert_eq!(uffd.map_shared(4, wp).unwrap_err(), unsupported);
        let none = UffdError::ModesUnsupported { modes: RegisterModes::NONE };
        assert_eq!(uffd.map_shared(4, RegisterModes::NONE).unwrap_err(), none);
        let region = adopt(&uffd, base, 3, None).unwrap();
        assert!(adopt(&uffd, base + 2 * PAGE, 2, None).is_err(), "adopted already");
        let protected = region.copy(0, &contents(0, 1), CopyModes::WP);
        assert_eq!(protected.unwrap_err(), unsupported);
        assert!(matches!(region.shared(0..1), Err(UffdError::Adopted)));
        fill(&region, 2, 1);
        drop(region);
        assert_eq!((load(base), load(base + 2 * PAGE), load(base + 3 * PAGE)), (0, word(2, 1), 0));
        [private.base(), split + 2 * PAGE, disk].into_iter().for_each(|address| {
            store(address, 7);
            assert_eq!(load(address), 7);
        });
    });
}

// spec: H13
#[test]
fn a_file_that_is_sealed_against_writes_is_refused_and_what_is_mapped_of_it_is_unchanged() {
    const FUTURE_WRITE: i32 = 0x10;
    alone(|| {
        let uffd = open();
        let file = os::sealable_file();
        file.set_len(4 * PAGE as u64).unwrap();
        let base = os::map_shared(Some(&file), 4 * PAGE, READ_WRITE);
        os::seal(&file, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW);
        drop(adopt(&uffd, base, 4, Some(&file)).unwrap());
        os::seal(&file, FUTURE_WRITE);
        assert!(remedy(adopt(&uffd, base, 4, Some(&file))).contains("F_SEAL_FUTURE_WRITE"));
        store(base + PAGE, 7);
        assert_eq!([0, 1].map(|page| load(base + page * PAGE)), [0, 7]);
    });
}

// spec: H15, H20, H24
#[test]
fn threads_that_fault_while_shared_memory_is_given_back_find_it_plain() {
    const PAGES: usize = 64;
    const ROUNDS: usize = 1500;
    alone(|| {
        let uffd = open();
        let base = os::map_shared(None, PAGES * PAGE, READ_WRITE);
        let (turn, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for first in [0, 31] {
                let (turn, done) = (&turn, &done);
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        while turn.load(SeqCst) < round {
                            thread::yield_now();
                        }
                        for page in 0..PAGES {
                            load(base + (page * 7 + first + round) % PAGES * PAGE);
                        }
                        done.fetch_add(1, SeqCst);
                    }
                });
            }
            for round in 1..=ROUNDS {
                os::forget_contents(base, PAGES * PAGE);
                let region = adopt(&uffd, base, PAGES, None).unwrap();
                turn.store(round, SeqCst);
                (0..round % 50 * 40).for_each(|_| std::hint::spin_loop());
                if round % 3 == 0 {
                    thread::yield_now();
                }
                drop(region);
                while done.load(SeqCst) < 2 * round {
                    thread::yield_now();
                }
            }
        });
    });
}

// spec: H20
#[test]
fn the_original_protocol_has_no_shared_memory() {
    alone(|| {
        let uffd = Uffd::open_with(&Options::default(), Protocol::Original { fills: true }).unwrap();
        let refused = uffd.map_shared(4, RegisterModes::MISSING).unwrap_err();
        assert!(matches!(refused, UffdError::Unsupported { .. }), "{refused:?}");
    });
}
