//! The handshake.
//!
//! Kernel counterpart: `UFFDIO_API`.

use userfault_abi::request;

use crate::place::At;
use crate::world::{NONBLOCK, World};

const EVENT_FORK: u64 = 1 << 1;
const UNKNOWN: u64 = 1 << 40;
const DONE: &str = "0 api 0xaa features 0x1ffff ioctls 0x8000000000000003";
const ZEROED: &str = "EINVAL api 0x0 features 0x0 ioctls 0x0";

// spec: m/api/before, m/poll/before
pub(super) fn before_the_handshake_nothing_else_works(w: &mut World<'_>) {
    let a = w.map(2);
    for flags in [NONBLOCK, 0] {
        let fd = w.open(flags);
        for count in [0, 31, 32, 64] {
            w.read(fd, count).is("EINVAL");
        }
        w.at(At::Nowhere).read(fd, 32).is("EINVAL");
        w.poll(fd).is("0x8");
        w.register(fd, a.all(), 1).is("EINVAL untouched");
        w.unregister(fd, a.all()).is("EINVAL");
        w.wake(fd, a.all()).is("EINVAL");
        w.copy(fd, a.all(), a.at(0), 0).is("EINVAL untouched");
        w.zeropage(fd, a.all(), 0).is("EINVAL untouched");
        w.writeprotect(fd, a.all(), 0).is("EINVAL");
        w.poison(fd, a.all(), 0).is("EINVAL untouched");
        w.at(At::Nowhere).register(fd, a.all(), 1).is("EINVAL untouched");
        w.at(At::Nowhere).unregister(fd, a.all()).is("EINVAL");
        w.at(At::Nowhere).wake(fd, a.all()).is("EINVAL");
        w.at(At::Nowhere).copy(fd, a.all(), a.at(0), 0).is("EINVAL untouched");
        w.at(At::Nowhere).zeropage(fd, a.all(), 0).is("EINVAL untouched");
        w.at(At::Nowhere).writeprotect(fd, a.all(), 0).is("EINVAL");
        w.at(At::Nowhere).poison(fd, a.all(), 0).is("EINVAL untouched");
        w.load(0, a.at(0)).is("done 0x0");
    }
}

// spec: m/api/answer
pub(super) fn the_answer_lists_what_exists_whatever_was_asked(w: &mut World<'_>) {
    for features in [0, 1, 0x80, 0x2000, 0x69a1] {
        let fd = w.open(NONBLOCK);
        w.api(fd, features).answers();
    }
}

// spec: m/api/order, m/api/error
pub(super) fn the_first_broken_rule_decides(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.at(At::Nowhere).api_version(fd, 0xAB, UNKNOWN).is("EFAULT untouched");
    w.at(At::Cut(23)).api(fd, 0).is("EFAULT untouched");
    w.api_version(fd, 0xAB, UNKNOWN).is(ZEROED);
    w.api_version(fd, 0, 0).is(ZEROED);
    w.api(fd, UNKNOWN).is(ZEROED);
    w.api(fd, 1 << 17).is(ZEROED);
    w.api(fd, 1 << 63 | 1).is(ZEROED);
    w.at(At::ReadOnly).api_version(fd, 0xAB, 0).is("EFAULT untouched");
    w.at(At::ReadOnly).api(fd, UNKNOWN).is("EFAULT untouched");
    w.at(At::ReadOnly).api(fd, 0).is("EFAULT untouched");
    w.poll(fd).is("0x8");
    w.api(fd, 0).answers();
    w.api(fd, 0).is(ZEROED);
    w.api_version(fd, 0xAB, UNKNOWN).is(ZEROED);
    w.at(At::ReadOnly).api(fd, 0).is("EFAULT untouched");
    w.at(At::Nowhere).api(fd, 0).is("EFAULT untouched");
}

// spec: m/api/order
pub(super) fn a_feature_that_is_not_there_is_an_unknown_bit(w: &mut World<'_>) {
    for feature in [EVENT_FORK, 1 << 2, 1 << 3, 1 << 6, 1 << 15, 1 << 16, 1 << 4, 1 << 9, 1 << 10, 1 << 12] {
        let fd = w.open(NONBLOCK);
        w.api(fd, feature).is_but(DONE, "m/api/order", ZEROED);
        w.close(fd);
    }
}

// spec: m/api/state, m/api/error
pub(super) fn a_failed_handshake_leaves_no_trace(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.api(fd, UNKNOWN | 0x80).is(ZEROED);
    w.read(fd, 32).is("EINVAL");
    w.at(At::ReadOnly).api(fd, 0x80).is("EFAULT untouched");
    w.read(fd, 32).is("EINVAL");
    w.poll(fd).is("0x8");
    w.api(fd, 0x100).answers();
    w.read(fd, 32).is("EAGAIN");
    let a = w.map(1);
    super::registers(w, fd, a.all(), 1);
    // SIGBUS (0x80) did not stick: the thread sleeps; THREAD_ID (0x100) did.
    w.load(0, a.at(0)).is("asleep");
    w.read(fd, 32).is("32 bytes: A+0 flags 0 by t0");
    w.wake(fd, a.all()).is("0").then("fd0 1/1");
}

// spec: m/api/once
pub(super) fn a_handshake_succeeds_once(w: &mut World<'_>) {
    for first in [0, 0x100] {
        let fd = w.open(NONBLOCK);
        w.api(fd, first).answers();
        for second in [0, 0x100, 0x80] {
            w.api(fd, second).is(ZEROED);
        }
        let a = w.map(1);
        super::registers(w, fd, a.all(), 1);
        w.load(0, a.at(0)).is("asleep");
        w.read(fd, 32);
        w.close(fd).is("done").then("t0 done 0x0");
    }
}

// spec: m/api/unknown-ioctl
pub(super) fn only_whole_request_words_are_known(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(1);
    let mut argument = [0; 64];
    argument[..8].copy_from_slice(&a.at(0).to_ne_bytes());
    argument[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
    argument[16] = 1;
    let known = [request::API, request::REGISTER, request::UNREGISTER, request::WAKE, request::COPY, request::POISON];
    for request in known {
        for unknown in [request ^ 1 << 30, request ^ 1 << 31, request + (1 << 16), request - (1 << 16), request ^ 1 << 8] {
            w.ioctl(fd, unknown, &argument).is("EINVAL");
        }
    }
    for number in [0x09, 0x10, 0x3E, 0x40, 0xFF] {
        w.ioctl(fd, request::ioc(3, number, 32), &argument).is("EINVAL");
    }
    w.ioctl(fd, request::NEW, &argument).is("EINVAL");
    w.at(At::Nowhere).ioctl(fd, 0xC020_AA09, &argument).is("EINVAL");
    w.load(0, a.at(0)).is("done 0x0");
}
