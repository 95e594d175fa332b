//! What all fills have in common.
//!
//! Kernel counterpart: `UFFDIO_COPY`, `ZEROPAGE`, `POISON`.

use super::registers;
use crate::place::{At, Use};
use crate::world::{Span, World, word};

// spec: m/fill/order
pub(super) fn arguments_are_judged_before_anything_else(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let s = w.source(2);
    let unregistered = a.all();
    let empty = Span { start: a.at(0), len: 0 };
    w.at(At::Nowhere).copy(fd, empty, s.at(0), 4).is("EFAULT untouched");
    for span in [unregistered, empty] {
        w.copy(fd, span, s.at(0), 4).is("EINVAL untouched");
        w.zeropage(fd, span, 2).is("EINVAL untouched");
        w.poison(fd, span, 2).is("EINVAL untouched");
    }
    w.copy(fd, unregistered, s.at(0), 0).is("ENOENT -ENOENT");
    w.zeropage(fd, unregistered, 0).is("ENOENT -ENOENT");
    w.poison(fd, unregistered, 0).is("ENOENT -ENOENT");
}

// spec: m/fill/result
pub(super) fn what_was_done_is_counted_and_the_next_call_says_why(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(8);
    let s = w.source(8);
    registers(w, fd, a.all(), 1);
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
    w.zeropage(fd, a.span(0, 4), 0).is("EAGAIN done 8192");
    w.zeropage(fd, a.span(2, 2), 0).is("EEXIST -EEXIST");
    w.zeropage(fd, a.span(3, 1), 0).is("0 done 4096");
    w.zeropage(fd, a.span(6, 1), 0).is("0 done 4096");
    w.poison(fd, a.span(5, 3), 0).is("EAGAIN done 4096");
    w.poison(fd, a.span(6, 2), 0).is("EEXIST -EEXIST");
    w.copy(fd, a.span(4, 4), s.at(0), 0).is("EAGAIN done 8192");
    w.copy(fd, a.span(6, 2), s.at(0), 0).is("EEXIST -EEXIST");
    w.copy(fd, a.span(7, 1), s.at(7), 0).is("0 done 4096");
    w.see(a.all()).is("0x0, 0x0, 0x0, 0x0, 0x11, 0x22, 0x0, 0x88");
}

// spec: m/fill/word-efault
pub(super) fn a_result_that_cannot_be_written_wakes_nobody(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    let s = w.source(2);
    registers(w, fd, a.all(), 1);
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.load(2, a.at(2)).is("asleep");
    w.at(At::ReadOnly).copy(fd, a.span(0, 1), s.at(0), 0).is("EFAULT untouched").then("");
    w.at(At::Cut(24)).zeropage(fd, a.span(1, 1), 0).is("EFAULT untouched").then("");
    w.at(At::Cut(24)).poison(fd, a.span(2, 1), 0).is("EFAULT untouched").then("");
    w.at(At::ReadOnly).zeropage(fd, a.span(0, 1), 0).is("EFAULT untouched").then("");
    w.see(a.all()).is("0x11, 0x0, poisoned, missing, missing, missing");
    w.load(3, a.at(0)).is(format!("done {:#x}", word(0)));
    w.wake(fd, a.all()).is("0").then(format!("t0 done {:#x}, t1 done 0x0, t2 bus error A+2, fd0 0/0", word(0)));
}

// spec: m/fill/wake
pub(super) fn sleepers_of_the_pages_done_are_woken_and_no_others(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(6);
    registers(w, fd, a.all(), 1);
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
    for (thread, page) in [(0, 0), (1, 1), (2, 3), (3, 5)] {
        w.load(thread, a.at(page)).is("asleep");
    }
    // Partial: two pages done.
    w.zeropage(fd, a.span(0, 4), 0).is("EAGAIN done 8192").then("t0 done 0x0, t1 done 0x0, fd0 2/2");
    w.zeropage(fd, a.span(3, 1), 1).is("0 done 4096").then("");
    // An error wakes nobody, though the page is there.
    w.zeropage(fd, a.span(3, 1), 0).is("EEXIST -EEXIST").then("");
    w.zeropage(fd, a.span(3, 2), 0).is("EEXIST -EEXIST").then("");
    w.wake(fd, a.span(3, 1)).is("0").then("t2 done 0x0, fd0 1/1");
    w.zeropage(fd, a.span(4, 2), 1).is("0 done 8192").then("");
    w.read(fd, 32).is("32 bytes: A+5 flags 0").then("fd0 0/1");
    w.wake(fd, a.span(4, 1)).is("0").then("");
    w.wake(fd, a.span(5, 1)).is("0").then("t3 done 0x0, fd0 0/0");
}

