//! The fills that later patches of the series added, as an option.
//!
//! Kernel counterpart: `UFFDIO_COPY` and `UFFDIO_ZEROPAGE` of 2015.

use super::adds;
use crate::world::World;

// spec: o/ioctl/unknown, o/register/answer
pub(super) fn a_fill_wakes_those_that_were_read(w: &mut World<'_>) {
    if !w.has_fills() {
        return;
    }
    let fd = w.ready_original();
    let a = w.map(3);
    let s = w.source(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(0)).is("asleep");
    w.read(fd, 8);
    w.copy(fd, a.span(0, 1), s.at(0), 2).is("EINVAL untouched");
    w.copy(fd, a.span(0, 2), s.at(0), 0).is("0 done 8192").then("t0 done 0x1111111111111111, fd0 1/1");
    w.copy(fd, a.span(1, 2), s.at(0), 0).is("EEXIST -EEXIST");
    w.zeropage(fd, a.span(2, 1), 1).is("0 done 4096");
    w.read(fd, 8);
    w.wake(fd, a.all()).then("t1 done 0x1111111111111111, fd0 0/0");
}

// spec: o/register/partial, W22
pub(super) fn registrations_are_changed_whole_or_not_at_all(w: &mut World<'_>) {
    let fd = w.ready_original();
    let other = w.ready_original();
    let a = w.map(6);
    adds(w, other, a.span(4, 1));
    w.register(fd, a.all(), 1).is("EBUSY untouched");
    // What came before the obstacle is as it was; applying has room for all it needs.
    w.load(0, a.at(0)).is_but("asleep", "o/register/partial", "done 0x0");
}
