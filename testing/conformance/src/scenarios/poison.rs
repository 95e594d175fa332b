//! POISON.
//!
//! Kernel counterpart: `UFFDIO_POISON`.

use super::registers;
use crate::world::{World, word};

// spec: m/poison/errors
pub(super) fn only_a_missing_page_can_be_poisoned(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(5);
    w.populate(a.span(0, 1), 0x66);
    registers(w, fd, a.all(), 3);
    for mode in [2, 3, 1 << 63] {
        w.poison(fd, a.all(), mode).is("EINVAL untouched");
    }
    w.writeprotect(fd, a.span(1, 1), 1).is("0");
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
    w.poison(fd, a.span(3, 1), 1).is("0 done 4096");
    for page in 0..4 {
        w.poison(fd, a.span(page, 1), 0).is("EEXIST -EEXIST");
    }
    w.poison(fd, a.span(3, 2), 0).is("EEXIST -EEXIST");
    w.poison(fd, a.span(4, 1), 0).is("0 done 4096");
    w.see(a.all()).is("0x66, marked, 0x0, poisoned, poisoned");
    w.poison(fd, a.span(7, 1), 0).is("ENOENT -ENOENT");
}

// spec: m/poison/access
pub(super) fn any_access_to_poison_is_a_bus_error(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.poison(fd, a.span(0, 1), 0).is("0 done 4096");
    w.load(0, a.at(0)).is("bus error A+0").then("");
    w.load(0, a.at(0) + 0x123).is("bus error A+0:0x123").then("");
    w.store(0, a.at(0) + 0xff8, 1).is("bus error A+0:0xff8").then("");
    w.add(0, a.at(0) + 8, 1).is("bus error A+0:0x8").then("");
    w.read(fd, 32).is("EAGAIN");
}

// spec: m/poison/clear
pub(super) fn poison_goes_by_discarding_or_by_copying_over(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(1);
    registers(w, fd, a.all(), 1);
    w.poison(fd, a.all(), 0).is("0 done 16384");
    w.discard(a.span(0, 1));
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.copy(fd, a.span(1, 1), s.at(0), 0).is("0 done 4096");
    w.load(1, a.at(1)).is(format!("done {:#x}", word(0)));
    w.unregister(fd, a.span(2, 1)).is("0");
    w.load(1, a.at(2)).is("bus error A+2");
    w.discard(a.span(2, 1));
    w.load(1, a.at(2)).is("done 0x0");
    w.close(fd).is("done").then("t0 done 0x0");
    w.load(1, a.at(3)).is("bus error A+3");
    w.discard(a.span(3, 1));
    w.load(1, a.at(3)).is("done 0x0");
}

// spec: m/poison/clear, m/unregister/wp
pub(super) fn poison_that_outlived_its_registration_goes_by_discarding(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.all(), 3);
    w.poison(other, a.span(1, 1), 0).is("0 done 4096");
    w.poison(fd, a.span(4, 1), 0).is("0 done 4096");
    w.unregister(fd, a.span(1, 1)).is("0");
    w.discard(a.span(1, 3));
    w.load(0, a.at(1)).is("done 0x0");
    w.unregister(fd, a.span(3, 3)).is("0");
    w.discard(a.span(4, 1));
    w.store(0, a.at(4), 1).is("done 0x0");
}

// spec: m/poison/clear, m/unregister/wp
pub(super) fn poison_among_scattered_pages_goes_by_discarding(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(9);
    registers(w, fd, a.all(), 1);
    w.poison(fd, a.span(1, 1), 0).is("0 done 4096");
    for page in [7, 5, 3] {
        w.zeropage(fd, a.span(page, 1), 0).is("0 done 4096");
    }
    w.unregister(fd, a.span(1, 1)).is("0");
    w.load(0, a.at(1)).is("bus error A+1");
    w.discard(a.span(1, 3));
    w.load(0, a.at(1)).is("done 0x0");
}

// spec(simulator,kernel): m/poison/clear
pub(super) fn poison_moves_with_its_mapping(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let b = w.map(2);
    registers(w, fd, a.all(), 1);
    w.poison(fd, a.span(0, 1), 0).is("0 done 4096");
    w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096");
    w.remap(a.all(), b.at(0));
    w.load(0, b.at(0)).is("bus error B+0");
    w.load(0, b.at(1)).is("done 0x0");
    w.load(0, a.at(0)).is("segmentation fault A+0");
}

// spec: m/poison/sleeper
pub(super) fn a_woken_sleeper_of_a_poisoned_page_gets_the_bus_error(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0) + 16).is("asleep");
    w.store(1, a.at(0) + 32, 1).is("asleep");
    w.load(2, a.at(1) + 8).is("asleep");
    w.read(fd, 32);
    w.poison(fd, a.span(0, 1), 0).is("0 done 4096").then("t0 bus error A+0:0x10, t1 bus error A+0:0x20, fd0 1/1");
    w.poison(fd, a.span(1, 1), 1).is("0 done 4096").then("");
    w.wake(fd, a.span(1, 1)).is("0").then("t2 bus error A+1:0x8, fd0 0/0");
}
