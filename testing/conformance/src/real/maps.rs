//! What a page allows, as the kernel's own tables say.
//!
//! Kernel counterpart: `/proc/self/maps` and `/proc/self/pagemap`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::world::PAGE;

/// What a page allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allows {
    /// Nothing, or nothing is mapped.
    Nothing,
    /// Loads.
    Loads,
    /// Everything, and nobody has touched it: it reads as zeros.
    Untouched,
    /// Everything.
    Everything,
}

/// The page's entry in `/proc/self/pagemap`.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn pagemap(address: u64) -> u64 {
    let mut entry = [0; 8];
    let file = File::open("/proc/self/pagemap").unwrap_or_else(|error| panic!("pagemap: {error}"));
    file.read_exact_at(&mut entry, address / PAGE * 8).unwrap_or_else(|error| panic!("pagemap: {error}"));
    u64::from_ne_bytes(entry)
}

/// What the page at `address` allows.
#[must_use]
pub fn page(address: u64) -> Allows {
    let entry = pagemap(address);
    let bit = |number: u32| entry >> number & 1 == 1;
    let is_guard = bit(58);
    let is_there = bit(63) || (bit(62) && !is_guard);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = maps.lines().find(|line| {
        let ends = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        ends.is_some_and(|(start, end)| (number(start)..number(end)).contains(&address))
    });
    let rights = line.and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    match (rights.get(..2), is_guard, is_there) {
        (_, true, _) => Allows::Nothing,
        (Some("rw"), _, true) => Allows::Everything,
        (Some("rw"), _, false) => Allows::Untouched,
        (Some("r-"), _, _) => Allows::Loads,
        (_, _, _) => Allows::Nothing,
    }
}
