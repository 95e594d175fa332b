//! Which memory this crate and its users have mapped for themselves, so that nobody adopts it.
//!
//! A table of address ranges without a lock: mappings are made and unmapped under the locks of providers, and
//! never allocate. An entry is there as long as its mapping; who looks for one races with nobody, since a
//! mapping that is being made is not yet anybody's to adopt.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More mappings than a process has, unless `vm.max_map_count` was raised. What finds no place is not known
/// as ours, and works all the same.
const PLACES: usize = if cfg!(miri) { 1 << 10 } else { 1 << 18 };

static TABLE: [Place; PLACES] = [const { Place { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; PLACES];
/// Where the search for a free place begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// All entries lie below.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Free while its start is 0.
struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
}

/// A range in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry(&'static Place);

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x?}", self.range())
    }
}

impl Place {
    fn range(&self) -> Range<usize> {
        self.start.load(Relaxed)..self.end.load(Relaxed)
    }
}

impl Entry {
    pub(crate) fn enter(range: Range<usize>) -> Option<Self> {
        let first = NEXT.fetch_add(1, Relaxed);
        (0..PLACES).find_map(|step| {
            let index = first.wrapping_add(step) % PLACES;
            let place = TABLE.get(index)?;
            place.start.compare_exchange(0, range.start, Relaxed, Relaxed).ok()?;
            place.end.store(range.end, Relaxed);
            USED.fetch_max(index + 1, Relaxed);
            Some(Self(place))
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.end.store(0, Relaxed);
        self.0.start.store(0, Relaxed);
    }
}

/// Says that a provider has mapped `range` for itself, for the rest of the process.
///
/// # Examples
///
/// ```
/// use userfault_memory::{FaultsBy, Survey, SurveyError, Unfit, is_own_for_ever, page_size};
///
/// let table = vec![0_u8; 64 * page_size()].leak();
/// let start = table.as_ptr().addr().next_multiple_of(page_size());
/// is_own_for_ever(start..start + page_size());
/// let refused = Survey::of(&(start..start + page_size()), FaultsBy::Kernel).unwrap_err();
/// assert!(matches!(refused, SurveyError::Unfit { why: Unfit::Own, .. }));
/// ```
pub fn is_own_for_ever(range: Range<usize>) {
    std::mem::forget(Entry::enter(range));
}

/// The first entry found that shares an address with `range`.
pub(crate) fn own_in(range: &Range<usize>) -> Option<Range<usize>> {
    let used = TABLE.get(..USED.load(Relaxed).min(PLACES)).unwrap_or_default();
    used.iter().map(Place::range).find(|own| own.start < range.end && range.start < own.end)
}

#[cfg(test)]
mod tests {
    use super::{Entry, own_in};

    #[test]
    fn an_entry_is_found_by_each_of_its_addresses_until_it_is_dropped() {
        let entry = Entry::enter(0x7000..0x9000).unwrap();
        let cases = [
            ("ends at its start", 0x6000..0x7000, false),
            ("its first byte", 0x6000..0x7001, true),
            ("inside", 0x7800..0x7801, true),
            ("its last byte", 0x8fff..0xa000, true),
            ("around", 0x1000..0xa000, true),
            ("starts at its end", 0x9000..0xa000, false),
        ];
        for (why, range, found) in &cases {
            assert_eq!(own_in(range), found.then_some(0x7000..0x9000), "{why}");
        }
        drop(entry);
        assert!(cases.iter().all(|(_, range, _)| own_in(range).is_none()));
    }
}
