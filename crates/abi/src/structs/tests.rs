//! Length, offsets, input and answer of every structure, once as numbers.

use super::{Api, Continue, Copy, Move, Poison, Range, Register, Writeprotect, Zeropage};
use crate::testing::Words;
use std::vec::Vec;

/// A structure whose every field holds the number of its word, from 1.
macro_rules! check {
    ($value:expr => $name:ident, size $size:literal, input $input:literal, answer $answer:expr) => {{
        let value: $name = $value;
        let bytes = value.encode();
        assert_eq!($name::SIZE, $size, concat!(stringify!($name), " size"));
        assert_eq!($name::INPUT, $input, concat!(stringify!($name), " input"));
        assert_eq!($name::ANSWER, $answer, concat!(stringify!($name), " answer"));
        let words: Vec<u8> = (1..=$size / 8).flat_map(u64::to_ne_bytes).collect();
        assert_eq!(bytes[..], words[..], concat!(stringify!($name), " offsets"));
        assert_eq!($name::decode(&bytes), Some(value));
    }};
}

const RANGE: Range = Range { start: 1, len: 2 };

#[test]
fn every_field_is_at_its_offset() {
    check!(Api { api: 1, features: 2, ioctls: 3 } => Api, size 24, input 24, answer 0..24);
    check!(RANGE => Range, size 16, input 16, answer 16..16);
    check!(Register { range: RANGE, mode: 3, ioctls: 4 } => Register,
        size 32, input 24, answer 24..32);
    check!(Copy { dst: 1, src: 2, len: 3, mode: 4, copy: 5 } => Copy,
        size 40, input 32, answer 32..40);
    check!(Zeropage { range: RANGE, mode: 3, zeropage: 4 } => Zeropage,
        size 32, input 24, answer 24..32);
    check!(Writeprotect { range: RANGE, mode: 3 } => Writeprotect,
        size 24, input 24, answer 24..24);
    check!(Continue { range: RANGE, mode: 3, mapped: 4 } => Continue,
        size 32, input 24, answer 24..32);
    check!(Poison { range: RANGE, mode: 3, updated: 4 } => Poison,
        size 32, input 24, answer 24..32);
    check!(Move { dst: 1, src: 2, len: 3, mode: 4, moved: 5 } => Move,
        size 40, input 32, answer 32..40);
}

/// Applies a check to every structure.
macro_rules! each {
    ($check:ident) => {
        $check!(Api);
        $check!(Range);
        $check!(Register);
        $check!(Copy);
        $check!(Zeropage);
        $check!(Writeprotect);
        $check!(Continue);
        $check!(Poison);
        $check!(Move);
    };
}

#[test]
fn any_bytes_survive_decoding_and_encoding() {
    let mut words = Words::from_seed(0x5EED_0002);
    macro_rules! survive {
        ($name:ident) => {
            for _ in 0..crate::testing::rounds(1_000) {
                let bytes: [u8; $name::SIZE] = words.bytes();
                let decoded = $name::decode(&bytes).unwrap();
                assert_eq!(decoded.encode(), bytes, stringify!($name));
            }
        };
    }
    each!(survive);
}

#[test]
fn decoding_needs_the_input_and_nothing_more() {
    macro_rules! lengths {
        ($name:ident) => {
            let bytes = [0xFF; $name::SIZE + 1];
            for given in 0..=bytes.len() {
                let decoded = $name::decode(&bytes[..given]);
                assert_eq!(decoded.is_some(), given >= $name::INPUT, "{given} bytes");
            }
        };
    }
    each!(lengths);
}

#[test]
fn an_output_field_that_is_not_given_in_full_reads_as_zero() {
    macro_rules! output {
        ($name:ident) => {
            let bytes = [0xFF; $name::SIZE];
            for given in $name::INPUT..=$name::SIZE {
                let again = $name::decode(&bytes[..given]).unwrap().encode();
                let whole_words = given / 8 * 8;
                assert!(again[..whole_words].iter().all(|byte| *byte == 0xFF), "{given} bytes");
                assert!(again[whole_words..].iter().all(|byte| *byte == 0), "{given} bytes");
            }
        };
    }
    each!(output);
}

#[test]
fn input_and_answer_leave_no_byte_undetermined() {
    macro_rules! covered {
        ($name:ident) => {
            assert!($name::INPUT == $name::ANSWER.start || $name::ANSWER.start == 0);
            assert_eq!($name::ANSWER.end, $name::SIZE, "an answer reaches the end");
            assert!($name::default().encode().iter().all(|byte| *byte == 0));
        };
    }
    each!(covered);
}

#[test]
fn a_failed_fill_answers_a_negative_errno() {
    let bytes = Copy { copy: -17, ..Copy::default() }.encode();
    assert_eq!(bytes[Copy::ANSWER], (-17_i64).to_ne_bytes());
    assert_eq!(Copy::decode(&bytes).unwrap().copy, -17);
}
