//! Faults, original protocol.
//!
//! Kernel counterpart: `handle_userfault` as of May 2015.

use super::adds;
use crate::place::Trial;
use crate::world::World;

// spec: o/fault/sleep, o/fault/encode, o/fault/enqueue
pub(super) fn a_fault_is_announced_as_its_page_and_the_kind_of_access(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    adds(w, fd, a.all());
    w.poll(fd).is("0x0");
    w.load(0, a.at(0) + 0x123).is("asleep").then("fd0 1/1");
    w.poll(fd).is("0x1");
    w.store(1, a.at(1) + 0xff8, 1).is("asleep").then("fd0 2/2");
    w.add(2, a.at(2) + 8, 1).is("asleep").then("fd0 3/3");
    w.read(fd, 64).is("24 bytes: A+0 low 0x0; A+1 low 0x1; A+2 low 0x1").then("fd0 0/3");
}

// spec: o/fault/reference, o/fault/what
pub(super) fn a_fault_is_known_at_once(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    // Looked up and queued in one step: nothing can come in between, and nothing does.
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
}

// spec: o/fault/released, o/release/sigbus-window, W31
pub(super) fn closing_never_raises_a_bus_error(w: &mut World<'_>) {
    w.try_out(Trial::FaultWhileClosing).is_but("a bus error", "o/fault/released", "no bus error");
    w.try_out(Trial::FaultWhileClosing).is_but("a bus error", "o/release/sigbus-window", "no bus error");
}

// spec: o/fault/no-merging, W10
pub(super) fn each_thread_gets_its_own_word(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    for thread in 0..4 {
        w.load(thread, a.at(0)).is("asleep");
    }
    w.read(fd, 64).is("32 bytes: A+0 low 0x0; A+0 low 0x0; A+0 low 0x0; A+0 low 0x0").then("fd0 0/4");
    w.install(a.all(), 0x42).then("");
    w.wake(fd, a.all()).then(
        "t0 done 0x4242424242424242, t1 done 0x4242424242424242, t2 done 0x4242424242424242, \
         t3 done 0x4242424242424242, fd0 0/0",
    );
}

// spec: o/fault/signal, o/fault/leave, o/fault/loop, o/fault/unread-wakeup, o/poll/promise, W13
pub(super) fn an_interrupted_sleeper_leaves_no_trace_and_faults_again(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.load(1, a.at(1)).is("asleep").then("fd0 2/2");
    w.signal(0).then("");
    // The one that was interrupted is the youngest now.
    w.read(fd, 64).is_but(
        "16 bytes: A+0 low 0x0; A+1 low 0x0",
        "o/fault/signal",
        "16 bytes: A+1 low 0x0; A+0 low 0x0",
    );
    w.signal(0).then_but("", "o/fault/leave", "fd0 1/2");
    w.read(fd, 64).is_but("EAGAIN", "o/fault/loop", "8 bytes: A+0 low 0x0");
    w.install(a.all(), 0x42);
    w.wake(fd, a.all()).then("t0 done 0x4242424242424242, t1 done 0x4242424242424242, fd0 0/0");
}

// spec: o/fault/no-recheck, W3
pub(super) fn a_page_that_came_meanwhile_means_retry(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.install(a.all(), 0x42).then("");
    // Looking again, it finds the page instead of waiting for a word to be read.
    w.signal(0).then_but("", "o/fault/no-recheck", "t0 done 0x4242424242424242, fd0 0/0");
    w.wake(fd, a.all()).is("0");
}

// spec: o/fault/retry-means-retry, o/wake/no-fill, W6
pub(super) fn a_thread_woken_ten_times_without_a_page_sleeps_ten_times(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    for _ in 0..10 {
        w.read(fd, 8).is("8 bytes: A+0 low 0x0").then("fd0 0/1");
        w.wake(fd, a.all()).is("0").then_but("t0 bus error A+0, fd0 0/0", "o/fault/retry-means-retry", "fd0 1/1");
    }
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
    w.install(a.all(), 0x42);
    w.wake(fd, a.all()).then("t0 done 0x4242424242424242, fd0 0/0");
}

// spec: o/fault/read-does-not-wake, W5
pub(super) fn a_read_sleeper_sleeps_on(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0").then("fd0 0/1");
    w.load(1, a.at(1)).is("asleep").then("fd0 1/2");
    w.wake(fd, a.span(1, 1)).is("0").then("");
    // A wake-up that is not a WAKE in range: the thread does not leave as woken, it faults anew.
    w.signal(0).then_but("t0 bus error A+0, fd0 1/1", "o/fault/read-does-not-wake", "fd0 2/2");
}

// spec: o/fault/wake-before-sleep, o/wake/guarantee, o/wake/once, o/wake/result
pub(super) fn a_wake_after_the_read_ends_the_sleep(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    for _ in 0..20 {
        w.load(0, a.at(0)).is("asleep");
        w.read(fd, 8).is("8 bytes: A+0 low 0x0");
        w.install(a.all(), 0x42);
        w.wake(fd, a.all()).is("0").then("t0 done 0x4242424242424242, fd0 0/0");
        w.wake(fd, a.all()).is("0").then("");
        w.discard(a.all());
    }
}

// spec: o/fault/notify-each
pub(super) fn each_fault_is_notified(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(3);
    adds(w, fd, a.all());
    for (thread, page) in [(0, 0), (1, 1), (2, 2)] {
        w.load(thread, a.at(page)).is("asleep");
        w.poll(fd).is("0x1");
    }
    w.read(fd, 16);
    w.poll(fd).is("0x1");
    w.read(fd, 16);
    w.poll(fd).is("0x0");
}
