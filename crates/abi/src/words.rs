//! Between bytes and native-endian 64-bit words: the one place where layouts meet memory order.
//!
//! Every structure of the protocol is an array of such words, so this is all the encoding there is.
//! Both directions are total: lengths that do not match are cut short or filled with zeros.

/// A field that occupies one word.
pub(crate) trait Word {
    fn from_word(word: u64) -> Self;
    fn to_word(self) -> u64;
}

impl Word for u64 {
    fn from_word(word: u64) -> Self {
        word
    }

    fn to_word(self) -> u64 {
        self
    }
}

impl Word for i64 {
    fn from_word(word: u64) -> Self {
        word.cast_signed()
    }

    fn to_word(self) -> u64 {
        self.cast_unsigned()
    }
}

/// Reads `WORDS` words; a word that is not given in full reads as 0.
pub(crate) fn from_bytes<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    let (chunks, _) = bytes.as_chunks();
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words
}

/// Writes the words in order; bytes that no word reaches are 0.
pub(crate) fn to_bytes<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == WORDS * size_of::<u64>(), "a structure is an array of words") };
    let mut bytes = [0; BYTES];
    let (chunks, _) = bytes.as_chunks_mut();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_ne_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Word, from_bytes, to_bytes};

    #[test]
    fn a_word_that_is_not_given_in_full_reads_as_zero() {
        let bytes: [u8; 24] = to_bytes([1, 2, 3]);
        for (given, words) in
            [(0, [0, 0, 0]), (7, [0, 0, 0]), (8, [1, 0, 0]), (15, [1, 0, 0]), (23, [1, 2, 0]), (24, [1, 2, 3])]
        {
            assert_eq!(from_bytes(&bytes[..given]), words, "{given} bytes given");
        }
    }

    #[test]
    fn bytes_after_the_last_word_are_ignored() {
        let bytes: [u8; 24] = to_bytes([1, 2, 3]);
        assert_eq!(from_bytes(&bytes), [1, 2]);
    }

    #[test]
    fn a_negative_result_is_its_twos_complement() {
        assert_eq!((-17_i64).to_word(), 0xFFFF_FFFF_FFFF_FFEF);
        assert_eq!(i64::from_word(0xFFFF_FFFF_FFFF_FFEF), -17);
    }
}
