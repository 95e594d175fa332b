//! WRITEPROTECT.
//!
//! Kernel counterpart: `UFFDIO_WRITEPROTECT`.

use super::registers;
use crate::place::{At, Protection};
use crate::world::{Span, World, word};

// spec: m/writeprotect/order
pub(super) fn the_first_broken_rule_decides(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    registers(w, fd, a.span(0, 2), 2);
    registers(w, fd, a.span(2, 1), 1);
    let empty = Span { start: a.at(0), len: 0 };
    w.at(At::Nowhere).writeprotect(fd, empty, 4).is("EFAULT");
    w.writeprotect(fd, empty, 0).is("EINVAL");
    for mode in [3, 4, 5, 1 << 63] {
        w.writeprotect(fd, a.all(), mode).is("EINVAL");
        w.writeprotect(fd, a.span(20, 1), mode).is("EINVAL");
    }
    for mode in [0, 1, 2] {
        w.writeprotect(fd, a.span(20, 1), mode).is("ENOENT");
        w.writeprotect(fd, a.span(2, 1), mode).is("ENOENT");
        w.writeprotect(fd, a.span(3, 1), mode).is("ENOENT");
        w.writeprotect(fd, a.span(0, 2), mode).is("0");
    }
}

// spec: m/writeprotect/partial
pub(super) fn what_comes_before_an_unprotectable_mapping_is_changed(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    w.populate(a.all(), 0x12);
    registers(w, fd, a.span(0, 2), 2);
    registers(w, fd, a.span(2, 1), 1);
    registers(w, fd, a.span(3, 3), 2);
    w.writeprotect(fd, a.all(), 1).is("ENOENT");
    w.see(a.all()).is("protected 0x12, protected 0x12, 0x12, 0x12, 0x12, 0x12");
    w.store(0, a.at(0), 5).is("asleep");
    w.store(1, a.at(1), 5).is("asleep");
    // Lifting, too, changes what comes before, but whoever sleeps there is not woken.
    w.writeprotect(fd, a.all(), 0).is("ENOENT").then("");
    w.see(a.all()).is("0x12, 0x12, 0x12, 0x12, 0x12, 0x12");
    w.wake(fd, a.all()).is("0").then("t0 done 0x0, t1 done 0x0, fd0 0/0");
}

// spec(simulator,kernel): m/writeprotect/holes
pub(super) fn holes_and_borders_are_no_obstacle(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(8);
    w.populate(a.all(), 0x12);
    w.unmap(a.span(0, 1));
    w.unmap(a.span(3, 1));
    w.unmap(a.span(7, 1));
    registers(w, fd, a.span(0, 5), 2);
    registers(w, fd, a.span(5, 3), 3);
    w.writeprotect(fd, a.all(), 1).is("0");
    for page in [1, 2, 4, 5, 6] {
        w.see(a.span(page, 1)).is("protected 0x12");
    }
    w.store(0, a.at(6), 5).is("asleep");
    w.writeprotect(fd, a.all(), 0).is("0").then("t0 done 0x0, fd0 0/0");
    w.see(a.span(1, 2)).is("0x12, 0x12");
    w.writeprotect(fd, a.span(3, 1), 1).is("ENOENT");
}

// spec: m/writeprotect/wake
pub(super) fn lifting_wakes_every_sleeper_of_the_range(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(5);
    w.populate(a.span(0, 2), 0x12);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.all(), 1).is("0");
    w.store(0, a.at(0), 5).is("asleep");
    w.store(1, a.at(1), 6).is("asleep");
    w.load(2, a.at(2)).is("asleep");
    w.load(3, a.at(4)).is("asleep");
    w.read(fd, 320);
    // Protecting wakes nobody, and lifting with DONTWAKE neither.
    w.writeprotect(fd, a.all(), 1).is("0").then("");
    w.writeprotect(fd, a.span(0, 1), 2).is("0").then("");
    w.see(a.span(0, 2)).is("0x12, protected 0x12");
    // The missing one is woken, too, and faults again.
    w.writeprotect(fd, a.span(0, 4), 0).is("0").then("t0 done 0x0, t1 done 0x0, fd0 1/2");
    w.read(fd, 320).is("32 bytes: A+2 flags 0");
}

// spec: m/writeprotect/anon
pub(super) fn only_what_is_there_is_protected(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(3);
    w.populate(a.span(0, 1), 0x12);
    registers(w, fd, a.all(), 2);
    w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096");
    w.writeprotect(fd, a.all(), 1).is("0");
    w.see(a.all()).is("protected 0x12, protected 0x0, missing");
    w.store(0, a.at(1), 3).is("asleep");
    w.store(1, a.at(2), 3).is("done 0x0");
    w.read(fd, 32).is("32 bytes: A+1 flags 3");
    w.discard(a.span(0, 1));
    w.store(1, a.at(0), 3).is("done 0x0");
}

