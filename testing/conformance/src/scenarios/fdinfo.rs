//! fdinfo.
//!
//! Kernel counterpart: the `pending`, `total` and `API` lines.

use super::registers;
use crate::world::{NONBLOCK, World};

fn lines(pending: u32, total: u32, features: &str, ioctls: &str) -> String {
    format!("{:?}", format!("pending:\t{pending}\ntotal:\t{total}\nAPI:\taa:{features}:{ioctls}\n"))
}

const THEIRS: &str = "80000000000001ff";
const OURS: &str = "800000000000015f";

// spec: m/fdinfo
pub(super) fn the_lines_count_sleepers_and_show_what_is_on(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.fdinfo(fd).is_but(lines(0, 0, "0", THEIRS), "m/fdinfo", lines(0, 0, "0", OURS));
    w.api(fd, 0x2901).answers();
    w.fdinfo(fd).is_but(lines(0, 0, "80002901", THEIRS), "m/fdinfo", lines(0, 0, "80002901", OURS));
    let a = w.map(3);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.load(1, a.at(1)).is("asleep").then("fd0 2/2");
    w.fdinfo(fd).is_but(lines(2, 2, "80002901", THEIRS), "m/fdinfo", lines(2, 2, "80002901", OURS));
    w.read(fd, 32);
    w.fdinfo(fd).is_but(lines(1, 2, "80002901", THEIRS), "m/fdinfo", lines(1, 2, "80002901", OURS));
    w.zeropage(fd, a.span(0, 1), 0);
    w.fdinfo(fd).is_but(lines(1, 1, "80002901", THEIRS), "m/fdinfo", lines(1, 1, "80002901", OURS));
    w.wake(fd, a.all());
    w.fdinfo(fd).is_but(lines(1, 1, "80002901", THEIRS), "m/fdinfo", lines(1, 1, "80002901", OURS));
}
