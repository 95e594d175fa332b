//! WAKE.
//!
//! Kernel counterpart: `UFFDIO_WAKE`.

use super::registers;
use crate::place::At;
use crate::world::{PAGE, Span, World};

// spec: m/wake/order, W27
pub(super) fn nothing_but_the_range_is_checked(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    w.at(At::Nowhere).wake(fd, Span { start: 1, len: 0 }).is("EFAULT");
    w.wake(fd, Span { start: a.at(0), len: 0 }).is("EINVAL");
    w.wake(fd, a.all()).is("0");
    w.wake(fd, a.span(10, 10)).is("0");
    w.wake(fd, Span { start: 0, len: 1 << 40 }).is("0");
    registers(w, fd, a.all(), 1);
    w.wake(fd, a.all()).is("0");
    w.unmap(a.all());
    w.wake(fd, a.all()).is("0");
}

// spec: m/wake/range, m/fault/retry
pub(super) fn exactly_the_sleepers_inside_the_range_go_on(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.span(0, 4), 1);
    registers(w, other, a.span(4, 2), 1);
    for (thread, page) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    w.read(fd, 128);
    w.read(other, 32);
    // Nothing was filled: each that wakes says so once more.
    w.wake(fd, a.span(1, 2)).is("0").then("fd0 2/4");
    w.read_sorted(fd).is("32 bytes: A+1 flags 0; 32 bytes: A+2 flags 0");
    w.wake(fd, a.span(4, 2)).is("0").then("");
    w.wake(other, a.span(0, 4)).is("0").then("");
    w.wake(other, a.span(4, 1)).is("0").then("fd1 1/1");
    w.wake(fd, Span { start: a.at(0) - PAGE, len: PAGE }).is("0").then("");
    w.wake(fd, Span { start: a.at(0) - PAGE, len: 2 * PAGE }).is("0").then("fd0 1/4");
}

// spec: m/wake/unread, m/wake/range, m/poll/nonblocking, W2
pub(super) fn unread_messages_of_the_woken_vanish(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(3);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.load(1, a.at(1)).is("asleep").then("fd0 2/2");
    w.load(2, a.at(0)).is("asleep").then("fd0 3/3");
    w.read(fd, 32).is("32 bytes: A+0 flags 0").then("fd0 2/3");
    w.zeropage(fd, a.span(0, 1), 1).is("0 done 4096").then("");
    w.wake(fd, a.span(0, 1)).is("0").then("t0 done 0x0, t2 done 0x0, fd0 1/1");
    w.wake(fd, a.span(1, 1)).is("0").then("");
    w.read(fd, 128).is("32 bytes: A+1 flags 0");
    w.read(fd, 32).is("EAGAIN");
}

// spec: m/fault/retry, W6
pub(super) fn a_thread_woken_ten_times_without_a_page_sleeps_ten_times(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(1);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    for _ in 0..10 {
        w.read(fd, 32).is("32 bytes: A+0 flags 0").then("fd0 0/1");
        w.wake(fd, a.all()).is("0").then("fd0 1/1");
    }
    w.zeropage(fd, a.all(), 0).is("0 done 4096").then("t0 done 0x0, fd0 0/0");
}
