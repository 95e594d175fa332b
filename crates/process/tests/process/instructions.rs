//! Instructions that need one page, or several at once.

use std::arch::is_x86_feature_detected;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use userfault_abi::Features;
use userfault_client::{Event, FaultKind, Options, Region as _, WriteProtect};
use userfault_process::{Region, Tuning, Uffd, tune};

use crate::access::{
    add, add_split, compare_exchange, gather, load, load_byte, load_vector, move_bytes, move_word, store, store_byte,
};
use crate::alone::{alone_both_ways, child, tuning};
use crate::os;
use crate::support::Rescue;
use crate::support::{CHUNK, PAGE, asleep, contents, contents_of, fill, map_protectable, open, read, word};

const MISSING: FaultKind = FaultKind::Missing;
const WP: FaultKind = FaultKind::WriteProtect;

/// What the pages are before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Missing,
    Protected,
}

/// One access, and the faults it is to report: offset, what is missing, whether it writes.
struct Row {
    name: &'static str,
    before: Before,
    access: fn(usize),
    faults: &'static [(usize, FaultKind, bool)],
}

const END: usize = PAGE;

const ROWS: &[Row] = &[
    Row {
        name: "load",
        before: Before::Missing,
        access: |at| drop_word(load(at + 24)),
        faults: &[(24, MISSING, false)],
    },
    Row {
        name: "byte",
        before: Before::Missing,
        access: |at| drop_word(load_byte(at + 4095).into()),
        faults: &[(4095, MISSING, false)],
    },
    Row { name: "store", before: Before::Missing, access: |at| store(at + 32, 7), faults: &[(32, MISSING, true)] },
    Row {
        name: "store, protected",
        before: Before::Protected,
        access: |at| store(at + 32, 7),
        faults: &[(32, WP, true)],
    },
    Row {
        name: "lock xadd",
        before: Before::Missing,
        access: |at| drop_word(add(at, 1)),
        faults: &[(0, MISSING, true)],
    },
    Row {
        name: "lock xadd, protected",
        before: Before::Protected,
        access: |at| drop_word(add(at, 1)),
        faults: &[(0, WP, true)],
    },
    Row {
        name: "cmpxchg that fails",
        before: Before::Missing,
        access: |at| drop_word(compare_exchange(at + 1, 0, 1).into()),
        faults: &[(1, MISSING, true)],
    },
    Row {
        name: "cmpxchg that fails, protected",
        before: Before::Protected,
        access: |at| drop_word(compare_exchange(at + 1, 0, 1).into()),
        faults: &[(1, WP, true)],
    },
    Row {
        name: "load over two pages",
        before: Before::Missing,
        access: |at| drop_word(load(at + END - 4)),
        faults: &[(END - 4, MISSING, false), (END, MISSING, false)],
    },
    Row {
        name: "store over two pages",
        before: Before::Missing,
        access: |at| store(at + END - 4, 7),
        faults: &[(END - 4, MISSING, true), (END, MISSING, true)],
    },
    Row {
        name: "store over two pages, protected",
        before: Before::Protected,
        access: |at| store(at + END - 4, 7),
        faults: &[(END - 4, WP, true), (END, WP, true)],
    },
    Row {
        name: "lock xadd over two pages",
        before: Before::Missing,
        access: |at| drop_word(add_split(at + END - 2, 1).into()),
        faults: &[(END - 2, MISSING, true), (END, MISSING, true)],
    },
    Row {
        name: "rep movsb, reading",
        before: Before::Missing,
        access: read_many,
        faults: &[(100, MISSING, false), (END, MISSING, false), (2 * END, MISSING, false)],
    },
    Row {
        name: "rep movsb, writing",
        before: Before::Missing,
        access: write_many,
        faults: &[(100, MISSING, true), (END, MISSING, true), (2 * END, MISSING, true)],
    },
    Row {
        name: "rep movsb, protected",
        before: Before::Protected,
        access: write_many,
        faults: &[(100, WP, true), (END, WP, true), (2 * END, WP, true)],
    },
];

const AVX_ROWS: &[Row] = &[Row {
    name: "vmovdqu over two pages",
    before: Before::Missing,
    access: load_over_border,
    faults: &[(END - 16, MISSING, false), (END, MISSING, false)],
}];

fn drop_word(_: u64) {}

