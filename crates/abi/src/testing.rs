//! Words that no table would think of, for the round trips; the seed is printed.

/// A xorshift generator; the same seed gives the same words.
pub(crate) struct Words(u64);

impl Words {
    /// Starts at `seed`, not 0, and prints it.
    pub(crate) fn from_seed(seed: u64) -> Self {
        std::println!("seed {seed:#x}");
        Self(seed)
    }

    /// The next word; sparse, dense and small ones all occur.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        match self.0 % 8 {
            0 => self.0 >> 56,
            1 => u64::MAX,
            2 => 1 << (self.0 >> 58),
            _ => self.0,
        }
    }

    /// `BYTES` bytes.
    pub(crate) fn bytes<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        core::array::from_fn(|_| self.next().to_le_bytes()[1])
    }
}

/// How often to repeat a random check; Miri is a thousand times slower.
pub(crate) const fn rounds(rounds: u32) -> u32 {
    if cfg!(miri) { rounds / 200 } else { rounds }
}
