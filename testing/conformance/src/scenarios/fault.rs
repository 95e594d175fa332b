//! Faults: who is told what, and what happens to the access.
//!
//! Kernel counterpart: `handle_userfault`.

use super::registers;
use crate::place::Protection;
use crate::world::{World, word};

const SIGBUS: u64 = 0x80;
const THREAD_ID: u64 = 0x100;
const EXACT_ADDRESS: u64 = 0x800;
const WP_UNPOPULATED: u64 = 0x2000;

// spec: m/fault/missing, m/read/once
pub(super) fn a_missing_page_is_announced_with_the_kind_of_access(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(3);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.store(1, a.at(1) + 8, 7).is("asleep").then("fd0 2/2");
    w.add(2, a.at(2) + 16, 1).is("asleep").then("fd0 3/3");
    w.read(fd, 320).is("96 bytes: A+0 flags 0; A+1 flags 1; A+2 flags 1").then("fd0 0/3");
    w.read(fd, 32).is("EAGAIN");
    w.copy(fd, a.span(0, 3), s.at(0), 0).is("0 done 12288").then(format!(
        "t0 done {:#x}, t1 done 0x0, t2 done {:#x}, fd0 0/0",
        word(0),
        word(2)
    ));
    w.load(0, a.at(1) + 8).is("done 0x7");
    w.load(0, a.at(2) + 16).is(format!("done {:#x}", word(2) + 1));
    w.read(fd, 32).is("EAGAIN");
}

// spec: m/fault/wp
pub(super) fn a_write_to_a_protected_page_is_announced_with_flags_3(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(3);
    w.populate(a.all(), 0x21);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 2), 1).is("0");
    w.load(0, a.at(0)).is("done 0x2121212121212121");
    w.store(0, a.at(2), 1).is("done 0x0");
    w.store(0, a.at(0), 5).is("asleep").then("fd0 1/1");
    w.add(1, a.at(1), 1).is("asleep").then("fd0 2/2");
    w.load(2, a.at(0)).is("done 0x2121212121212121");
    w.read(fd, 64).is("64 bytes: A+0 flags 3; A+1 flags 3");
    w.writeprotect(fd, a.all(), 0).is("0").then("t0 done 0x0, t1 done 0x2121212121212121, fd0 0/0");
}

// spec: m/fault/wp, m/writeprotect/anon
pub(super) fn a_write_to_a_marker_is_announced_where_no_missing_fault_comes_first(w: &mut World<'_>) {
    let fd = w.ready(WP_UNPOPULATED);
    let a = w.map(3);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.span(0, 2), 1).is("0");
    w.see(a.all()).is("marked, marked, missing");
    w.store(0, a.at(0), 5).is("asleep").then("fd0 1/1");
    w.load(1, a.at(1)).is("done 0x0");
    // The marker has become a protected page of zeros before the write is stopped by it.
    w.see(a.all()).is("protected 0x0, protected 0x0, missing");
    w.store(1, a.at(1), 6).is("asleep").then("fd0 2/2");
    w.store(2, a.at(2), 7).is("done 0x0");
    w.read(fd, 64).is("64 bytes: A+0 flags 3; A+1 flags 3");
    w.writeprotect(fd, a.all(), 0).is("0").then("t0 done 0x0, t1 done 0x0, fd0 0/0");
    w.see(a.all()).is("mixed, mixed, mixed");
}

// spec: m/fault/missing-before-wp
pub(super) fn a_missing_page_with_a_marker_is_missing_first(w: &mut World<'_>) {
    let fd = w.ready(WP_UNPOPULATED);
    let a = w.map(3);
    let s = w.source(1);
    registers(w, fd, a.all(), 3);
    w.writeprotect(fd, a.all(), 1).is("0");
    w.store(0, a.at(0), 5).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.read(fd, 64).is("64 bytes: A+0 flags 1; A+1 flags 0");
    w.copy(fd, a.span(0, 1), s.at(0), 2).is("0 done 4096").then("fd0 1/2");
    w.read(fd, 64).is("32 bytes: A+0 flags 3");
    w.copy(fd, a.span(1, 1), s.at(0), 0).is("0 done 4096").then(format!("t1 done {:#x}, fd0 0/1", word(0)));
    w.see(a.all()).is("protected 0x11, 0x11, marked");
}

