//! Pages that are filled again and again while threads read them: complete or absent, never between.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, Shared as _};
use userfault_process::{Region, Shared};

use crate::alone::alone_both_ways;
use crate::support::{CHUNK, Mode, PAGE, Random, asleep, fill, map, open_in, scatter, word};

const READERS: u64 = 2;
const PAGES: usize = 48;

/// The generation of a word of `page`, if it is one.
fn generation_of(page: usize, seen: u64) -> Option<u64> {
    (seen & 0xFFFF_FFFF == word(page, 0)).then_some(seen >> 32)
}

/// Reads the first, a random and the last word of these pages until told to stop; how many values were
/// none of that page or older than one seen before, and how many were right.
fn read_all(shared: &Shared, pages: &[usize], is_over: &AtomicBool, seed: u64) -> (u64, u64) {
    let mut random = Random::from(seed);
    let (mut bad, mut good) = (0, 0);
    let mut newest = vec![0; pages.len()];
    while !is_over.load(Relaxed) {
        for (page, newest) in pages.iter().zip(&mut newest) {
            for offset in [0, random.below(PAGE / 8) * 8, PAGE - 8] {
                let mut seen = [0; 8];
                shared.read(page * PAGE + offset, &mut seen);
                match generation_of(*page, u64::from_ne_bytes(seen)) {
                    Some(generation) if generation >= *newest => (*newest, good) = (generation, good + 1),
                    _ => bad += 1,
                }
            }
        }
    }
    (bad, good)
}

/// Discards and fills `pages` again and again under readers.
fn run(region: &Region, pages: &[usize], refills: u64) {
    let shared = region.shared(0..region.pages()).unwrap();
    run_with(&shared, pages, refills, |page, generation| {
        region.discard_shared(&shared, page..page + 1).unwrap();
        fill(region, page, generation);
    });
}

/// The same, with `refill` for each page and generation.
pub(crate) fn run_with(shared: &Shared, pages: &[usize], refills: u64, refill: impl Fn(usize, u64)) {
    let mut random = Random::new();
    let is_over = AtomicBool::new(false);
    let (bad, good) = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (is_over, seed) = (&is_over, random.next() ^ reader);
                scope.spawn(move || read_all(shared, pages, is_over, seed))
            })
            .collect();
        for generation in 2..2 + refills {
            for page in pages {
                refill(*page, generation);
            }
        }
        is_over.store(true, Relaxed);
        let found = readers.into_iter().map(|reader| reader.join().unwrap());
        found.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("measured: {} fills, {good} reads right, {bad} bad", refills * pages.len() as u64);
    assert_eq!(bad, 0);
    assert!(good > 0);
    assert_eq!(asleep(), 0);
}

pub(crate) fn refills() -> u64 {
    std::env::var("USERFAULT_REFILLS").ok().map_or(150, |text| text.parse().unwrap())
}

// spec: H1
#[test]
fn a_page_of_a_plain_chunk_is_complete_or_absent_while_it_is_filled_discarded_and_filled_again() {
    alone_both_ways(|| {
        let uffd = open_in(Mode::Plain);
        let region = map(&uffd, PAGES);
        let pages: Vec<_> = (0..PAGES).collect();
        pages.iter().for_each(|page| fill(&region, *page, 1));
        // A page between two present ones: the fill never is the third run of the chunk.
        run(&region, &pages, refills());
    });
}

// spec: H1, H2
#[test]
fn a_page_of_a_guarded_chunk_is_complete_or_absent_while_it_is_filled_discarded_and_filled_again() {
    alone_both_ways(|| {
        let uffd = open_in(Mode::Guarded);
        let region = map(&uffd, CHUNK);
        scatter(&region, 0..CHUNK, 1);
        let pages: Vec<_> = (0..CHUNK).step_by(2).take(PAGES).collect();
        run(&region, &pages, refills());
    });
}

// spec: H1, H7
#[test]
fn a_page_is_complete_or_absent_where_present_pages_are_closed_again_for_lack_of_mappings() {
    alone_both_ways(|| {
        let uffd = open_in(Mode::Soft);
        let chunks = 40;
        let region = map(&uffd, chunks * CHUNK);
        let pages: Vec<_> = (0..chunks).flat_map(|chunk| [chunk * CHUNK + 3, chunk * CHUNK + 7]).collect();
        pages.iter().for_each(|page| fill(&region, *page, 1));
        run(&region, &pages, refills() / 2);
    });
}