fn load_over_border(at: usize) {
    let expected = [word(0, 1).to_ne_bytes().repeat(2), word(1, 1).to_ne_bytes().repeat(2)].concat();
    assert_eq!(load_vector(at + END - 16)[..], expected[..]);
}

const MANY: usize = 9000;

fn read_many(at: usize) {
    let target = vec![0_u8; MANY];
    move_bytes(at + 100, target.as_ptr().expose_provenance(), MANY);
    let page = |page| contents(page, 1);
    let source = [page(0), page(1), page(2)].concat();
    assert!(target == source[100..100 + MANY], "every byte arrived");
}

fn write_many(at: usize) {
    let source = vec![0x5A_u8; MANY];
    move_bytes(source.as_ptr().expose_provenance(), at + 100, MANY);
}

fn answer(region: &Region, page: usize, kind: FaultKind) {
    match kind {
        FaultKind::Missing => fill(region, page, 1),
        FaultKind::WriteProtect => region.writeprotect(page..page + 1, WriteProtect::Lift).unwrap(),
        FaultKind::Minor => panic!("no such fault here"),
    }
}

fn run(uffd: &Uffd, row: &Row) {
    let region = map_protectable(uffd, 3);
    if row.before == Before::Protected {
        assert_eq!(region.copy_protected(0, &contents_of(0..3, 1)).unwrap().complete(), Ok(3));
    }
    let base = region.base();
    thread::scope(|scope| {
        let accessor = scope.spawn(move || (row.access)(base));
        let _rescue = Rescue(&region);
        for (offset, kind, write) in row.faults {
            let [Event::Fault(fault)] = read(uffd, 1)[..] else { panic!("one fault") };
            let seen = (usize::try_from(fault.address).unwrap() - base, fault.kind, fault.write);
            assert_eq!(seen, (*offset, *kind, *write), "{}", row.name);
            answer(&region, offset / PAGE, *kind);
        }
        accessor.join().unwrap();
    });
    assert_eq!(asleep(), 0, "{}", row.name);
    // What was not written is what was filled.
    let touched = |at: usize| load(base + at) == word(at / PAGE, 1);
    assert!(touched(64) && (row.faults.len() < 3 || touched(2 * PAGE + 2000)), "{}", row.name);
}

// spec: H23, H25
#[test]
fn each_kind_of_access_reports_the_first_byte_in_each_page_and_whether_it_writes() {
    alone_both_ways(|| {
        let options = Options { require: Features::EXACT_ADDRESS, ..Options::default() };
        let uffd = Uffd::open(&options).unwrap();
        ROWS.iter().for_each(|row| run(&uffd, row));
        if is_x86_feature_detected!("avx") {
            AVX_ROWS.iter().for_each(|row| run(&uffd, row));
        }
    });
}

extern "C" fn tell_where(_: i32, info: *mut libc::siginfo_t, _: *mut std::ffi::c_void) {
    // Code 42 says that the address was 0, as the kernel has it for these.
    let code = if os::address_of(info) == 0 { 42 } else { 43 };
    std::process::exit(code);
}

// spec: H23, H26
#[test]
fn an_address_that_cannot_be_is_the_programs_own_fault() {
    let ended = child(|| {
        os::handle(libc::SIGSEGV, tell_where, 0);
        let uffd = open();
        let region = map_protectable(&uffd, 1);
        // Two bits more than an address has; its page is not the region's.
        load(region.base() | 1 << 62);
    });
    assert_eq!(ended.code, Some(42), "{ended:?}");
}

const CHUNKS: usize = 80;

/// A region in which every chunk has present pages, more than the host may leave open.
fn crowded(uffd: &Uffd) -> Region {
    let region = crate::support::map(uffd, CHUNKS * CHUNK);
    for chunk in 0..CHUNKS {
        for page in [0, 1, 2, CHUNK / 2, CHUNK - 2, CHUNK - 1] {
            fill(&region, chunk * CHUNK + page, 1);
        }
    }
    region
}

/// Runs `body` with a region whose present pages are closed again and again meanwhile.
fn squeezed(budget: usize, body: impl Fn(&Region)) {
    tune(Tuning { mapping_budget: Some(budget), without_guards: true, ..tuning() }).unwrap();
    let uffd = open();
    let region = crowded(&uffd);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Touches present pages in turn: each is opened, and others are closed for it.
            while !is_over.load(Relaxed) {
                for chunk in (0..CHUNKS).rev() {
                    let page = chunk * CHUNK + CHUNK / 2;
                    assert_eq!(load(region.base() + page * PAGE), word(page, 1));
                }
            }
        });
        body(&region);
        is_over.store(true, Relaxed);
    });
    assert_eq!(asleep(), 0);
}

