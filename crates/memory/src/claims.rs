//! Which parts of a mapping are lent, and to whom.
//!
//! Exclusive claims never overlap anything. Shared claims overlap each other, and are counted by range.
//! Taking and ending an exclusive claim looks at every *distinct* shared range, taking a shared one is
//! logarithmic: programs share few ranges and cut many windows.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::LendError;

#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Start → end, disjoint.
    windows: BTreeMap<usize, usize>,
    /// (start, end) → number of loans.
    shared: BTreeMap<(usize, usize), usize>,
}

impl Claims {
    /// The lowest window that overlaps the non-empty `range`.
    pub(crate) fn window_in(&self, range: &Range<usize>) -> Option<Range<usize>> {
        // Windows are disjoint: only the last one that starts before the end can be cut by the start as well.
        let before = self.windows.range(..=range.start).next_back();
        let inside = self.windows.range(range.start..range.end).next();
        [before, inside].into_iter().flatten().map(|(&start, &end)| start..end).find(|held| held.end > range.start)
    }

    fn shared_in(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let starts_before_the_end = self.shared.range(..(range.end, 0));
        starts_before_the_end.map(|(&(start, end), _)| start..end).find(|held| held.end > range.start)
    }

    pub(crate) fn take_window(&mut self, range: &Range<usize>) -> Result<(), LendError> {
        debug_assert!(!range.is_empty(), "an empty claim would overlap nothing");
        if let Some(held) = self.window_in(range) {
            return Err(LendError::HeldByWindow { start: held.start, end: held.end });
        }
        if let Some(held) = self.shared_in(range) {
            return Err(LendError::HeldByShared { start: held.start, end: held.end });
        }
        self.windows.insert(range.start, range.end);
        Ok(())
    }

    pub(crate) fn end_window(&mut self, range: &Range<usize>) {
        let held = self.windows.remove(&range.start);
        debug_assert_eq!(held, Some(range.end), "a window ends the claim it took");
    }

    /// Cuts the window `range` in two at `middle`, which lies strictly inside.
    pub(crate) fn split_window(&mut self, range: &Range<usize>, middle: usize) {
        debug_assert!(range.start < middle && middle < range.end, "both halves have pages");
        let held = self.windows.insert(range.start, middle);
        debug_assert_eq!(held, Some(range.end), "a window splits the claim it took");
        self.windows.insert(middle, range.end);
    }

    pub(crate) fn take_shared(&mut self, range: &Range<usize>) -> Result<(), LendError> {
        debug_assert!(!range.is_empty(), "an empty claim would overlap nothing");
        if let Some(held) = self.window_in(range) {
            return Err(LendError::HeldByWindow { start: held.start, end: held.end });
        }
        *self.shared.entry((range.start, range.end)).or_default() += 1;
        Ok(())
    }

    pub(crate) fn end_shared(&mut self, range: &Range<usize>) {
        let key = (range.start, range.end);
        match self.shared.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            held => {
                debug_assert!(held.is_some(), "a shared loan ends the claim it took");
                self.shared.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_refused_exactly_where_it_would_overlap_a_claim() {
        let mut claims = Claims::default();
        claims.take_window(&(10..20)).unwrap();
        claims.take_shared(&(40..60)).unwrap();
        claims.take_shared(&(30..45)).unwrap();
        let window = Err(LendError::HeldByWindow { start: 10, end: 20 });
        let low = Err(LendError::HeldByShared { start: 30, end: 45 });
        let high = Err(LendError::HeldByShared { start: 40, end: 60 });
        let cases = [
            ("ends where the window starts", 0..10, Ok(())),
            ("ends one behind the start", 0..11, window),
            ("starts one before the end", 19..25, window),
            ("starts where it ends, ends where sharing starts", 20..30, Ok(())),
            ("around it", 0..30, window),
            ("inside it", 12..13, window),
            ("one into the lower shared", 25..31, low),
            ("between the two shared", 44..46, low),
            ("the last of the upper shared", 59..60, high),
            ("behind everything", 60..70, Ok(())),
        ];
        for (why, range, expected) in cases {
            let answer = claims.take_window(&range);
            assert_eq!(answer, expected, "{why}");
            if answer.is_ok() {
                claims.end_window(&range);
            }
        }
    }

    #[test]
    fn a_shared_claim_ends_with_its_last_loan() {
        let mut claims = Claims::default();
        claims.take_shared(&(0..4)).unwrap();
        claims.take_shared(&(0..4)).unwrap();
        claims.end_shared(&(0..4));
        assert_eq!(claims.take_window(&(3..5)), Err(LendError::HeldByShared { start: 0, end: 4 }));
        claims.end_shared(&(0..4));
        assert_eq!(claims.take_window(&(3..5)), Ok(()));
    }

    #[test]
    fn claims_agree_with_a_table_of_holders_over_every_short_history() {
        // Every sequence of three claims on a few pages, against a plain table: page → who holds it.
        let pages = if cfg!(miri) { 2 } else { 4 };
        let ranges: Vec<Range<usize>> =
            (0..pages).flat_map(|start| (start + 1..=pages).map(move |end| start..end)).collect();
        let steps: Vec<(bool, Range<usize>)> =
            [false, true].into_iter().flat_map(|x| ranges.iter().map(move |r| (x, r.clone()))).collect();
        for first in &steps {
            for second in &steps {
                for third in &steps {
                    let (mut claims, mut exclusive, mut shared) = (Claims::default(), [false; 4], [false; 4]);
                    for (is_window, range) in [first, second, third] {
                        let is_held = range.clone().any(|page| exclusive[page] || (*is_window && shared[page]));
                        let answer = if *is_window { claims.take_window(range) } else { claims.take_shared(range) };
                        assert_eq!(answer.is_err(), is_held, "{first:?} {second:?} {third:?}");
                        if answer.is_ok() {
                            let table = if *is_window { &mut exclusive } else { &mut shared };
                            range.clone().for_each(|page| table[page] = true);
                        }
                    }
                }
            }
        }
    }
}