// spec: m/writeprotect/anon
pub(super) fn with_the_feature_missing_pages_are_marked(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(4);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 3), 1).is("0");
    w.see(a.all()).is("marked, marked, marked, missing");
    w.load(0, a.at(0)).is("done 0x0");
    w.see(a.all()).is("protected 0x0, marked, marked, missing");
    w.writeprotect(fd, a.span(2, 1), 0).is("0");
    w.see(a.all()).is("protected 0x0, marked, missing, missing");
    w.store(0, a.at(1), 3).is("asleep");
    w.read(fd, 32).is("32 bytes: A+1 flags 3");
    w.store(1, a.at(2), 3).is("done 0x0");
    w.discard(a.span(0, 2));
    w.see(a.all());
}

// spec: m/writeprotect/marker, m/copy/marker
pub(super) fn filling_over_a_marker_depends_on_the_fill(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(4);
    let s = w.source(2);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.all(), 1).is("0");
    w.zeropage(fd, a.span(0, 1), 0).is("EEXIST -EEXIST");
    w.poison(fd, a.span(1, 1), 0).is("EEXIST -EEXIST");
    w.copy(fd, a.span(2, 1), s.at(0), 0).is("0 done 4096");
    w.copy(fd, a.span(3, 1), s.at(1), 2).is("0 done 4096");
    w.see(a.all()).is("marked, marked, 0x11, protected 0x22");
    w.store(0, a.at(2), 1).is("done 0x0");
    w.store(0, a.at(3), 1).is("asleep");
    w.read(fd, 32).is("32 bytes: A+3 flags 3");
}

// spec(simulator,kernel): m/writeprotect/mprotect
pub(super) fn protection_survives_mprotect_and_a_superset(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    w.populate(a.all(), 0x13);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 1), 1).is("0");
    w.protect(a.all(), Protection::None);
    w.load(0, a.at(0)).is("segmentation fault A+0");
    w.protect(a.all(), Protection::Read);
    w.load(0, a.at(0)).is("done 0x1313131313131313");
    w.protect(a.all(), Protection::ReadWrite);
    w.store(0, a.at(1), 1).is("done 0x0");
    registers(w, fd, a.all(), 3);
    w.see(a.span(0, 1)).is("protected 0x13");
    w.store(0, a.at(0), 1).is("asleep");
    w.read(fd, 32).is("32 bytes: A+0 flags 3");
}

// spec(simulator,kernel): m/writeprotect/readonly
pub(super) fn a_readonly_mapping_can_be_protected_and_stays_readonly(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    w.populate(a.all(), 0x13);
    w.protect(a.all(), Protection::Read);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 1), 1).is("0");
    w.store(0, a.at(0), 1).is("segmentation fault A+0");
    w.store(0, a.at(1), 1).is("segmentation fault A+1");
    w.load(0, a.at(0)).is("done 0x1313131313131313");
    w.writeprotect(fd, a.all(), 0).is("0");
    w.store(0, a.at(0), 1).is("segmentation fault A+0");
    w.protect(a.all(), Protection::ReadWrite);
    w.store(0, a.at(0), 1).is("done 0x0");
}

// spec: m/writeprotect/poison
pub(super) fn poison_stays_whatever_is_protected(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(2);
    registers(w, fd, a.all(), 3);
    w.poison(fd, a.span(0, 1), 0).is("0 done 4096");
    w.writeprotect(fd, a.all(), 1).is("0");
    w.load(0, a.at(0)).is("bus error A+0");
    w.writeprotect(fd, a.all(), 0).is("0");
    w.see(a.all()).is("poisoned, missing");
    w.store(0, a.at(0), 1).is("bus error A+0");
}

// spec: m/copy/wp, m/writeprotect/wake
pub(super) fn a_page_copied_protected_stops_the_writer_that_waited(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let s = w.source(1);
    registers(w, fd, a.all(), 3);
    w.store(0, a.at(0), 9).is("asleep");
    w.load(1, a.at(0) + 8).is("asleep");
    w.read(fd, 64).is("64 bytes: A+0 flags 1; A+0 flags 0");
    w.copy(fd, a.span(0, 1), s.at(0), 2).is("0 done 4096").then(format!("t1 done {:#x}, fd0 1/1", word(0)));
    w.read(fd, 64).is("32 bytes: A+0 flags 3");
    w.writeprotect(fd, a.span(0, 1), 0).is("0").then("t0 done 0x0, fd0 0/0");
    w.load(1, a.at(0)).is("done 0x9");
}
