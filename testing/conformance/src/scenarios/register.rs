//! REGISTER.
//!
//! Kernel counterpart: `UFFDIO_REGISTER`.

use super::{MISSING, WP, registers};
use crate::place::{At, Protection, Use};
use crate::world::{Span, World};

// spec: m/register/answer
// spec(kernel): m/register/kinds
pub(super) fn the_answer_follows_the_modes_asked_for(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    registers(w, fd, a.all(), 3);
    registers(w, fd, a.all(), 1);
    registers(w, fd, a.all(), 2);
    let b = w.map(2);
    for mode in [1, 2, 3] {
        registers(w, fd, b.all(), mode);
    }
    for mode in [4, 5, 6, 7] {
        w.register(fd, a.all(), mode).is("EINVAL untouched");
    }
}

// spec: m/register/order
pub(super) fn the_first_broken_rule_decides(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let hole = a.span(10, 2);
    let bad = Span { start: a.at(0) + 1, len: 0 };
    w.at(At::Nowhere).register(fd, bad, 0).is("EFAULT untouched");
    for mode in [0, 8, 9, 1 << 63] {
        w.register(fd, a.all(), mode).is("EINVAL untouched");
        w.register(fd, bad, mode).is("EINVAL untouched");
        w.register(fd, hole, mode).is("EINVAL untouched");
    }
    w.register(fd, bad, 1).is("EINVAL untouched");
    w.register(fd, hole, 1).is("EINVAL untouched");
    let other = w.ready(0);
    registers(w, other, a.span(0, 1), 1);
    w.register(fd, a.all(), 1).is("EBUSY untouched");
    w.at(At::Cut(24)).register(fd, a.all(), 1).is("EBUSY untouched");
    w.at(At::Cut(24)).register(fd, a.span(1, 1), 1).is("EFAULT untouched");
    w.at(At::ReadOnly).register(fd, a.span(1, 1), 1).is("EFAULT untouched");
}

// spec: m/register/order, m/register/holes
pub(super) fn a_mapping_that_only_touches_the_end_does_not_count(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let before = Span { start: a.at(0) - 2 * 4096, len: 2 * 4096 };
    w.register(fd, before, 1).is("EINVAL untouched");
    w.register(fd, a.span(2, 2), 1).is("EINVAL untouched");
    w.unregister(fd, before).is("EINVAL");
    w.load(0, a.at(0)).is("done 0x0");
}

// spec(simulator,kernel): m/register/mapping-order, m/register/order
pub(super) fn the_first_mapping_that_offends_decides(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(8);
    w.map_over(a.span(2, 2), Use::Unregistrable);
    registers(w, other, a.span(0, 2), 1);
    w.register(fd, a.span(0, 4), 1).is("EBUSY untouched");
    w.register(fd, a.span(2, 4), 1).is("EINVAL untouched");
    registers(w, other, a.span(4, 4), 1);
    w.register(fd, a.span(2, 6), 1).is("EINVAL untouched");
    w.register(fd, a.span(1, 7), 1).is("EBUSY untouched");
    // Within one mapping the mode comes first.
    w.register(fd, a.span(0, 1), 4).is("EINVAL untouched");
    // Before a hole, too.
    w.unmap(a.span(2, 2));
    w.register(fd, a.span(0, 4), 1).is("EBUSY untouched");
    w.register(other, a.span(0, 4), 1).is_but("0 ioctls 0x13c", "m/register/answer", "0 ioctls 0x11c");
}

// spec(simulator,kernel): m/register/holes, m/unregister/nothing
pub(super) fn holes_are_skipped(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(8);
    w.unmap(a.span(0, 1));
    w.unmap(a.span(3, 2));
    w.unmap(a.span(7, 1));
    registers(w, fd, a.all(), 1);
    for page in [1, 2, 5, 6] {
        w.load(0, a.at(page)).is("asleep");
        w.zeropage(fd, a.span(page, 1), 0).is("0 done 4096");
    }
    w.load(0, a.at(0)).is("segmentation fault A+0");
    w.load(0, a.at(3)).is("segmentation fault A+3");
    // What is mapped into a hole later is not registered.
    w.map_over(a.span(3, 1), Use::Registrable);
    w.load(0, a.at(3)).is("done 0x0");
    w.unregister(fd, a.all()).is("0");
    w.zeropage(fd, a.span(1, 1), 0).is("ENOENT -ENOENT");
}

