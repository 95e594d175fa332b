//! poll.
//!
//! Kernel counterpart: `poll(2)` on a userfaultfd.

use super::registers;
use crate::world::World;

// spec: m/poll/nonblocking
pub(super) fn a_nonblocking_descriptor_is_readable_while_a_message_waits(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.poll(fd).is("0x0");
    w.load(0, a.at(0)).is("asleep");
    w.poll(fd).is("0x1");
    w.load(1, a.at(1)).is("asleep");
    w.read(fd, 32);
    w.poll(fd).is("0x1");
    w.read(fd, 32);
    w.poll(fd).is("0x0");
    w.wake(fd, a.span(0, 1)).is("0").then("fd0 1/2");
    w.poll(fd).is("0x1");
    w.zeropage(fd, a.all(), 0).is("0 done 8192");
    w.poll(fd).is("0x0");
}

// spec: m/poll/blocking
pub(super) fn a_blocking_descriptor_is_always_in_error(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(1);
    registers(w, fd, a.all(), 1);
    w.set_nonblocking(fd, false);
    w.poll(fd).is("0x8");
    w.load(0, a.at(0)).is("asleep");
    w.poll(fd).is("0x8");
    w.set_nonblocking(fd, true);
    w.poll(fd).is("0x1");
    w.read(fd, 32).is("32 bytes: A+0 flags 0");
    w.set_nonblocking(fd, false);
    w.poll(fd).is("0x8");
}
