//! The last close, original protocol.
//!
//! Kernel counterpart: the release of the file behind a userfaultfd as of May 2015.

use super::adds;
use crate::place::Trial;
use crate::world::World;

// spec: o/release/order, o/release/before-lock, o/release/sleepers
pub(super) fn the_last_close_wakes_everybody_read_or_not(w: &mut World<'_>) {
    let fd = w.ready_original();
    let other = w.ready_original();
    let a = w.map(4);
    let b = w.map(1);
    adds(w, fd, a.span(0, 3));
    adds(w, fd, b.all());
    adds(w, other, a.span(3, 1));
    w.load(0, a.at(0)).is("asleep");
    w.store(1, a.at(1), 7).is("asleep");
    w.load(2, b.at(0)).is("asleep");
    w.load(3, a.at(3)).is("asleep");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
    w.close(fd).is("done").then("t0 done 0x0, t1 done 0x0, t2 done 0x0");
    w.load(0, a.at(2)).is("done 0x0");
    w.load(0, a.at(1)).is("done 0x7");
    adds(w, other, a.all()).then("");
    w.close(other).is("done").then("t3 done 0x0");
}

// spec: o/release/outlives, W29
pub(super) fn a_context_outlives_its_address_space_without_holding_it(w: &mut World<'_>) {
    w.try_out(Trial::MemoryBehindContext).is_but("all", "o/release/outlives", "nothing");
}
