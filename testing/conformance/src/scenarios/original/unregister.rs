//! UNREGISTER, original protocol.
//!
//! Kernel counterpart: `UFFDIO_UNREGISTER` as of May 2015.

use super::adds;
use crate::place::Use;
use crate::world::World;

// spec(simulator): o/unregister/scan, W25
pub(super) fn a_range_with_other_memory_in_it_is_refused(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(6);
    adds(w, fd, a.all());
    w.map_over(a.span(2, 1), Use::Unregistrable);
    w.load(0, a.at(0)).is("asleep");
    w.unregister(fd, a.all()).is("EINVAL").then("");
    w.unregister(fd, a.span(0, 2)).is("0").then_but("", "o/unregister/sleepers", "t0 done 0x0, fd0 0/0");
}

// spec: o/unregister/any-context, W21
pub(super) fn another_contexts_registration_is_refused(w: &mut World<'_>) {
    let fd = w.ready_original();
    let other = w.ready_original();
    let a = w.map(4);
    adds(w, fd, a.span(0, 2));
    adds(w, other, a.span(2, 2));
    w.unregister(fd, a.all()).is_but("0", "o/unregister/any-context", "EINVAL");
    w.load(0, a.at(0)).is_but("done 0x0", "o/unregister/any-context", "asleep");
    w.load(1, a.at(2)).is_but("done 0x0", "o/unregister/any-context", "asleep");
}

// spec: o/unregister/unregistered, o/unregister/applied
pub(super) fn exactly_the_range_is_unregistered(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(6);
    w.unregister(fd, a.all()).is("0");
    adds(w, fd, a.span(0, 5));
    w.unregister(fd, a.span(1, 2)).is("0");
    w.unregister(fd, a.span(1, 2)).is("0");
    w.unregister(fd, a.span(4, 2)).is("0");
    for page in [1, 2, 4, 5] {
        w.load(0, a.at(page)).is("done 0x0");
    }
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(3)).is("asleep");
}

// spec: o/unregister/sleepers, o/poll/promise, W7
pub(super) fn unregistering_wakes_the_sleepers_of_the_range_and_no_others(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.load(2, a.at(2)).is("asleep");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
    w.unregister(fd, a.span(0, 2)).is("0").then_but("", "o/unregister/sleepers", "t0 done 0x0, t1 done 0x0, fd0 1/1");
    w.unregister(fd, a.span(2, 1)).is("0").then_but("", "o/unregister/sleepers", "t2 done 0x0, fd0 0/0");
    w.poll(fd).is_but("0x1", "o/poll/promise", "0x0");
}