// spec: m/register/holes, m/unregister/nothing, m/unregister/order, m/fill/one-mapping, m/writeprotect/holes
pub(super) fn what_lies_between_two_regions_is_skipped(w: &mut World<'_>) {
    let fd = w.ready(0);
    let (a, b) = w.map_two(2, 3);
    let (all, between) = (a.through(b), a.until(b));
    w.register(fd, between, 1).is("EINVAL untouched");
    w.unregister(fd, between).is("EINVAL");
    w.unregister(fd, all).is("0");
    registers(w, fd, all, 3);
    w.load(0, a.at(1)).is("asleep");
    w.load(1, b.at(0)).is("asleep");
    w.zeropage(fd, all, 0).is("ENOENT -ENOENT");
    w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096").then("t0 done 0x0, fd0 1/1");
    w.zeropage(fd, b.all(), 0).is("0 done 12288").then("t1 done 0x0, fd0 0/0");
    w.writeprotect(fd, all, 1).is("0");
    w.store(0, a.at(1), 1).is("asleep");
    w.store(1, b.at(2), 1).is("asleep");
    w.writeprotect(fd, between, 0).is("ENOENT").then("");
    w.writeprotect(fd, all, 0).is("0").then("t0 done 0x0, t1 done 0x0, fd0 0/0");
    w.unregister(fd, all).is("0");
    w.load(0, a.at(0)).is("done 0x0");
}

// spec: m/register/atomic
pub(super) fn a_refused_range_is_not_registered_in_part(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(6);
    registers(w, other, a.span(4, 2), 1);
    w.register(fd, a.all(), 1).is("EBUSY untouched");
    for page in [0, 1, 3] {
        w.load(0, a.at(page)).is("done 0x0");
    }
    w.unregister(other, a.span(4, 2)).is("0");
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(4)).is("asleep");
    w.read(other, 32).is("EAGAIN");
    w.read(fd, 32).is("32 bytes: A+4 flags 0");
}

// spec: m/register/efault-answer
pub(super) fn a_registration_whose_answer_is_lost_stays(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    w.at(At::Cut(24)).register(fd, a.span(0, 1), 1).is("EFAULT untouched");
    w.at(At::ReadOnly).register(fd, a.span(2, 1), 1).is("EFAULT untouched");
    w.load(0, a.at(1)).is("done 0x0");
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(2)).is("asleep");
    w.load(2, a.at(3)).is("done 0x0");
    registers(w, fd, a.all(), 1).then("");
}

// spec: m/register/split
pub(super) fn parts_of_a_mapping_are_registered_apart(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(9);
    registers(w, fd, a.span(3, 3), 1);
    registers(w, other, a.span(6, 1), 1);
    registers(w, fd, a.span(1, 2), 1);
    for (page, state) in [(0, "done 0x0"), (7, "done 0x0"), (1, "asleep")] {
        w.load(0, a.at(page)).is(state);
    }
    w.load(1, a.at(5)).is("asleep");
    w.load(2, a.at(6)).is("asleep");
    w.read(fd, 64).is("64 bytes: A+1 flags 0; A+5 flags 0");
    w.read(other, 64).is("32 bytes: A+6 flags 0");
    // Equal neighbours are one mapping again: a fill crosses the old border, but not into another's.
    w.zeropage(fd, a.span(1, 5), 0).is("0 done 20480");
    w.zeropage(fd, a.span(5, 2), 0).is("ENOENT -ENOENT");
    w.zeropage(other, a.span(6, 1), 0).is("0 done 4096");
}

// spec: m/register/again, m/register/answer
pub(super) fn a_superset_is_kept_and_anything_else_replaces(w: &mut World<'_>) {
    for (first, second, left) in
        [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 1), (2, 2, 2), (2, 3, 3), (3, 1, 3), (3, 2, 3), (3, 3, 3)]
    {
        let fd = w.ready(0);
        let a = w.map(2);
        registers(w, fd, a.all(), first);
        registers(w, fd, a.all(), second);
        let missing = if left & MISSING == 0 { "done 0x0" } else { "asleep" };
        w.load(0, a.at(0)).is(missing);
        let protect = if left & WP == 0 { "ENOENT" } else { "0" };
        w.writeprotect(fd, a.all(), 1).is(protect);
        w.close(fd);
    }
}

