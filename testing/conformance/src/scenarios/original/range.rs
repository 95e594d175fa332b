//! Ranges as arguments, original protocol.
//!
//! Kernel counterpart: `validate_range` as of May 2015.

use super::adds;
use crate::place::At;
use crate::world::{PAGE, Span, World};

const SIZE: u64 = 0x7FFF_FFFF_F000;
const LOWEST: u64 = 0x1_0000;

// spec: o/range/valid, W12
pub(super) fn a_range_is_aligned_not_empty_and_inside_the_address_space(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    for (start, len) in [
        (a.at(0) + 1, PAGE),
        (a.at(0), PAGE - 1),
        (a.at(0), PAGE + 1),
        (a.at(0), 0),
        (0, PAGE),
        (LOWEST - PAGE, PAGE),
        (LOWEST - PAGE, 2 * PAGE),
        (SIZE, PAGE),
        (SIZE - PAGE, 2 * PAGE),
        (1 << 63, PAGE),
        (a.at(0), 0_u64.wrapping_sub(PAGE)),
    ] {
        let span = Span { start, len };
        w.register(fd, span, 1).is("EINVAL untouched");
        w.unregister(fd, span).is("EINVAL");
        w.wake(fd, span).is("EINVAL");
    }
    w.wake(fd, Span { start: LOWEST, len: PAGE }).is("0");
    w.wake(fd, Span { start: SIZE - PAGE, len: PAGE }).is("0");
    w.wake(fd, Span { start: LOWEST, len: SIZE - LOWEST }).is("0");
}

// spec: o/register/input, o/unregister/input, o/wake/input
pub(super) fn an_unreadable_argument_is_looked_at_first(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    let none = Span { start: 1, len: 0 };
    for at in [At::Nowhere, At::Cut(15)] {
        w.at(at).register(fd, none, 0).is("EFAULT untouched");
        w.at(at).unregister(fd, none).is("EFAULT");
        w.at(at).wake(fd, none).is("EFAULT");
    }
    w.at(At::Cut(23)).register(fd, none, 0).is("EFAULT untouched");
    w.at(At::Cut(24)).register(fd, none, 0).is("EINVAL untouched");
    w.at(At::Cut(16)).wake(fd, none).is("EINVAL");
    w.at(At::Cut(16)).unregister(fd, none).is("EINVAL");
    // Nothing is written back.
    w.at(At::ReadOnly).wake(fd, a.all()).is("0");
    w.at(At::ReadOnly).unregister(fd, a.all()).is("0");
    adds(w, fd, a.all());
}
