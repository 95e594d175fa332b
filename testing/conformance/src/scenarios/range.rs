//! Ranges as arguments.
//!
//! Kernel counterpart: `validate_range` semantics of `ioctl_userfaultfd(2)`.

use super::registers;
use crate::place::At;
use crate::world::{PAGE, Span, World};

/// First address after the address space.
const SIZE: u64 = 0x7FFF_FFFF_F000;

fn bad(start: u64) -> Vec<Span> {
    let spans = [
        (start + 1, PAGE, "start unaligned by one"),
        (start + PAGE / 2, PAGE, "start unaligned by half a page"),
        (start, PAGE - 1, "length unaligned from below"),
        (start, PAGE + 1, "length unaligned from above"),
        (start, 0, "empty"),
        (SIZE, PAGE, "start at the end of the address space"),
        (SIZE + PAGE, PAGE, "start above it"),
        (1 << 63, PAGE, "start in the kernel's half"),
        (SIZE - PAGE, 2 * PAGE, "end one page above it"),
        (start, SIZE, "longer than what is left"),
        (start, SIZE + PAGE, "longer than all there is"),
        (start, (1 << 63) - start, "far above"),
        (start, 0_u64.wrapping_sub(start), "wraps to 0"),
        (start, 0_u64.wrapping_sub(PAGE), "wraps"),
        (0xFFFF_FFFF_FFFF_F000, PAGE, "the last page there can be"),
    ];
    spans.into_iter().map(|(start, len, _)| Span { start, len }).collect()
}

// spec: m/range/valid
pub(super) fn a_range_is_aligned_not_empty_and_inside_the_address_space(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(4);
    let s = w.source(2);
    registers(w, fd, a.all(), 3);
    for span in bad(a.at(0)) {
        w.register(fd, span, 1).is("EINVAL untouched");
        w.unregister(fd, span).is("EINVAL");
        w.wake(fd, span).is("EINVAL");
        w.copy(fd, span, s.at(0), 0).is("EINVAL untouched");
        w.zeropage(fd, span, 0).is("EINVAL untouched");
        w.writeprotect(fd, span, 0).is("EINVAL");
        w.poison(fd, span, 0).is("EINVAL untouched");
    }
}

// spec: m/range/valid, m/wake/order
pub(super) fn a_range_may_begin_at_zero_and_end_at_the_end(w: &mut World<'_>) {
    let fd = w.ready(0);
    w.wake(fd, Span { start: 0, len: PAGE }).is("0");
    w.wake(fd, Span { start: 0, len: SIZE }).is("0");
    w.wake(fd, Span { start: SIZE - PAGE, len: PAGE }).is("0");
    w.zeropage(fd, Span { start: 0, len: PAGE }, 0).is("ENOENT -ENOENT");
    w.register(fd, Span { start: 0, len: PAGE }, 1).is("EINVAL untouched");
    w.unregister(fd, Span { start: 0, len: PAGE }).is("EINVAL");
}

// spec: m/range/struct
pub(super) fn an_unreadable_argument_is_looked_at_first(w: &mut World<'_>) {
    let fd = w.ready(0);
    let a = w.map(2);
    let s = w.source(2);
    registers(w, fd, a.all(), 3);
    // Everything else about these calls is wrong as well.
    let none = Span { start: 1, len: 0 };
    w.at(At::Nowhere).register(fd, none, 0).is("EFAULT untouched");
    w.at(At::Nowhere).unregister(fd, none).is("EFAULT");
    w.at(At::Nowhere).wake(fd, none).is("EFAULT");
    w.at(At::Nowhere).copy(fd, none, s.at(0), !0).is("EFAULT untouched");
    w.at(At::Nowhere).zeropage(fd, none, !0).is("EFAULT untouched");
    w.at(At::Nowhere).writeprotect(fd, none, !0).is("EFAULT");
    w.at(At::Nowhere).poison(fd, none, !0).is("EFAULT untouched");
    // The last byte of the input is missing.
    w.at(At::Cut(23)).register(fd, none, 0).is("EFAULT untouched");
    w.at(At::Cut(15)).unregister(fd, none).is("EFAULT");
    w.at(At::Cut(15)).wake(fd, none).is("EFAULT");
    w.at(At::Cut(31)).copy(fd, none, s.at(0), !0).is("EFAULT untouched");
    w.at(At::Cut(23)).zeropage(fd, none, !0).is("EFAULT untouched");
    w.at(At::Cut(23)).writeprotect(fd, none, !0).is("EFAULT");
    w.at(At::Cut(23)).poison(fd, none, !0).is("EFAULT untouched");
    // The input is there, and so is its fault.
    w.at(At::Cut(24)).register(fd, none, 0).is("EINVAL untouched");
    w.at(At::Cut(32)).copy(fd, none, s.at(0), 0).is("EINVAL untouched");
    w.at(At::Cut(24)).zeropage(fd, none, 0).is("EINVAL untouched");
    w.at(At::Cut(24)).poison(fd, none, 0).is("EINVAL untouched");
    // What nothing is written back to may be read-only.
    w.at(At::ReadOnly).wake(fd, a.all()).is("0");
    w.at(At::ReadOnly).writeprotect(fd, a.all(), 1).is("0");
    w.at(At::ReadOnly).unregister(fd, a.all()).is("0");
}