// spec: m/register/populated
pub(super) fn pages_that_are_there_raise_no_faults(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(3);
    w.populate(a.span(0, 2), 0x77);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("done 0x7777777777777777");
    w.store(0, a.at(1), 5).is("done 0x0");
    w.load(0, a.at(2)).is("asleep");
    w.zeropage(fd, a.span(0, 1), 0).is("EEXIST -EEXIST");
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096").then("t0 done 0x0, fd0 0/0");
    w.discard(a.span(0, 1));
    w.load(0, a.at(0)).is("asleep");
}

// spec: m/register/replace-wp
pub(super) fn protection_that_nobody_registers_any_more_stops_nobody(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    w.populate(a.span(0, 3), 0x55);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 3), 1).is("0");
    registers(w, fd, a.all(), 1);
    w.see(a.all()).is("protected 0x55, protected 0x55, protected 0x55, missing");
    // The write passes and is never stopped again, whatever is registered later.
    w.store(0, a.at(0), 1).is("done 0x0");
    w.writeprotect(fd, a.all(), 1).is("ENOENT");
    registers(w, fd, a.all(), 3);
    w.store(0, a.at(0), 2).is("done 0x0");
    // What was not written meanwhile is still protected.
    w.store(1, a.at(1), 3).is("asleep");
    w.read(fd, 32).is("32 bytes: A+1 flags 3");
    w.unregister(fd, a.all()).is("0").then("t1 done 0x0, fd0 0/0");
    w.see(a.span(2, 1)).is("0x55");
    registers(w, fd, a.all(), 2);
    w.store(2, a.at(2), 4).is("done 0x0");
}

// spec: m/register/replace-wp
pub(super) fn protection_left_by_a_replacement_outlives_unregistering(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(1);
    w.populate(a.all(), 0x55);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.all(), 1).is("0");
    registers(w, fd, a.all(), 1);
    w.unregister(fd, a.all()).is("0");
    registers(w, fd, a.all(), 2);
    let rule = "m/register/replace-wp";
    w.store(0, a.at(0), 1).is_but("asleep", rule, "done 0x0").then_but("fd0 1/1", rule, "");
    w.writeprotect(fd, a.all(), 0).is("0").then_but("t0 done 0x0, fd0 0/0", rule, "");
}

// spec: m/register/events
pub(super) fn registering_wakes_nobody_and_says_nothing(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    registers(w, fd, a.span(0, 2), 1);
    w.load(0, a.at(0)).is("asleep");
    w.store(1, a.at(1), 1).is("asleep");
    w.read(fd, 32).is("32 bytes: A+0 flags 0");
    registers(w, fd, a.span(0, 2), 1).then("");
    registers(w, fd, a.span(0, 2), 3).then("");
    registers(w, fd, a.all(), 3).then("");
    registers(w, fd, a.all(), 2).then("");
    w.read(fd, 64).is("32 bytes: A+1 flags 1");
    // MISSING is gone with the replacement: who looks again finds zeros.
    w.wake(fd, a.all()).is("0");
}

// spec(simulator,kernel): m/register/protection, m/fill/protection, m/fault/protection-first
pub(super) fn inaccessible_mappings_are_registered_and_filled(w: &mut World<'_>) {
    let s = w.source(1);
    for (protection, load) in [(Protection::None, "segmentation fault"), (Protection::Read, "done 0x1111111111111111")] {
        let fd = w.ready(0);
        let a = w.map(4);
        w.protect(a.all(), protection);
        registers(w, fd, a.all(), 3);
        let killed = w.store(0, a.at(3), 1).result();
        w.note("the store", killed.split(' ').next().unwrap_or_default()).is("segmentation");
        w.copy(fd, a.span(0, 1), s.at(0), 0).is("0 done 4096");
        w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096");
        w.poison(fd, a.span(2, 1), 0).is("0 done 4096");
        let loaded = w.load(0, a.at(0)).result();
        w.note("the load", loaded.get(..load.len()).unwrap_or_default()).is(load);
        w.protect(a.all(), Protection::ReadWrite);
        w.load(0, a.at(0)).is("done 0x1111111111111111");
        w.load(0, a.at(1)).is("done 0x0");
        w.read(fd, 32).is("EAGAIN");
    }
}
