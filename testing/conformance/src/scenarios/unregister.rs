//! UNREGISTER.
//!
//! Kernel counterpart: `UFFDIO_UNREGISTER`.

use super::registers;
use crate::place::{At, Use};
use crate::world::{Span, World};

// spec: m/unregister/order
pub(super) fn the_first_broken_rule_decides(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.at(At::Nowhere).unregister(fd, Span { start: 1, len: 0 }).is("EFAULT");
    w.unregister(fd, Span { start: a.at(0), len: 0 }).is("EINVAL");
    w.unregister(fd, a.span(20, 2)).is("EINVAL");
    w.load(0, a.at(0)).is("asleep");
    w.unregister(fd, a.all()).is("0").then("t0 done 0x0, fd0 0/0");
}

// spec(simulator,kernel): m/unregister/order
pub(super) fn memory_that_can_never_be_registered_cannot_be_unregistered(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    w.map_over(a.span(2, 2), Use::Unregistrable);
    registers(w, fd, a.span(0, 2), 1);
    w.unregister(fd, a.all()).is("EINVAL");
    w.unregister(fd, a.span(2, 1)).is("EINVAL");
    w.load(0, a.at(0)).is("asleep");
    w.unregister(fd, a.span(0, 2)).is("0").then("t0 done 0x0, fd0 0/0");
}

// spec: m/unregister/other, W21
pub(super) fn a_foreign_registration_anywhere_is_refused_and_nothing_changes(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.span(0, 2), 1);
    registers(w, other, a.span(4, 2), 1);
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(4)).is("asleep");
    w.unregister(fd, a.all()).is("EINVAL").then("");
    w.unregister(other, a.all()).is("EINVAL").then("");
    w.unregister(fd, a.span(4, 1)).is("EINVAL").then("");
    w.unregister(fd, a.span(0, 4)).is("0").then("t0 done 0x0, fd0 0/0");
    w.unregister(other, a.span(2, 4)).is("0").then("t1 done 0x0, fd1 0/0");
}

// spec(simulator,kernel): m/unregister/nothing
pub(super) fn unregistered_memory_is_passed_over(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(8);
    w.unregister(fd, a.all()).is("0");
    w.unmap(a.span(2, 2));
    w.unregister(fd, a.all()).is("0");
    w.unregister(fd, a.span(2, 2)).is("EINVAL");
    registers(w, fd, a.span(6, 2), 1);
    w.unregister(fd, a.all()).is("0");
    w.load(0, a.at(6)).is("done 0x0");
}

// spec: m/unregister/split
pub(super) fn a_middle_part_can_be_taken_out(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.all(), 1);
    w.unregister(fd, a.span(2, 2)).is("0");
    w.load(0, a.at(2)).is("done 0x0");
    w.load(0, a.at(1)).is("asleep");
    w.load(1, a.at(4)).is("asleep");
    w.zeropage(fd, a.span(0, 3), 0).is("ENOENT -ENOENT");
    w.zeropage(fd, a.span(0, 2), 0).is("0 done 8192").then("t0 done 0x0, fd0 1/1");
    registers(w, fd, a.span(2, 2), 1);
    w.zeropage(fd, a.span(3, 3), 0).is("0 done 12288").then("t1 done 0x0, fd0 0/0");
}

// spec: m/unregister/wakes, W7
pub(super) fn the_sleepers_of_the_range_go_on_read_or_not(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep");
    w.store(1, a.at(1), 9).is("asleep");
    w.load(2, a.at(2)).is("asleep");
    w.read(fd, 32).is("32 bytes: A+0 flags 0").then("fd0 2/3");
    w.unregister(fd, a.span(0, 2)).is("0").then("t0 done 0x0, t1 done 0x0, fd0 1/1");
    w.read(fd, 64).is("32 bytes: A+2 flags 0");
    w.see(a.all()).is("0x0, mixed, missing, missing");
}

// spec: m/unregister/wp
pub(super) fn protection_goes_and_poison_stays(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(4);
    w.populate(a.span(0, 1), 0x33);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.span(0, 2), 1).is("0");
    w.poison(fd, a.span(2, 1), 0).is("0 done 4096");
    w.see(a.all()).is("protected 0x33, marked, poisoned, missing");
    w.store(0, a.at(0), 8).is("asleep");
    w.unregister(fd, a.all()).is("0").then("t0 done 0x0, fd0 0/0");
    w.see(a.all()).is("mixed, missing, poisoned, missing");
    w.load(1, a.at(2)).is("bus error A+2");
    w.store(1, a.at(1), 8).is("done 0x0");
}

// spec: m/unregister/wakes, W7
pub(super) fn the_writers_of_a_range_that_is_only_protected_go_on(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    w.populate(a.all(), 0x15);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.all(), 1).is("0");
    w.store(0, a.at(0), 1).is("asleep").then("fd0 1/1");
    w.store(1, a.at(1), 1).is("asleep").then("fd0 2/2");
    w.read(fd, 32);
    w.unregister(fd, a.all()).is("0").then_but("", "m/unregister/wakes", "t0 done 0x0, t1 done 0x0, fd0 0/0");
    w.wake(fd, a.all()).is("0").then_but("t0 done 0x0, t1 done 0x0, fd0 0/0", "m/unregister/wakes", "");
}
