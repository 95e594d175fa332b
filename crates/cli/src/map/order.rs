//! A random order that needs no memory: a permutation of `0..count` computed number by number.
//!
//! A Feistel network over the next power of four, walked on until it is back in the range.

use crate::args;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Sequential,
    Random(Permutation),
}

impl Order {
    pub(crate) fn new(order: args::Order, count: u64, seed: u64) -> Self {
        match order {
            args::Order::Sequential => Self::Sequential,
            args::Order::Random => Self::Random(Permutation::new(count, seed)),
        }
    }

    /// The `index`-th of `0..count`.
    pub(crate) fn at(&self, index: u64) -> u64 {
        match self {
            Self::Sequential => index,
            Self::Random(permutation) => permutation.at(index),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Permutation {
    count: u64,
    seed: u64,
    half_bits: u32,
}

impl Permutation {
    fn new(count: u64, seed: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count, seed, half_bits: bits.div_ceil(2).max(1) }
    }

    fn at(&self, index: u64) -> u64 {
        let mut at = self.step(index);
        while at >= self.count {
            at = self.step(at);
        }
        at
    }

    fn step(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (mix(right ^ mix(self.seed ^ round)) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finisher of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::Order;
    use crate::args;

    #[test]
    fn every_window_has_one_place_in_any_order() {
        for count in [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097] {
            for order in [args::Order::Sequential, args::Order::Random] {
                let order = Order::new(order, count, 7);
                let mut seen: Vec<u64> = (0..count).map(|index| order.at(index)).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..count), "{count} {order:?}");
            }
        }
    }

    #[test]
    fn a_seed_stands_for_one_order() {
        let order =
            |seed| (0..100).map(|index| Order::new(args::Order::Random, 100, seed).at(index)).collect::<Vec<_>>();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(!order(1).into_iter().eq(0..100));
    }
}
