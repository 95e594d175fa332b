//! WAKE, original protocol.
//!
//! Kernel counterpart: `UFFDIO_WAKE` as of May 2015.

use super::adds;
use crate::world::{NONBLOCK, PAGE, Span, World};

// spec: o/wake/no-preconditions, o/wake/result, W27
pub(super) fn neither_handshake_nor_registration_nor_mapping_is_needed(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    let a = w.map(2);
    w.wake(fd, a.all()).is("0");
    w.wake(fd, a.span(10, 3)).is("0");
    w.wake(fd, Span { start: 0x1_0000, len: 1 << 40 }).is("0");
    w.api(fd, 0);
    w.wake(fd, a.all()).is("0");
}

// spec: o/wake/select, o/wake/unread, o/wake/shortcut, W2
pub(super) fn one_wake_releases_those_that_were_read_and_no_others(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(4);
    adds(w, fd, a.all());
    w.load(0, a.at(1)).is("asleep");
    w.store(1, a.at(2) + 8, 5).is("asleep");
    w.load(2, a.at(3)).is("asleep");
    w.load(3, a.at(1)).is("asleep");
    w.read(fd, 24).is("24 bytes: A+1 low 0x0; A+2 low 0x1; A+3 low 0x0").then("fd0 1/4");
    w.install(a.all(), 0x42);
    w.wake(fd, a.span(0, 1)).is("0").then("");
    w.wake(fd, a.span(1, 2)).is("0").then("t0 done 0x4242424242424242, t1 done 0x0, fd0 1/2");
    // The second sleeper of the page is unread: it needs a read and another wake.
    w.wake(fd, a.span(1, 1)).is("0").then("");
    w.read(fd, 8).is("8 bytes: A+1 low 0x0").then("fd0 0/2");
    w.wake(fd, a.span(1, 1)).is("0").then("t3 done 0x4242424242424242, fd0 0/1");
    w.wake(fd, Span { start: a.at(3), len: PAGE }).is("0").then("t2 done 0x4242424242424242, fd0 0/0");
}

// spec: o/wake/shortcut, W1
pub(super) fn a_wake_right_after_the_fault_was_read_is_never_lost(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.read(fd, 8);
    w.install(a.all(), 0x42);
    // Without the lock the queue might have looked empty, and the sleeper would sleep on.
    w.wake(fd, a.all()).is("0").then_but("", "o/wake/shortcut", "t0 done 0x4242424242424242, fd0 0/0");
}

// spec: o/wake/all-and-order, W11
pub(super) fn sleepers_are_woken_oldest_first(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    adds(w, fd, a.all());
    for (thread, page) in [(0, 2), (1, 0), (2, 1)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    w.read(fd, 24);
    // Nothing is there: each faults again, in the order in which they were woken, if one after the other.
    w.wake(fd, a.span(2, 1)).then("fd0 1/3");
    w.wake(fd, a.span(0, 1)).then("fd0 2/3");
    w.wake(fd, a.span(1, 1)).then("fd0 3/3");
    w.read(fd, 24).is("24 bytes: A+2 low 0x0; A+0 low 0x0; A+1 low 0x0");
}
