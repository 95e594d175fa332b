//! Every message byte by byte, and what survives of messages from the future.

use super::{Message, MessageEvent};
use crate::bits::PagefaultFlags;
use crate::event;
use crate::testing::Words;
use std::vec::Vec;

/// Four 64-bit words; the head's first byte is the event, the rest of it zero.
fn bytes(event: u8, body: &[&[u8]]) -> [u8; 32] {
    let mut bytes: Vec<u8> = std::vec![event, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(body.concat());
    bytes.resize(32, 0);
    bytes.try_into().unwrap()
}

#[test]
fn every_event_has_its_number() {
    for (number, literal) in [
        (event::PAGEFAULT, 0x12),
        (event::FORK, 0x13),
        (event::REMAP, 0x14),
        (event::REMOVE, 0x15),
        (event::UNMAP, 0x16),
    ] {
        assert_eq!(number, literal);
    }
    assert_eq!(Message::SIZE, 32);
}

#[test]
fn every_message_has_its_fields_at_their_offsets_and_zero_elsewhere() {
    let word = |value: u64| value.to_ne_bytes();
    let half = |value: u32| value.to_ne_bytes();
    let flags = PagefaultFlags::from_bits(0x8000_0000_0000_0003);
    for (message, expected, event) in [
        (
            Message::pagefault(flags, 0x1234_5000, 0xFFFF_FFFE),
            bytes(0x12, &[&word(flags.bits()), &word(0x1234_5000), &half(0xFFFF_FFFE)]),
            MessageEvent::Pagefault { flags, address: 0x1234_5000, thread: 0xFFFF_FFFE },
        ),
        (
            Message::fork(0xFFFF_FFFF),
            bytes(0x13, &[&half(0xFFFF_FFFF)]),
            MessageEvent::Fork { descriptor: 0xFFFF_FFFF },
        ),
        (
            Message::remap(1, 2, u64::MAX),
            bytes(0x14, &[&word(1), &word(2), &word(u64::MAX)]),
            MessageEvent::Remap { from: 1, to: 2, len: u64::MAX },
        ),
        (
            Message::remove(1, u64::MAX),
            bytes(0x15, &[&word(1), &word(u64::MAX)]),
            MessageEvent::Remove { start: 1, end: u64::MAX },
        ),
        (
            Message::unmap(u64::MAX, 1),
            bytes(0x16, &[&word(u64::MAX), &word(1)]),
            MessageEvent::Unmap { start: u64::MAX, end: 1 },
        ),
    ] {
        assert_eq!(message.to_bytes(), expected, "{event:?}");
        assert_eq!(message.event(), event);
    }
}

#[test]
fn an_event_without_a_name_keeps_its_bytes() {
    for event in (0..=u8::MAX).filter(|event| !(0x12..=0x16).contains(event)) {
        let message = Message::from_bytes([event; 32]);
        assert_eq!(message.event(), MessageEvent::Unknown { event });
        assert_eq!(message.to_bytes(), [event; 32]);
    }
}

#[test]
fn any_bytes_survive_and_what_they_say_rebuilds_the_bytes_it_uses() {
    let mut words = Words::from_seed(0x5EED_0003);
    for _ in 0..crate::testing::rounds(10_000) {
        let mut raw: [u8; 32] = words.bytes();
        raw[0] = 0x10 | raw[0] & 0x7;
        let message = Message::from_bytes(raw);
        assert_eq!(message.to_bytes(), raw);
        let rebuilt = match message.event() {
            MessageEvent::Pagefault { flags, address, thread } => Message::pagefault(flags, address, thread),
            MessageEvent::Fork { descriptor } => Message::fork(descriptor),
            MessageEvent::Remap { from, to, len } => Message::remap(from, to, len),
            MessageEvent::Remove { start, end } => Message::remove(start, end),
            MessageEvent::Unmap { start, end } => Message::unmap(start, end),
            MessageEvent::Unknown { event } => {
                assert_eq!(event, raw[0]);
                continue;
            }
        };
        assert_eq!(rebuilt.event(), message.event());
    }
}

#[test]
fn what_a_fault_does_not_use_is_zero_whatever_it_says() {
    let mut words = Words::from_seed(0x5EED_0004);
    for _ in 0..crate::testing::rounds(1_000) {
        let flags = PagefaultFlags::from_bits(words.next());
        let bytes = Message::pagefault(flags, words.next(), u32::MAX).to_bytes();
        assert_eq!(bytes[1..8], [0; 7]);
        assert_eq!(bytes[28..], [0; 4]);
    }
}
