//! The handshake, original protocol.
//!
//! Kernel counterpart: `UFFDIO_API` as of May 2015.

use super::adds;
use crate::place::{At, Trial};
use crate::world::{NONBLOCK, World};

const DONE: &str = "0 api 0xaa features 0x1 ioctls 0x8000000000000003";
const ZEROED: &str = "EINVAL api 0x0 features 0x0 ioctls 0x0";

// spec: o/api/state-first
pub(super) fn a_second_handshake_fails_before_its_argument_is_looked_at(w: &mut World<'_>) {
    let fd = w.ready_original();
    w.api(fd, 0).is("EINVAL untouched");
    w.api_version(fd, 0xAB, 0).is("EINVAL untouched");
    w.at(At::Nowhere).api(fd, 0).is("EINVAL untouched");
    w.at(At::ReadOnly).api(fd, 0).is("EINVAL untouched");
}

// spec: o/api/input, o/api/handshake, o/file/reply-memory
pub(super) fn only_the_version_is_read_and_everything_is_written(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.at(At::Nowhere).api(fd, 0).is("EFAULT untouched");
    w.at(At::Cut(7)).api(fd, 0).is("EFAULT untouched");
    w.poll(fd).is("0x8");
    w.api(fd, !0).is(DONE);
    w.poll(fd).is("0x0");
}

// spec: o/api/mismatch
pub(super) fn another_version_is_answered_with_zeros_and_may_be_tried_again(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    for version in [0, 0xA9, 0xAB, 0xAA00, 1 << 63 | 0xAA] {
        w.api_version(fd, version, 1).is(ZEROED);
    }
    w.at(At::ReadOnly).api_version(fd, 0xAB, 0).is("EFAULT untouched");
    w.poll(fd).is("0x8");
    w.api(fd, 0).is(DONE);
}

// spec: o/api/answer-fault
pub(super) fn an_answer_that_cannot_be_written_leaves_the_state(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.at(At::ReadOnly).api(fd, 0).is("EFAULT untouched");
    w.poll(fd).is("0x8");
    w.read(fd, 8).is("EINVAL");
    w.api(fd, 0).is(DONE);
    w.read(fd, 8).is("EAGAIN");
}

// spec: o/api/silent, W15
pub(super) fn the_handshake_wakes_no_sleeper(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.store(1, a.at(1), 1).is("asleep");
    w.api(fd, 0).is(DONE).then("");
    w.read(fd, 32).is("16 bytes: A+0 low 0x0; A+1 low 0x1");
}

// spec: o/api/unlocked, W16
pub(super) fn exactly_one_of_two_simultaneous_handshakes_wins(w: &mut World<'_>) {
    w.try_out(Trial::RacingHandshakes).is_but("2", "o/api/unlocked", "1");
}