// spec(simulator,kernel): m/fault/protection-first, m/writeprotect/readonly
pub(super) fn what_the_mapping_forbids_is_not_announced(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    w.populate(a.span(2, 2), 0x31);
    registers(w, fd, a.all(), 3);
    w.protect(a.span(0, 1), Protection::Read);
    w.protect(a.span(1, 1), Protection::None);
    w.protect(a.span(2, 2), Protection::Read);
    w.store(0, a.at(0), 1).is("segmentation fault A+0");
    w.load(0, a.at(1)).is("segmentation fault A+1");
    w.writeprotect(fd, a.span(2, 1), 1).is("0");
    w.store(0, a.at(2), 1).is("segmentation fault A+2");
    w.store(0, a.at(3), 1).is("segmentation fault A+3");
    w.load(0, a.at(2)).is("done 0x3131313131313131");
    w.read(fd, 32).is("EAGAIN");
    w.load(0, a.at(0)).is("asleep");
}

// spec: m/fault/protection-first, m/event/none
pub(super) fn what_is_unmapped_is_not_announced(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.zeropage(fd, a.span(0, 1), 0).is("0 done 4096");
    w.unmap(a.all()).then("");
    w.load(0, a.at(1)).is("segmentation fault A+1").then("");
    w.store(0, a.at(0) + 16, 1).is("segmentation fault A+0:0x10").then("");
    w.zeropage(fd, a.span(1, 1), 0).is("ENOENT -ENOENT");
    w.poll(fd).is("0x0");
}

// spec(simulator,kernel): m/fault/protection-first
pub(super) fn an_unmapped_address_is_not_announced(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(2)).is("segmentation fault A+2").then("");
    w.store(0, a.at(2) + 16, 1).is("segmentation fault A+2:0x10").then("");
    w.zeropage(fd, a.span(1, 1), 0);
    w.load(0, a.at(2) - 4).is("segmentation fault A+2").then("");
}

// spec: m/fault/address
pub(super) fn the_address_is_rounded_down_unless_asked_for(w: &mut World<'_>) {
    for (features, first, second) in [(0, "A+0", "A+1"), (EXACT_ADDRESS, "A+0:0x123", "A+1:0xff0")] {
        let fd = w.ready(features);
        let a = w.map(2);
        registers(w, fd, a.all(), 1);
        let letter = |name: &str| name.replace('A', if features == 0 { "A" } else { "B" });
        w.load(0, a.at(0) + 0x123).is("asleep");
        w.store(1, a.at(1) + 0xff0, 1).is("asleep");
        w.read(fd, 64).is(format!("64 bytes: {} flags 0; {} flags 1", letter(first), letter(second)));
        w.zeropage(fd, a.all(), 0).is("0 done 8192");
    }
}

// spec: m/fault/address
pub(super) fn an_access_across_a_border_reports_each_page_in_turn(w: &mut World<'_>) {
    let fd = w.ready(EXACT_ADDRESS);
    let a = w.map(4);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(1) - 3).is("asleep");
    w.read(fd, 64).is("32 bytes: A+0:0xffd flags 0");
    w.zeropage(fd, a.span(0, 1), 0).is("0 done 4096").then("fd0 1/1");
    w.read(fd, 64).is("32 bytes: A+1 flags 0");
    w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096").then("t0 done 0x0, fd0 0/0");
}

// spec: m/fault/thread-id
pub(super) fn the_thread_is_named_if_asked_for(w: &mut World<'_>) {
    let fd = w.ready(THREAD_ID);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.load(1, a.at(0)).is("asleep");
    w.load(0, a.at(1)).is("asleep");
    w.read(fd, 64).is("64 bytes: A+0 flags 0 by t1; A+1 flags 0 by t0");
}

// spec: m/fault/two, W10
pub(super) fn every_thread_sends_its_own_message(w: &mut World<'_>) {
    let fd = w.ready(THREAD_ID);
    let a = w.map(1);
    registers(w, fd, a.all(), 1);
    for thread in 0..3 {
        w.load(thread, a.at(0)).is("asleep");
    }
    w.read(fd, 64).is("64 bytes: A+0 flags 0 by t0; A+0 flags 0 by t1").then("fd0 1/3");
    w.zeropage(fd, a.all(), 0).is("0 done 4096").then("t0 done 0x0, t1 done 0x0, t2 done 0x0, fd0 0/0");
    w.read(fd, 32).is("EAGAIN");
}