fn border(region: &Region, chunk: usize) -> usize {
    region.base() + chunk * CHUNK * PAGE
}

fn many_pages_at_once(region: &Region) {
    for turn in 0..150 {
        for chunk in 1..CHUNKS {
            let at = border(region, chunk);
            let first = chunk * CHUNK;
            if is_x86_feature_detected!("avx") {
                let expected = [word(first - 1, 1).to_ne_bytes().repeat(2), word(first, 1).to_ne_bytes().repeat(2)];
                assert_eq!(load_vector(at - 16)[..], expected.concat()[..]);
            }
            assert_eq!(load(at - 4) >> 32, word(first, 1) & 0xFFFF_FFFF);
            store_byte(at - PAGE + 1, u8::try_from((first - 1) & 0xFF).unwrap());
        }
        if is_x86_feature_detected!("avx2") {
            gather_over_chunks(region, turn);
        }
        copy_over_borders(region, 1 + turn % (CHUNKS - 1));
    }
}

/// Eight words, each of another page of another chunk.
fn gather_over_chunks(region: &Region, turn: usize) {
    let chunks: [usize; 8] = std::array::from_fn(|at| (turn + at * 9) % CHUNKS);
    let offsets = chunks.map(|chunk| i32::try_from((chunk * CHUNK + CHUNK / 2) * PAGE).unwrap());
    let words = gather(region.base(), &offsets);
    let expected = chunks.map(|chunk| u32::try_from(word(chunk * CHUNK + CHUNK / 2, 1) & 0xFFFF_FFFF).unwrap());
    assert_eq!(words, expected);
}

/// From the pages before one border to those before another.
fn copy_over_borders(region: &Region, chunk: usize) {
    let from = border(region, chunk) - 2 * PAGE + 100;
    let mut target = vec![0_u8; 4 * PAGE];
    move_bytes(from, target.as_mut_ptr().expose_provenance(), 4 * PAGE);
    let source = contents_of(chunk * CHUNK - 2..chunk * CHUNK + 3, 1);
    assert!(target == source[100..100 + 4 * PAGE]);
}

// spec: H7
#[test]
fn an_instruction_that_needs_four_pages_at_once_comes_to_its_end_whatever_is_closed_for_it() {
    alone_both_ways(|| {
        tune(Tuning { mapping_budget: Some(1), without_guards: true, ..tuning() }).unwrap();
        let uffd = open();
        let region = crate::support::map(&uffd, 8 * CHUNK);
        // Twelve pages a chunk: more than are spared, so that those of the next turn are closed.
        let pages = |chunk: usize| (0..6).flat_map(move |at| [0, 1].map(|more| chunk * CHUNK + 20 + at * 70 + more));
        (0..8).flat_map(pages).for_each(|page| fill(&region, page, 1));
        for turn in 0..400 {
            let place = |chunk: usize| {
                let second = chunk % 8 * CHUNK + 21 + turn * 5 % 6 * 70;
                (second, region.base() + second * PAGE)
            };
            let (from, to) = (place(turn), place(turn * 3 + 1));
            move_word(from.1 - 4, to.1 - 4);
            let expected = word(from.0 - 1, 1) >> 32 | word(from.0, 1) << 32;
            assert_eq!(load(to.1 - 4), expected);
            store(to.1 - 8, word(to.0 - 1, 1));
            store(to.1, word(to.0, 1));
        }
    });
}

// spec: H7, H25
#[test]
fn with_a_budget_of_1_mapping_instructions_that_need_many_pages_come_to_their_end() {
    alone_both_ways(|| squeezed(1, many_pages_at_once));
}

// spec: H7, H25
#[test]
fn with_a_budget_of_2_mappings_instructions_that_need_many_pages_come_to_their_end() {
    alone_both_ways(|| squeezed(2, many_pages_at_once));
}

// spec: H7, H25
#[test]
fn with_a_budget_of_3_mappings_instructions_that_need_many_pages_come_to_their_end() {
    alone_both_ways(|| squeezed(3, many_pages_at_once));
}
