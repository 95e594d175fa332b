//! poll, original protocol.
//!
//! Kernel counterpart: `poll(2)` on a userfaultfd as of May 2015.

use super::adds;
use crate::world::{NONBLOCK, World};

// spec: o/poll/wait-api, o/poll/running, o/poll/blocking, W17
pub(super) fn a_descriptor_is_readable_while_a_word_waits_blocking_or_not(w: &mut World<'_>) {
    for flags in [NONBLOCK, 0] {
        let fd = w.open(flags);
        let a = w.map(1);
        w.poll(fd).is("0x8");
        w.api(fd, 0);
        w.poll(fd).is("0x0");
        adds(w, fd, a.all());
        w.load(0, a.at(0)).is("asleep");
        w.poll(fd).is("0x1");
        w.read(fd, 8);
        w.poll(fd).is("0x0");
        w.shut_down(fd);
        w.poll(fd).is_but("0x0", "o/poll/running", "0x10");
        w.install(a.all(), 1);
        w.wake(fd, a.all()).is("0");
    }
}

// spec: o/poll/promise, o/wake/unread
pub(super) fn a_wake_does_not_take_an_unread_word_back(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.poll(fd).is("0x1");
    w.wake(fd, a.all()).is("0").then("");
    w.poll(fd).is("0x1");
    w.signal(0).then("");
    w.poll(fd).is("0x1");
    w.unregister(fd, a.all()).is("0");
    w.poll(fd).is_but("0x1", "o/poll/promise", "0x0");
}
