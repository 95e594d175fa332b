//! The end of a context.
//!
//! Kernel counterpart: `close(2)`.

use super::registers;
use crate::world::World;

// spec: m/close/last, m/poison/clear
pub(super) fn the_last_close_makes_ordinary_memory_of_everything(w: &mut World<'_>) {
    let fd = w.ready(0x2000);
    let other = w.ready(0);
    let a = w.map(6);
    let b = w.map(2);
    w.populate(a.span(2, 1), 0x44);
    registers(w, fd, a.span(0, 5), 3);
    registers(w, fd, b.all(), 1);
    registers(w, other, a.span(5, 1), 1);
    w.writeprotect(fd, a.span(2, 2), 1).is("0");
    w.poison(fd, a.span(4, 1), 0).is("0 done 4096");
    w.load(0, a.at(0)).is("asleep");
    w.store(1, a.at(1), 6).is("asleep");
    w.store(2, a.at(2), 6).is("asleep");
    w.load(3, b.at(1)).is("asleep");
    w.load(4, a.at(5)).is("asleep");
    w.read(fd, 32);
    w.close(fd).is("done").then("t0 done 0x0, t1 done 0x0, t2 done 0x0, t3 done 0x0");
    w.see(a.all()).is("0x0, mixed, mixed, missing, poisoned, missing");
    w.load(0, a.at(4)).is("bus error A+4");
    w.store(0, a.at(3), 1).is("done 0x0");
    w.load(0, b.at(0)).is("done 0x0");
    w.close(other).is("done").then("t4 done 0x0");
    let again = w.ready(0);
    registers(w, again, a.all(), 1);
}

// spec(simulator,kernel): m/event/none
pub(super) fn changes_of_the_layout_say_nothing_and_take_effect(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    registers(w, fd, a.all(), 1);
    w.zeropage(fd, a.span(0, 2), 0).is("0 done 8192");
    w.discard(a.span(0, 1)).is("done").then("");
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.read(fd, 32).is("32 bytes: A+0 flags 0");
    w.unmap(a.span(3, 1)).is("done").then("");
    w.poll(fd).is("0x0");
    w.load(1, a.at(3)).is("segmentation fault A+3");
    w.zeropage(fd, a.span(2, 2), 0).is("ENOENT -ENOENT");
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
}
