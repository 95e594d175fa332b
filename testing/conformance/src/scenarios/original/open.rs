//! Opening, original protocol.
//!
//! Kernel counterpart: `userfaultfd(2)` as of May 2015.

use crate::place::Trial;
use crate::world::{NONBLOCK, World};

// spec: o/open/flags
pub(super) fn only_two_flags_are_known(w: &mut World<'_>) {
    for unknown in [1, 2, 4, 0x400, 0x801, 0x8_0001, 0x8000_0000] {
        w.refused_open(unknown).is("EINVAL");
    }
    for known in [0, NONBLOCK, 0x8_0000, 0x8_0800] {
        let fd = w.open(known);
        w.close(fd);
    }
}

// spec: o/open/initial-state
pub(super) fn a_new_context_waits_for_the_handshake_and_has_nobody(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    w.poll(fd).is("0x8");
    w.read(fd, 8).is("EINVAL");
    let lines = w.fdinfo(fd).result();
    w.note("the counts", lines.get(..22).unwrap_or_default()).is(r#""pending:\t0\ntotal:\t"#);
}

// spec: o/open/memory, W30
pub(super) fn descriptors_that_cannot_be_made_leave_nothing_behind(w: &mut World<'_>) {
    w.try_out(Trial::OpenUntilFull).is_but("it leaks", "o/open/memory", "nothing leaks");
}
