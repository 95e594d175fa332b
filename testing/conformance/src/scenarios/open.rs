//! Opening.
//!
//! Kernel counterpart: `userfaultfd(2)`.

use crate::world::{NONBLOCK, World};

// spec: m/open/flags
pub(super) fn only_the_three_flags_are_known(w: &mut World<'_>) {
    for unknown in [2, 4, 0x400, 0x1000, 0x8_0002, 0x4000_0000, 0x8000_0000, !0x8_0801] {
        w.refused_open(unknown).is("EINVAL");
    }
    for known in [0, 1, NONBLOCK, 0x8_0000, 0x8_0801, 0x8_0001, 0x8_0800, 0x801] {
        let fd = w.open(known);
        w.close(fd);
    }
}

// spec: m/open/flags
pub(super) fn a_descriptor_is_nonblocking_if_opened_so(w: &mut World<'_>) {
    for (flags, events) in [(NONBLOCK, "0x0"), (0, "0x8"), (0x8_0000 | NONBLOCK, "0x0")] {
        let fd = w.open(flags);
        w.api(fd, 0).answers();
        w.poll(fd).is(events);
    }
}
