//! The interval map against one value per page.

extern crate std;

use std::println;
use std::vec::Vec;

use super::IntervalMap;
use crate::addr::{Page, PageRange};
use crate::tree::tests::Room;

const PAGES: u64 = 24;
const PAGE_COUNT: usize = 24;

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(Page::new(start), Page::new(end)).unwrap()
}

/// The runs of equal values, as a canonical map must hold them.
fn runs(model: &[u8]) -> Vec<(PageRange, u8)> {
    let mut runs: Vec<(PageRange, u8)> = Vec::new();
    for (page, value) in (0_u64..).zip(model.iter().copied()).filter(|(_, value)| *value != 0) {
        match runs.last_mut() {
            Some((last, held)) if last.end().number() == page && *held == value => {
                *last = range(last.start().number(), page + 1);
            }
            _ => runs.push((range(page, page + 1), value)),
        }
    }
    runs
}

// spec: W22, W23, o/register/merge, o/register/split
#[test]
fn the_map_is_canonical_after_any_sequence() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    println!("seed {seed:#x}");
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut map = IntervalMap::new(Room::new(64));
    let mut model = [0_u8; PAGE_COUNT];
    for _ in 0..if cfg!(miri) { 150 } else { 20_000 } {
        let start = next() % PAGES;
        let end = start + 1 + next() % (PAGES - start);
        let value = u8::try_from(next() % 3).unwrap();
        let before = map.len();
        let change = range(start, end);
        if value == 0 {
            let cost = map.cost_of_clear(change);
            map.clear(change).unwrap();
            assert!(map.len() <= before + cost, "priced {cost}");
        } else {
            let cost = map.cost_of_set(change);
            map.set(change, value).unwrap();
            assert!(map.len() <= before + cost, "priced {cost}");
        }
        for page in start..end {
            model[usize::try_from(page).unwrap()] = value;
        }
        let mut held = Vec::new();
        let mut at = Page::new(0);
        while let Some((found, value)) = map.first_from(at) {
            held.push((found, value));
            at = found.end();
        }
        assert_eq!(held, runs(&model));
    }
}

// spec: W22
#[test]
fn a_change_that_was_priced_never_fails_with_exactly_that_much_room() {
    for capacity in 1..if cfg!(miri) { 3 } else { 6 } {
        for (start, end) in (0..8).flat_map(|start| (start + 1..=8).map(move |end| (start, end))) {
            let mut map = IntervalMap::new(Room::new(capacity));
            let _filled = (0..4).try_for_each(|at| map.set(range(at * 2, at * 2 + 1), 1));
            let change = range(start, end);
            if map.cost_of_set(change) <= map.room() {
                assert_eq!(map.set(change, 2), Ok(()), "[{start}, {end}) with room for {capacity}");
            }
        }
    }
}
