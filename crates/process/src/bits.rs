//! One bit per page: whether the hardware lets it be touched, as far as we set it.
//!
//! Changed only under the lock of the pages' chunk; read by anybody as a hint.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use userfault_memory::{MapError, Zeroed};

const WORD: usize = 64;

pub(crate) struct Bits {
    words: Zeroed<AtomicU64>,
}

impl Bits {
    pub(crate) fn new(pages: usize) -> Result<Self, MapError> {
        Ok(Self { words: Zeroed::new(pages.div_ceil(WORD))? })
    }

    pub(crate) fn get(&self, page: usize) -> bool {
        self.word(page / WORD) >> (page % WORD) & 1 == 1
    }

    /// Chunks begin at multiples of 64 pages, so two locks never guard bits of one word.
    pub(crate) fn set(&self, pages: Range<usize>, value: bool) {
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
    pub(crate) fn find(&self, pages: Range<usize>, value: bool) -> Option<usize> {
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
    pub(crate) fn runs(&self, pages: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
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
    pub(crate) fn borders(&self, other: &Self, pages: Range<usize>) -> usize {
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
