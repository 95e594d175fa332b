//! ioctl in general, original protocol.
//!
//! Kernel counterpart: the descriptor's ioctl entry as of May 2015.

use userfault_abi::request;

use super::adds;
use crate::place::At;
use crate::world::{NONBLOCK, World};

// spec: o/ioctl/dispatch, o/ioctl/unknown
pub(super) fn only_whole_request_words_are_known(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    let mut argument = [0; 64];
    argument[..8].copy_from_slice(&a.at(0).to_ne_bytes());
    argument[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
    argument[16] = 1;
    for request in [request::API, request::REGISTER, request::UNREGISTER, request::WAKE] {
        for unknown in [request ^ 1 << 30, request ^ 1 << 31, request + (1 << 16), request - (1 << 16), request ^ 1 << 8, request ^ 0x20] {
            w.ioctl(fd, unknown, &argument).is("EINVAL");
        }
    }
    for later in [request::MOVE, request::WRITEPROTECT, request::CONTINUE, request::POISON, request::NEW, 0, !0] {
        w.ioctl(fd, later, &argument).is("EINVAL");
        w.at(At::Nowhere).ioctl(fd, later, &argument).is("EINVAL");
    }
    w.load(0, a.at(0)).is("done 0x0");
}

// spec: o/ioctl/unknown
pub(super) fn fills_exist_only_as_an_option(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(2);
    let s = w.source(1);
    adds(w, fd, a.all());
    let (copied, zeroed, nowhere) = match w.has_fills() {
        true => ("0 done 4096", "0 done 4096", "EFAULT untouched"),
        false => ("EINVAL untouched", "EINVAL untouched", "EINVAL untouched"),
    };
    w.at(At::Nowhere).copy(fd, a.span(0, 1), s.at(0), 0).is(nowhere);
    w.copy(fd, a.span(0, 1), s.at(0), 0).is(copied);
    w.zeropage(fd, a.span(1, 1), 0).is(zeroed);
}

// spec: o/ioctl/before-api, W15
pub(super) fn everything_works_before_the_handshake(w: &mut World<'_>) {
    let fd = w.open(NONBLOCK);
    let a = w.map(2);
    adds(w, fd, a.all());
    w.load(0, a.at(0)).is("asleep").then("fd0 1/1");
    w.poll(fd).is("0x8");
    w.read(fd, 8).is("EINVAL");
    w.wake(fd, a.all()).is("0").then("");
    w.unregister(fd, a.span(1, 1)).is("0").then("");
    w.load(1, a.at(1)).is("done 0x0");
    w.api(fd, 0).is("0 api 0xaa features 0x1 ioctls 0x8000000000000003").then("");
    w.poll(fd).is("0x1");
    w.read(fd, 8).is("8 bytes: A+0 low 0x0");
}

// spec: o/ioctl/success
pub(super) fn success_is_zero_for_all(w: &mut World<'_>) {
    let fd = w.ready_original();
    let a = w.map(1);
    adds(w, fd, a.all());
    w.wake(fd, a.all()).is("0");
    w.unregister(fd, a.all()).is("0");
}
