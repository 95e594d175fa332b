//! REGISTER, original protocol.
//!
//! Kernel counterpart: `UFFDIO_REGISTER` as of May 2015.

use super::adds;
use crate::place::{ABOVE, At, Use};
use crate::world::{PAGE, Span, World};

// spec: o/register/mode
pub(super) fn exactly_mode_1_passes(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    for mode in [0, 2, 3, 4, 5, 1 << 63] {
        w.register(fd, a.all(), mode).is("EINVAL untouched");
    }
    adds(w, fd, a.all());
}

// spec: o/register/errno-order, o/register/no-mapping, o/register/before-first
pub(super) fn the_first_broken_rule_decides(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    let above = Span { start: ABOVE, len: PAGE };
    let below = Span { start: a.at(0) - PAGE, len: PAGE };
    let empty = Span { start: a.at(0), len: 0 };
    w.at(At::Nowhere).register(fd, empty, 0).is("EFAULT untouched");
    w.register(fd, above, 0).is("EINVAL untouched");
    w.register(fd, empty, 1).is("EINVAL untouched");
    w.register(fd, above, 1).is("ENOMEM untouched");
    w.register(fd, below, 1).is("EINVAL untouched");
    let other = w.ready_original();
    adds(w, other, a.span(1, 1));
    w.register(fd, a.all(), 1).is("EBUSY untouched");
    w.at(At::ReadOnly).register(fd, a.all(), 1).is("EBUSY untouched");
    w.at(At::ReadOnly).register(fd, a.span(0, 1), 1).is("EFAULT untouched");
}

// spec: o/register/no-mapping, o/unregister/mapped
pub(super) fn nothing_mapped_above_is_no_memory_and_nothing_mapped_inside_is_invalid(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    let above = Span { start: ABOVE, len: 4 * PAGE };
    let below = Span { start: a.at(0) - 2 * PAGE, len: 2 * PAGE };
    w.register(fd, above, 1).is("ENOMEM untouched");
    w.unregister(fd, above).is("ENOMEM");
    w.register(fd, below, 1).is("EINVAL untouched");
    w.unregister(fd, below).is("EINVAL");
}

// spec(simulator): o/register/scan, o/register/whole-mapping-check, W26
pub(super) fn the_first_mapping_that_offends_decides(w: &mut World<'_>) {
    let fd = w.ready_original();
    let other = w.ready_original();
    let a = w.map(8);
    w.map_over(a.span(2, 2), Use::Unregistrable);
    adds(w, other, a.span(0, 2));
    adds(w, other, a.span(4, 4));
    w.register(fd, a.span(0, 4), 1).is("EBUSY untouched");
    w.register(fd, a.span(2, 4), 1).is("EINVAL untouched");
    w.register(fd, a.span(1, 7), 1).is("EBUSY untouched");
    // A part of it is judged as the whole is.
    w.register(fd, a.span(3, 1), 1).is("EINVAL untouched");
    w.unregister(fd, a.span(3, 1)).is("EINVAL");
    w.load(0, a.at(2)).is("done 0x0");
}

// spec: o/register/scan, o/register/atomic-scan
pub(super) fn another_contexts_range_is_busy_and_nothing_changes(w: &mut World<'_>) {
    let fd = w.ready_original();
    let other = w.ready_original();
    let a = w.map(4);
    adds(w, other, a.span(2, 1));
    w.register(fd, a.all(), 1).is("EBUSY untouched");
    w.register(fd, a.span(2, 1), 1).is("EBUSY untouched");
    w.load(0, a.at(0)).is("done 0x0");
    w.load(0, a.at(3)).is("done 0x0");
    adds(w, fd, a.span(0, 2));
    w.close(other);
    adds(w, fd, a.all());
}

// spec: o/register/holes
pub(super) fn gaps_are_tolerated_and_stay_unregistered(w: &mut World<'_>) {
    let fd = w.ready_original();
    let (a, b) = w.map_two(2, 2);
    adds(w, fd, a.through(b));
    w.load(0, a.at(1)).is("asleep");
    w.load(1, b.at(0)).is("asleep");
    w.unregister(fd, a.until(b)).is("EINVAL").then("");
}

// spec(simulator): o/register/holes, W34
pub(super) fn a_hole_that_is_mapped_later_is_not_registered(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(4);
    w.unmap(a.span(1, 2));
    adds(w, fd, a.all());
    w.map_over(a.span(1, 2), Use::Registrable);
    w.load(0, a.at(1)).is("done 0x0");
    w.load(0, a.at(3)).is("asleep");
}

// spec: o/register/applied, o/register/split, o/fault/no-context
pub(super) fn exactly_the_range_is_registered(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(5);
    adds(w, fd, a.span(1, 3));
    w.load(0, a.at(0)).is("done 0x0");
    w.load(0, a.at(4)).is("done 0x0");
    w.load(0, a.at(1)).is("asleep");
    w.load(1, a.at(3)).is("asleep");
    w.read(fd, 64).is("16 bytes: A+1 low 0x0; A+3 low 0x0");
}

// spec: o/register/accumulate, W24
pub(super) fn registering_again_succeeds_and_says_the_same(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(4);
    adds(w, fd, a.span(1, 2));
    w.load(0, a.at(1)).is("asleep");
    adds(w, fd, a.span(1, 2)).then("");
    adds(w, fd, a.all()).then("");
    w.load(1, a.at(0)).is("asleep");
    w.read(fd, 64).is("16 bytes: A+1 low 0x0; A+0 low 0x0");
}

// spec: o/register/merge, W23
pub(super) fn equal_neighbours_are_one_registration(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(6);
    adds(w, fd, a.span(0, 2));
    adds(w, fd, a.span(4, 2));
    adds(w, fd, a.span(2, 2));
    if w.has_fills() {
        // A fill crosses no border.
        w.zeropage(fd, a.all(), 0).is_but("ENOENT -ENOENT", "o/register/merge", "0 done 24576");
    }
}

// spec: o/register/answer, o/register/answer-fault, W24
pub(super) fn a_registration_whose_answer_is_lost_stays(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    w.at(At::Cut(24)).register(fd, a.span(0, 1), 1).is("EFAULT untouched");
    w.at(At::ReadOnly).register(fd, a.span(1, 1), 1).is("EFAULT untouched");
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.load(2, a.at(2)).is("done 0x0");
    adds(w, fd, a.all());
}

// spec: o/register/contents, o/fault/what
pub(super) fn pages_that_are_there_raise_no_faults(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    w.populate(a.span(0, 2), 0x77);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("done 0x7777777777777777");
    w.store(0, a.at(1), 5).is("done 0x0");
    w.load(0, a.at(2)).is("asleep").then("fd0 1/1");
    // What was given back counts as never filled.
    w.discard(a.span(0, 1));
    w.load(1, a.at(0)).is("asleep").then("fd0 2/2");
}

// spec: o/register/no-queue
pub(super) fn registering_wakes_nobody(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(4);
    adds(w, fd, a.span(0, 2));
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
    adds(w, fd, a.all()).then("");
    w.poll(fd).is("0x1");
}