// spec(simulator,kernel): m/fill/one-mapping
pub(super) fn the_target_lies_in_one_registered_mapping(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(8);
    let s = w.source(8);
    registers(w, fd, a.span(0, 2), 1);
    registers(w, fd, a.span(2, 2), 3);
    w.unmap(a.span(6, 2));
    for span in [a.span(1, 2), a.span(3, 2), a.span(4, 1), a.span(5, 2), a.span(6, 1), a.span(0, 8)] {
        w.copy(fd, span, s.at(0), 0).is("ENOENT -ENOENT");
        w.zeropage(fd, span, 0).is("ENOENT -ENOENT");
        w.poison(fd, span, 0).is("ENOENT -ENOENT");
    }
    w.see(a.span(0, 6)).is("missing, missing, missing, missing, missing, missing");
    w.copy(fd, a.span(0, 2), s.at(0), 0).is("0 done 8192");
    w.zeropage(fd, a.span(2, 2), 0).is("0 done 8192");
}

// spec(simulator,kernel): m/fill/one-mapping
pub(super) fn a_mapping_made_next_to_a_registered_one_is_not_it(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    w.unmap(a.span(2, 2));
    registers(w, fd, a.span(0, 2), 1);
    w.map_over(a.span(2, 2), Use::Registrable);
    w.zeropage(fd, a.span(1, 2), 0).is("ENOENT -ENOENT");
    registers(w, fd, a.span(2, 2), 1);
    w.zeropage(fd, a.span(1, 2), 0).is("0 done 8192");
}

// spec: m/fill/any-context
pub(super) fn any_context_may_fill_and_wakes_only_its_own(w: &mut World<'_>) {
    let fd = w.ready(0);
    let other = w.ready(0);
    let a = w.map(4);
    let s = w.source(1);
    registers(w, fd, a.all(), 3);
    w.load(0, a.at(0)).is("asleep");
    w.load(1, a.at(1)).is("asleep");
    w.load(2, a.at(2)).is("asleep");
    w.copy(other, a.span(0, 1), s.at(0), 0).is("0 done 4096").then("");
    w.zeropage(other, a.span(1, 1), 0).is("0 done 4096").then("");
    w.poison(other, a.span(2, 1), 0).is("0 done 4096").then("");
    w.writeprotect(other, a.all(), 1).is("0").then("");
    w.see(a.all()).is("protected 0x11, protected 0x0, poisoned, missing");
    w.store(3, a.at(0) + 8, 1).is("asleep").then("fd0 4/4");
    w.writeprotect(other, a.all(), 0).is("0").then("");
    w.wake(other, a.all()).is("0").then("");
    w.wake(fd, a.all())
        .is("0")
        .then(format!("t0 done {:#x}, t1 done 0x0, t2 bus error A+2, t3 done 0x0, fd0 0/0", word(0)));
}

// spec: m/fill/any-mode
pub(super) fn a_range_registered_for_protection_alone_can_be_filled(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(1);
    registers(w, fd, a.all(), 2);
    w.copy(fd, a.span(0, 1), s.at(0), 0).is("0 done 4096");
    w.copy(fd, a.span(1, 1), s.at(0), 2).is("0 done 4096");
    w.zeropage(fd, a.span(2, 1), 0).is("0 done 4096");
    w.poison(fd, a.span(3, 1), 0).is("0 done 4096");
    w.see(a.all()).is("0x11, protected 0x11, 0x0, poisoned");
}
