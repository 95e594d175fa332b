//! One bit per page, in a mapping of its own.
//!
//! For providers that note something about pages where they may neither allocate nor wait. Bits of one word are
//! changed by one thread at a time: whoever changes them sees to that. Read by anybody as a hint, or after what
//! orders the change before.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::arena::Zeroed;
use crate::error::MapError;

const WORD: usize = 64;

/// A set of pages, counted from 0. Memory is taken as bits are set.
///
/// # Examples
///
/// ```
/// use userfault_memory::Bits;
///
/// let bits = Bits::new(1 << 20)?;
/// bits.set(100..200, true);
/// assert_eq!(bits.find(0..1 << 20, true), Some(100));
/// assert_eq!(bits.find(150..1 << 20, false), Some(200));
/// # Ok::<(), userfault_memory::MapError>(())
/// ```
#[derive(Debug)]
pub struct Bits {
    words: Zeroed<AtomicU64>,
}

impl Bits {
    /// For as many pages, none of which is in it.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then.
    pub fn new(pages: usize) -> Result<Self, MapError> {
        Ok(Self { words: Zeroed::new(pages.div_ceil(WORD))? })
    }

    /// Whether `page` is in it.
    #[must_use]
    pub fn get(&self, page: usize) -> bool {
        self.word(page / WORD) >> (page % WORD) & 1 == 1
    }

    /// Puts pages in, or takes them out. Two threads may do so at once if a multiple of 64 lies between them.
    pub fn set(&self, pages: Range<usize>, value: bool) {
        let mut at = pages.start;
        while at < pages.end {
            let end = pages.end.min((at / WORD + 1) * WORD);
            let mask = (u64::MAX >> (WORD - (end - at))) << (at % WORD);
            if let Some(word) = self.words.get(at / WORD) {
                let old = word.load(Relaxed);
                let new = if value { old | mask } else { old & !mask };
                if new != old {
                    word.store(new, Relaxed);
                }
            }
            at = end;
        }
    }

    /// The first page in `pages` whose bit is `value`.
    #[must_use]
    pub fn find(&self, pages: Range<usize>, value: bool) -> Option<usize> {
        let mut at = pages.start;
        while at < pages.end {
            let word = self.word(at / WORD) ^ if value { 0 } else { u64::MAX };
            let rest = word >> (at % WORD);
            if rest != 0 {
                let found = at + rest.trailing_zeros() as usize;
                return (found < pages.end).then_some(found);
            }
            at = (at / WORD + 1) * WORD;
        }
        None
    }

    /// Splits `pages` into runs of equal bits.
    pub fn runs(&self, pages: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
        let mut at = pages.start;
        std::iter::from_fn(move || {
            if at >= pages.end {
                return None;
            }
            let value = self.get(at);
            let end = self.find(at..pages.end, !value).unwrap_or(pages.end);
            let run = at..end;
            at = end;
            Some((run, value))
        })
    }

    /// In how many of the borders between neighbours in `pages` this set or `other` changes.
    #[must_use]
    pub fn borders(&self, other: &Self, pages: Range<usize>) -> usize {
        let mut borders = 0;
        let mut carry: Option<(u64, u64)> = None;
        let mut at = pages.start;
        while at < pages.end {
            let end = pages.end.min((at / WORD + 1) * WORD);
            let len = end - at;
            let mine = self.word(at / WORD) >> (at % WORD);
            let theirs = other.word(at / WORD) >> (at % WORD);
            let inside = (mine ^ (mine >> 1)) | (theirs ^ (theirs >> 1));
            let inside = if len == 1 { 0 } else { inside & (u64::MAX >> (WORD + 1 - len)) };
            borders += inside.count_ones() as usize;
            if let Some((my_last, their_last)) = carry {
                borders += usize::from(my_last != mine & 1 || their_last != theirs & 1);
            }
            carry = Some((mine >> (len - 1) & 1, theirs >> (len - 1) & 1));
            at = end;
        }
        borders
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| word.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn runs_and_borders_agree_with_a_plain_vector() {
        let (bits, other) = (Bits::new(300).unwrap(), Bits::new(300).unwrap());
        let mut model = vec![(false, false); 300];
        let mut seed = 0x1234_5678_9abc_def1_u64;
        println!("seed {seed:#x}");
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for _ in 0..3000 {
            let start = next(300);
            let end = start + 1 + next(300 - start);
            let value = next(2) == 0;
            if next(2) == 0 {
                bits.set(start..end, value);
                model[start..end].iter_mut().for_each(|pair| pair.0 = value);
            } else {
                other.set(start..end, value);
                model[start..end].iter_mut().for_each(|pair| pair.1 = value);
            }
            let (start, end) = (next(150), 151 + next(149));
            let part = &model[start..end];
            let expected = part.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert_eq!(bits.borders(&other, start..end), expected);
            let runs: Vec<_> = bits.runs(start..end).collect();
            assert!(runs.windows(2).all(|pair| pair[0].0.end == pair[1].0.start && pair[0].1 != pair[1].1));
            for (run, value) in runs {
                assert!(run.clone().all(|page| model[page].0 == value));
            }
        }
    }
}
