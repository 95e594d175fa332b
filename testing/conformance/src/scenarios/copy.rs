//! COPY.
//!
//! Kernel counterpart: `UFFDIO_COPY`.

use super::registers;
use crate::world::{PAGE, World, word};

const SIZE: u64 = 0x7FFF_FFFF_F000;

// spec: m/fill/wake, m/fault/two
pub(super) fn a_copied_page_wakes_its_sleepers(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(2);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(1)).is("asleep").then("fd0 1/1");
    w.store(1, a.at(1) + 8, 7).is("asleep").then("fd0 2/2");
    w.load(2, a.at(2)).is("asleep").then("fd0 3/3");
    w.read(fd, 64).is("64 bytes: A+1 flags 0; A+1 flags 1").then("fd0 1/3");
    w.copy(fd, a.span(1, 1), s.at(1), 0)
        .is("0 done 4096")
        .then(format!("t0 done {:#x}, t1 done 0x0, fd0 1/1", word(1)));
}

// spec: m/copy/args
pub(super) fn modes_and_source_are_judged(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(2);
    registers(w, fd, a.all(), 3);
    for mode in [4, 5, 7, 1 << 63] {
        w.copy(fd, a.span(0, 1), s.at(0), mode).is("EINVAL untouched");
    }
    for (src, _why) in [
        (0_u64.wrapping_sub(PAGE / 2), "wraps"),
        (SIZE - PAGE + 1, "ends one byte above the address space"),
        (SIZE, "begins at its end"),
        (1 << 63, "in the kernel's half"),
    ] {
        w.copy(fd, a.span(0, 1), src, 0).is("EINVAL untouched");
    }
    w.copy(fd, a.span(0, 1), 0, 0).is("EFAULT -EFAULT");
    // The source need not be aligned.
    w.copy(fd, a.span(1, 1), s.at(0) + 8, 0).is("0 done 4096");
    w.load(0, a.at(1)).is(format!("done {:#x}", word(0)));
    w.load(0, a.at(2) - 8).is(format!("done {:#x}", word(1)));
    w.copy(fd, a.span(0, 1), s.at(0), 3).is("0 done 4096");
    w.see(a.all()).is("protected 0x11, mixed, missing, missing");
}

// spec: m/copy/order
pub(super) fn the_mapping_comes_before_the_mode(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(1);
    registers(w, fd, a.span(0, 2), 1);
    w.copy(fd, a.span(2, 1), s.at(0), 2).is("ENOENT -ENOENT");
    w.copy(fd, a.span(1, 2), 0, 2).is("ENOENT -ENOENT");
    w.copy(fd, a.span(0, 1), 0, 2).is("EINVAL -EINVAL");
    w.copy(fd, a.span(0, 1), s.at(0), 2).is("EINVAL -EINVAL");
    w.copy(fd, a.span(0, 1), 0, 0).is("EFAULT -EFAULT");
    w.see(a.all()).is("missing, missing, missing, missing");
}

// spec: m/copy/page-order
pub(super) fn an_unreadable_source_wins_over_a_page_that_is_there(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(4);
    let s = w.source(1);
    w.populate(a.span(0, 2), 0x17);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.span(1, 1), 1).is("0");
    w.poison(fd, a.span(2, 1), 0).is("0 done 4096");
    for page in 0..4 {
        w.copy(fd, a.span(page, 1), s.at(5), 0).is("EFAULT -EFAULT");
    }
    w.copy(fd, a.span(0, 1), s.at(0), 0).is("EEXIST -EEXIST");
    w.copy(fd, a.span(1, 1), s.at(0), 0).is("EEXIST -EEXIST");
    w.see(a.all()).is("0x17, protected 0x17, poisoned, missing");
}

// spec: m/copy/partial, m/fill/result
pub(super) fn a_copy_stops_at_a_page_that_is_there_and_where_its_source_ends(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(10);
    let s = w.source(4);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(1)).is("asleep");
    w.load(1, a.at(3)).is("asleep");
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
    w.copy(fd, a.span(0, 4), s.at(0), 0).is("EAGAIN done 8192").then(format!("t0 done {:#x}, fd0 1/1", word(1)));
    w.copy(fd, a.span(2, 2), s.at(2), 0).is("EEXIST -EEXIST").then("");
    w.copy(fd, a.span(4, 6), s.at(0), 0).is("EAGAIN done 16384");
    w.copy(fd, a.span(8, 2), s.at(4), 0).is("EFAULT -EFAULT");
    // An unaligned source ends within a page.
    w.copy(fd, a.span(8, 2), s.at(2) + 8, 0).is("EAGAIN done 4096");
    w.copy(fd, a.span(9, 1), s.at(3) + 8, 0).is("EFAULT -EFAULT");
    w.see(a.all()).is("0x11, 0x22, 0x0, missing, 0x11, 0x22, 0x33, 0x44, mixed, missing");
}

// spec: m/copy/marker
pub(super) fn a_copy_replaces_any_marker(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(4);
    let s = w.source(2);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.span(0, 2), 1).is("0");
    w.poison(fd, a.span(2, 2), 0).is("0 done 8192");
    w.see(a.all()).is("marked, marked, poisoned, poisoned");
    w.copy(fd, a.span(0, 1), s.at(0), 0).is("0 done 4096");
    w.copy(fd, a.span(1, 1), s.at(1), 2).is("0 done 4096");
    w.copy(fd, a.span(2, 1), s.at(0), 2).is("0 done 4096");
    w.copy(fd, a.span(3, 1), s.at(1), 0).is("0 done 4096");
    w.see(a.all()).is("0x11, protected 0x22, protected 0x11, 0x22");
    for page in 0..4 {
        w.copy(fd, a.span(page, 1), s.at(0), 0).is("EEXIST -EEXIST");
    }
}
