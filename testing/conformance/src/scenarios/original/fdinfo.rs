//! fdinfo, original protocol.
//!
//! Kernel counterpart: the `pending`, `total` and `API` lines as of May 2015.

use super::adds;
use crate::world::{NONBLOCK, World};

// spec: o/fdinfo/format, o/fdinfo/values
pub(super) fn three_lines_count_the_queue_and_name_the_protocol(w: &mut World<'_>) {
    let last = if w.has_fills() { "1f" } else { "7" };
    let lines = |pending: u32, total: u32| {
        let text = format!("pending:\t{pending}\ntotal:\t{total}\nAPI:\taa:1:{:0>16}\n", format!("8{last:0>15}"));
        format!("{text:?}")
    };
    let fd = w.open(NONBLOCK);
    w.fdinfo(fd).is(lines(0, 0));
    w.api(fd, 0);
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.fdinfo(fd).is(lines(2, 2));
    w.read(fd, 8);
    w.fdinfo(fd).is(lines(1, 2));
    w.install(a.all(), 1);
    w.wake(fd, a.all());
    w.fdinfo(fd).is(lines(1, 1));
}
