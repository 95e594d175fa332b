//! Pages that are filled again and again while threads read them: complete or absent, never between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use userfault_abi::MoveModes;
use userfault_client::{Region as _, RegisterModes, Shared as _, Uffd as _};
use userfault_linux::{Region, Shared};

use crate::support::{Rescue, open};

const PAGES: usize = 3;
const ROUNDS: u64 = 4000;
const READERS: u64 = 2;

/// The word that round `round` puts everywhere in page `page`; never 0.
fn word(page: usize, round: u64) -> u64 {
    round << 16 | (page as u64) << 8 | 0xA5
}

/// The round of a word of `page`, if it is one.
fn round_of(page: usize, seen: u64) -> Option<u64> {
    (seen & 0xFFFF == word(page, 0)).then_some(seen >> 16)
}

fn contents(page: usize, round: u64) -> Vec<u8> {
    word(page, round).to_ne_bytes().repeat(rustix::param::page_size() / 8)
}

/// Reads the first, a random and the last word of every page until told to stop; returns how many
/// values were none of that page or older than one seen before, and how many were read.
fn hammer(shared: &Shared, is_over: &AtomicBool, seed: u64) -> (u64, u64) {
    let size = rustix::param::page_size();
    let (mut bad, mut good, mut random) = (0, 0, seed);
    let mut newest = [0; PAGES];
    while !is_over.load(Ordering::Relaxed) {
        for (page, newest) in newest.iter_mut().enumerate() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let between = usize::try_from(random >> 33).unwrap() % (size / 8) * 8;
            for offset in [0, between, size - 8] {
                let mut seen = [0; 8];
                shared.read(page * size + offset, &mut seen);
                match round_of(page, u64::from_ne_bytes(seen)) {
                    Some(round) if round >= *newest => (*newest, good) = (round, good + 1),
                    _ => bad += 1,
                }
            }
        }
    }
    (bad, good)
}

fn run(refill: impl Fn(&Region, &Shared, usize, u64)) {
    let uffd = open!();
    let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
    let shared = region.shared(0..PAGES).unwrap();
    let is_over = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    for page in 0..PAGES {
        region.copy(page, &contents(page, 0)).unwrap().complete().unwrap();
    }
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                scope.spawn({
                    let (shared, is_over) = (&shared, &is_over);
                    move || hammer(shared, is_over, seed)
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            for page in 0..PAGES {
                refill(&region, &shared, page, round);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            let (bad, good) = reader.join().unwrap();
            assert_eq!(bad, 0, "of {good} values");
            read.fetch_add(good, Ordering::Relaxed);
        }
    });
    println!("{} values read", read.into_inner());
}

// spec: m/copy/partial, m/fault/recheck, m/fill/wake
#[test]
fn a_page_that_is_copied_in_is_seen_complete_or_waited_for() {
    run(|region, shared, page, round| {
        region.discard_shared(shared, page..page + 1).unwrap();
        region.copy(page, &contents(page, round)).unwrap().complete().unwrap();
    });
}

// spec: m/move/effect, m/fault/recheck
#[test]
fn a_page_that_is_moved_in_is_seen_complete_or_waited_for() {
    let uffd = open!();
    if !uffd.capabilities().available.contains(userfault_client::Features::MOVE) {
        return crate::support::skip("the kernel has no MOVE");
    }
    let staging = uffd.map(1, RegisterModes::MISSING).unwrap();
    let staged = std::cell::RefCell::new(staging.window(0..1).unwrap());
    run(|region, shared, page, round| {
        staging.copy(0, &contents(page, round)).unwrap().complete().unwrap();
        region.discard_shared(shared, page..page + 1).unwrap();
        let mut staged = staged.borrow_mut();
        region.move_from(page, &mut staged, 0..1, MoveModes::NONE).unwrap().complete().unwrap();
    });
}