// spec: m/fault/signal, W13
pub(super) fn a_handled_signal_repeats_the_fault(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    // Unread: the first message is withdrawn.
    w.signal(0).then("");
    w.read(fd, 64).is("32 bytes: A+0 flags 0").then("fd0 0/1");
    // Read: there is a new one.
    w.signal(0).then("fd0 1/1");
    w.load(1, a.at(1)).is("asleep");
    w.signal(0).then("");
    w.read(fd, 64).is("64 bytes: A+1 flags 0; A+0 flags 0").then("fd0 0/2");
    w.zeropage(fd, a.all(), 0).is("0 done 8192").then("t0 done 0x0, t1 done 0x0, fd0 0/0");
}

// spec: m/fault/sigbus
pub(super) fn with_the_feature_a_fault_is_a_bus_error(w: &mut World<'_>) {
    let fd = w.ready(SIGBUS | WP_UNPOPULATED);
    let a = w.map(4);
    let s = w.source(1);
    registers(w, fd, a.all(), 3);
    w.load(0, a.at(0) + 0x21).is("bus error A+0:0x21").then("");
    w.store(0, a.at(1) + 0x42, 1).is("bus error A+1:0x42").then("");
    w.poll(fd).is("0x0");
    w.copy(fd, a.span(0, 1), s.at(0), 2).is("0 done 4096");
    w.load(0, a.at(0)).is(format!("done {:#x}", word(0)));
    w.store(0, a.at(0) + 8, 1).is("bus error A+0:0x8").then("");
    w.writeprotect(fd, a.all(), 0).is("0");
    w.store(0, a.at(0) + 8, 1).is("done 0x0");
    w.zeropage(fd, a.span(1, 1), 0).is("0 done 4096");
    w.load(0, a.at(2) - 4).is("bus error A+2");
    w.read(fd, 32).is("EAGAIN");
}

// spec: m/fault/sigbus
pub(super) fn with_the_feature_a_write_to_a_marker_is_a_bus_error(w: &mut World<'_>) {
    let fd = w.ready(SIGBUS | WP_UNPOPULATED);
    let a = w.map(2);
    registers(w, fd, a.all(), 2);
    w.writeprotect(fd, a.all(), 1).is("0");
    w.store(0, a.at(0) + 8, 1).is("bus error A+0:0x8");
    w.load(0, a.at(0)).is("done 0x0");
    w.store(0, a.at(0) + 8, 1).is("bus error A+0:0x8");
}

// spec: m/fault/recheck, W3
pub(super) fn a_page_that_came_meanwhile_is_not_reported(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(1);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep");
    w.zeropage(fd, a.all(), 1).is("0 done 4096").then("");
    w.load(1, a.at(0)).is("done 0x0").then("");
    w.store(1, a.at(0), 3).is("done 0x0").then("");
    // A signal makes the sleeper look again, and the page is there.
    w.signal(0).then("t0 done 0x3, fd0 0/0");
}

// spec: m/fault/write-zeropage, m/zeropage/kind
pub(super) fn zeros_are_enough_for_a_write(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    registers(w, fd, a.all(), 1);
    w.store(0, a.at(0), 7).is("asleep");
    w.read(fd, 32).is("32 bytes: A+0 flags 1");
    w.zeropage(fd, a.span(0, 1), 0).is("0 done 4096").then("t0 done 0x0, fd0 0/0");
    w.load(0, a.at(0)).is("done 0x7");
    w.load(0, a.at(0) + 8).is("done 0x0");
    w.read(fd, 32).is("EAGAIN");
}

// spec(simulator,kernel): m/fault/no-wait
pub(super) fn who_cannot_wait_is_refused_and_nobody_is_told(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(3);
    registers(w, fd, a.all(), 3);
    w.peek(a.at(0)).is("EIO").then("");
    w.zeropage(fd, a.span(0, 1), 0).is("0 done 4096");
    w.peek(a.at(0)).is("0x0");
    w.poison(fd, a.span(1, 1), 0);
    w.peek(a.at(1)).is("EIO").then("");
    w.read(fd, 32).is("EAGAIN");
}
