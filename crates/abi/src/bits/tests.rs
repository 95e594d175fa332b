//! Every bit once as a number, and the laws of a set that keeps what it does not know.

use super::{
    ContinueModes, CopyModes, Features, IoctlMask, MoveModes, OpenFlags, PagefaultFlags, PoisonModes, RegisterModes,
    WriteprotectModes, ZeropageModes,
};
use crate::poll::PollEvents;
use crate::testing::Words;
use std::string::ToString;

/// Checks a type's numbers against a table that must be complete.
macro_rules! table {
    ($set:ident: $($name:ident = $number:literal),* $(,)?) => {{
        $(assert_eq!($set::$name.bits(), $number, stringify!($set::$name));)*
        $(assert_eq!($set::from_bits($number).to_string(), stringify!($name));)*
        assert_eq!($set::ALL.bits(), 0 $(| $number)*, "the table is complete");
        assert_eq!($set::NONE.bits(), 0);
    }};
}

#[test]
fn every_open_flag_has_its_number() {
    table!(OpenFlags: USER_MODE_ONLY = 1, NONBLOCK = 0x800, CLOEXEC = 0x80000);
}

#[test]
fn every_feature_has_its_number() {
    table!(Features:
        PAGEFAULT_FLAG_WP = 0x1,
        EVENT_FORK = 0x2,
        EVENT_REMAP = 0x4,
        EVENT_REMOVE = 0x8,
        MISSING_HUGETLBFS = 0x10,
        MISSING_SHMEM = 0x20,
        EVENT_UNMAP = 0x40,
        SIGBUS = 0x80,
        THREAD_ID = 0x100,
        MINOR_HUGETLBFS = 0x200,
        MINOR_SHMEM = 0x400,
        EXACT_ADDRESS = 0x800,
        WP_HUGETLBFS_SHMEM = 0x1000,
        WP_UNPOPULATED = 0x2000,
        POISON = 0x4000,
        WP_ASYNC = 0x8000,
        MOVE = 0x10000,
    );
    assert_eq!(Features::ALL.bits(), 0x1FFFF);
}

#[test]
fn every_mode_has_its_number() {
    table!(RegisterModes: MISSING = 1, WP = 2, MINOR = 4);
    table!(CopyModes: DONTWAKE = 1, WP = 2);
    table!(ZeropageModes: DONTWAKE = 1);
    table!(ContinueModes: DONTWAKE = 1, WP = 2);
    table!(PoisonModes: DONTWAKE = 1);
    table!(MoveModes: DONTWAKE = 1, ALLOW_SRC_HOLES = 2);
}

#[test]
fn writeprotect_has_its_two_mode_bits_the_other_way_round() {
    table!(WriteprotectModes: WP = 1, DONTWAKE = 2);
}

#[test]
fn every_fault_flag_has_its_number() {
    table!(PagefaultFlags: WRITE = 1, WP = 2, MINOR = 4);
}

#[test]
fn every_poll_event_has_its_number() {
    table!(PollEvents: IN = 0x001, ERR = 0x008, HUP = 0x010);
}

#[test]
fn the_ioctl_mask_has_one_bit_per_ioctl_number() {
    table!(IoctlMask:
        REGISTER = 0x1,
        UNREGISTER = 0x2,
        WAKE = 0x4,
        COPY = 0x8,
        ZEROPAGE = 0x10,
        MOVE = 0x20,
        WRITEPROTECT = 0x40,
        CONTINUE = 0x80,
        POISON = 0x100,
        API = 0x8000_0000_0000_0000,
    );
}

#[test]
fn a_set_keeps_and_shows_the_bits_it_does_not_know() {
    for (bits, unknown, text) in [
        (0, 0, "NONE"),
        (1, 0, "MISSING"),
        (7, 0, "MISSING|WP|MINOR"),
        (8, 8, "0x8"), // the first bit without a name
        (0x8000_0000_0000_000A, 0x8000_0000_0000_0008, "WP|0x8000000000000008"),
        (u64::MAX, u64::MAX - 7, "MISSING|WP|MINOR|0xfffffffffffffff8"),
    ] {
        let set = RegisterModes::from_bits(bits);
        assert_eq!(set.bits(), bits);
        assert_eq!(set.unknown().bits(), unknown);
        assert_eq!(set.to_string(), text);
        assert_eq!(std::format!("{set:?}"), text);
    }
}

#[test]
fn containing_asks_for_every_bit_and_intersecting_for_one() {
    let (missing, wp) = (RegisterModes::MISSING, RegisterModes::WP);
    let both = missing | wp;
    for (set, other, contains, intersects) in [
        (both, both, true, true),
        (both, wp, true, true),
        (wp, both, false, true),
        (missing, wp, false, false),
        (missing, RegisterModes::NONE, true, false),
        (RegisterModes::NONE, missing, false, false),
        (RegisterModes::NONE, RegisterModes::NONE, true, false),
    ] {
        assert_eq!(set.contains(other), contains, "{set} contains {other}");
        assert_eq!(set.intersects(other), intersects, "{set} intersects {other}");
    }
}

#[test]
fn the_operators_obey_the_laws_of_sets_for_unknown_bits_too() {
    let mut words = Words::from_seed(0x5EED_0001);
    for _ in 0..crate::testing::rounds(10_000) {
        let (a, b) = (Features::from_bits(words.next()), Features::from_bits(words.next()));
        assert_eq!((a | b).bits(), a.bits() | b.bits());
        assert_eq!((a & b).bits(), a.bits() & b.bits());
        assert_eq!((a - b) | (a & b), a);
        assert!(!(a - b).intersects(b));
        assert!((a | b).contains(a));
        assert_eq!(a.unknown() | (a & Features::ALL), a);
        assert_eq!((a - a).is_empty(), Features::default().is_empty());
        let mut united = a;
        united |= b;
        assert_eq!(united, a.union(b));
    }
}
