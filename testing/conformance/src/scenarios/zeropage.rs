//! ZEROPAGE.
//!
//! Kernel counterpart: `UFFDIO_ZEROPAGE`.

use super::registers;
use crate::world::World;

// spec: m/zeropage/args
pub(super) fn only_dontwake_is_a_mode(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 3);
    for mode in [2, 3, 4, 1 << 63] {
        w.zeropage(fd, a.all(), mode).is("EINVAL untouched");
    }
    w.zeropage(fd, a.all(), 1).is("0 done 8192");
}

// spec: m/zeropage/errors
pub(super) fn neither_a_page_nor_a_marker_is_replaced(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let a = w.map(5);
    w.populate(a.span(0, 1), 0x66);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.span(0, 2), 1).is("0");
    w.poison(fd, a.span(2, 1), 0).is("0 done 4096");
    w.zeropage(fd, a.span(3, 1), 0).is("0 done 4096");
    for page in 0..4 {
        w.zeropage(fd, a.span(page, 1), 0).is("EEXIST -EEXIST");
    }
    w.zeropage(fd, a.span(4, 1), 0).is("0 done 4096");
    w.see(a.all()).is("protected 0x66, marked, poisoned, 0x0, 0x0");
    w.zeropage(fd, a.span(7, 1), 0).is("ENOENT -ENOENT");
}

// spec: m/zeropage/kind
pub(super) fn a_zero_page_is_a_page(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let s = w.source(1);
    registers(w, fd, a.all(), 3);
    w.zeropage(fd, a.all(), 0).is("0 done 8192");
    w.copy(fd, a.span(0, 1), s.at(0), 0).is("EEXIST -EEXIST");
    w.store(0, a.at(0), 4).is("done 0x0").then("");
    w.writeprotect(fd, a.span(1, 1), 1).is("0");
    w.see(a.all()).is("mixed, protected 0x0");
    w.store(0, a.at(1), 4).is("asleep");
    w.writeprotect(fd, a.span(1, 1), 0).is("0").then("t0 done 0x0, fd0 0/0");
}
