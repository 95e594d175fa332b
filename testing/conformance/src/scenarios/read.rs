//! read.
//!
//! Kernel counterpart: `read(2)` on a userfaultfd.

use super::registers;
use crate::place::At;
use crate::world::{NONBLOCK, World};

// spec: m/read/size
pub(super) fn whole_messages_are_read_as_many_as_fit(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(5);
    registers(w, fd, a.all(), 1);
    for count in [0, 1, 31] {
        w.read(fd, count).is("EINVAL");
    }
    for thread in 0..5 {
        w.load(thread, a.at(4 - u64::try_from(thread).unwrap_or(0))).is("asleep");
    }
    for count in [0, 31] {
        w.read(fd, count).is("EINVAL").then("");
    }
    w.read(fd, 32).is("32 bytes: A+4 flags 0").then("fd0 4/5");
    w.read(fd, 63).is("32 bytes: A+3 flags 0").then("fd0 3/5");
    w.read(fd, 95).is("64 bytes: A+2 flags 0; A+1 flags 0").then("fd0 1/5");
    w.read(fd, 320).is("32 bytes: A+0 flags 0").then("fd0 0/5");
    w.read(fd, 31).is("EINVAL");
}

// spec: m/read/empty
pub(super) fn an_empty_queue_is_eagain_before_the_buffer_is_looked_at(w: &mut World<'_>) {
    let fd = w.ready(0);
    w.read(fd, 32).is("EAGAIN");
    w.at(At::Nowhere).read(fd, 32).is("EAGAIN");
    w.at(At::Nowhere).read(fd, 31).is("EINVAL");
}

// spec: m/read/empty, m/read/once
pub(super) fn a_blocking_read_sleeps_until_there_is_a_message(w: &mut World<'_>) {
    let fd = w.open(0);
    w.api(fd, 0).answers();
    let a = w.map(3);
    registers(w, fd, a.all(), 1);
    w.read_by(3, fd, 320).is("reading");
    // Setting the flag does not wake who sleeps already.
    w.set_nonblocking(fd, true);
    w.read(fd, 32).is("EAGAIN");
    w.load(0, a.at(0)).is("asleep").then("t3 32 bytes: A+0 flags 0, fd0 0/1");
    w.set_nonblocking(fd, false);
    w.load(1, a.at(1)).is("asleep").then("fd0 1/2");
    w.read_by(3, fd, 320).is("32 bytes: A+1 flags 0").then("fd0 0/2");
    w.read_by(3, fd, 31).is("EINVAL");
}

// spec: m/read/interrupted
pub(super) fn a_signal_ends_a_sleeping_read(w: &mut World<'_>) {
    let fd = w.open(0);
    w.api(fd, 0).answers();
    let a = w.map(1);
    registers(w, fd, a.all(), 1);
    w.read_by(1, fd, 32).is("reading");
    w.signal(1).is("done").then("t1 EINTR");
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.read_by(1, fd, 32).is("32 bytes: A+0 flags 0").then("fd0 0/1");
}

// spec: m/read/order, m/read/once
pub(super) fn the_oldest_fault_is_read_first(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.all(), 1);
    for (thread, page) in [(0, 3), (1, 1), (2, 5), (3, 0)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    w.read(fd, 64).is("64 bytes: A+3 flags 0; A+1 flags 0");
    // One that begins anew is the youngest.
    w.signal(2).then("");
    w.load(4, a.at(2)).is("asleep");
    w.wake(fd, a.span(3, 1)).then("fd0 4/5");
    w.read(fd, 320).is("128 bytes: A+0 flags 0; A+5 flags 0; A+2 flags 0; A+3 flags 0");
    w.read(fd, 32).is("EAGAIN");
    w.zeropage(fd, a.all(), 0).is("0 done 24576");
}

// spec: m/read/efault
pub(super) fn a_message_that_cannot_be_stored_is_lost(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(5);
    registers(w, fd, a.all(), 1);
    for thread in 0..5 {
        w.load(thread, a.at(u64::try_from(thread).unwrap_or(0))).is("asleep");
    }
    w.at(At::Nowhere).read(fd, 32).is("EFAULT").then("fd0 4/5");
    w.at(At::ReadOnly).read(fd, 64).is("EFAULT").then("fd0 3/5");
    w.at(At::Cut(40)).read(fd, 96).is("32 bytes: A+2 flags 0").then("fd0 1/5");
    w.read(fd, 96).is("32 bytes: A+4 flags 0").then("fd0 0/5");
    // The sleepers are there nevertheless.
    w.wake(fd, a.span(0, 2)).is("0").then("fd0 2/5");
    w.read_sorted(fd).is("32 bytes: A+0 flags 0; 32 bytes: A+1 flags 0");
    w.zeropage(fd, a.all(), 0).is("0 done 20480");
}

// spec: m/read/empty, m/poll/blocking
pub(super) fn the_flag_at_the_call_decides(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.api(fd, 0).answers();
    w.read(fd, 32).is("EAGAIN");
    w.set_nonblocking(fd, false);
    w.read_by(0, fd, 32).is("reading");
    w.signal(0).then("t0 EINTR");
    w.set_nonblocking(fd, true);
    w.read_by(0, fd, 32).is("EAGAIN");
}
