//! read, original protocol.
//!
//! Kernel counterpart: `read(2)` on a userfaultfd as of May 2015.

use super::adds;
use crate::place::At;
use crate::world::{NONBLOCK, World};

// spec: o/read/state, o/read/count
pub(super) fn the_state_comes_before_the_count(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    for count in [0, 7, 8, 64] {
        w.read(fd, count).is("EINVAL");
    }
    w.api(fd, 0);
    for count in [0, 1, 7] {
        w.read(fd, count).is("EINVAL");
    }
    w.read(fd, 8).is("EAGAIN");
}

// spec: o/read/count, o/read/loop, o/read/result, o/read/fifo, o/read/take
pub(super) fn as_many_words_as_fit_are_read_oldest_first(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(5);
    adds(w, fd, a.all());
    for (thread, page) in [(0, 3), (1, 0), (2, 4), (3, 1), (4, 2)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    w.read(fd, 7).is("EINVAL").then("");
    w.read(fd, 15).is("8 bytes: A+3 low 0x0").then("fd0 4/5");
    w.read(fd, 23).is("16 bytes: A+0 low 0x0; A+4 low 0x0").then("fd0 2/5");
    w.read(fd, 800).is("16 bytes: A+1 low 0x0; A+2 low 0x0").then("fd0 0/5");
    w.read(fd, 8).is("EAGAIN");
}

// spec: o/read/order, o/read/nonblock, o/read/no-lost-notification, o/poll/no-lost-notification
pub(super) fn a_blocking_read_sleeps_until_there_is_a_word(w: &mut World<'_>) {
    let fd = w.open(0);
    w.api(fd, 0);
    let a = w.map(3);
    adds(w, fd, a.all());
    w.read_by(3, fd, 64).is("reading");
    w.load(0, a.at(0)).is("asleep").then("t3 8 bytes: A+0 low 0x0, fd0 0/1");
    w.load(1, a.at(1)).is("asleep").then("fd0 1/2");
    // A word that is there is read, and then nobody blocks.
    w.read_by(3, fd, 64).is("8 bytes: A+1 low 0x0").then("fd0 0/2");
    w.read_by(3, fd, 64).is("reading");
    w.signal(3).then("t3 EINTR");
    w.set_nonblocking(fd, true);
    w.read_by(3, fd, 64).is("EAGAIN");
}

// spec: o/read/sleep, W9
pub(super) fn one_reader_is_woken_per_word(w: &mut World<'_>) {
    let fd = w.open(0);
    w.api(fd, 0);
    let a = w.map(2);
    adds(w, fd, a.all());
    w.read_by(2, fd, 64).is("reading");
    w.load(0, a.at(0)).is("asleep").then("t2 8 bytes: A+0 low 0x0, fd0 0/1");
    w.read_by(2, fd, 64).is("reading");
    w.load(1, a.at(1)).is("asleep").then("t2 8 bytes: A+1 low 0x0, fd0 0/2");
}

// spec: o/read/copy-fault, W14
pub(super) fn a_word_that_could_not_be_delivered_is_delivered_first_next_time(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(5);
    adds(w, fd, a.all());
    for (thread, page) in [(0, 2), (1, 0), (2, 3), (3, 1)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    let lost = "o/read/copy-fault";
    w.at(At::Nowhere).read(fd, 8).is("EFAULT").then_but("fd0 3/4", lost, "");
    w.at(At::ReadOnly).read(fd, 64).is("EFAULT").then_but("fd0 2/4", lost, "");
    w.at(At::Cut(20)).read(fd, 64).is("16 bytes: A+2 low 0x0; A+0 low 0x0").then("fd0 2/4");
    w.load(4, a.at(4)).is("asleep");
    w.read(fd, 64).is("24 bytes: A+3 low 0x0; A+1 low 0x0; A+4 low 0x0");
}

// spec: o/read/late-word
pub(super) fn a_word_may_name_a_fault_that_is_over(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
    w.install(a.span(0, 1), 0x42);
    w.wake(fd, a.span(0, 1)).then("t0 done 0x4242424242424242, fd0 0/0");
    // The reader comes to it only now.
    w.wake(fd, a.span(0, 1)).is("0").then("");
}
