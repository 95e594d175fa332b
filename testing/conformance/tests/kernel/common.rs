//! A context of the kernel's, by number.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use userfault_abi::{Api, Range, Register, Writeprotect, Zeropage, request};
use userfault_conformance::place::{At, Result, Thread};
use userfault_conformance::real::scratch::Scratch;
use userfault_conformance::real::worker::{Waits, Worker};
use userfault_conformance::real::{access, sys};
use userfault_conformance::suite::skipped;

pub(crate) const PAGE: u64 = 4096;

/// Pages of its own, far from where the kernel puts anything.
pub(crate) fn map(pages: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0x3800_0000_0000);
    let address = NEXT.fetch_add(1 << 30, Ordering::Relaxed);
    sys::map(address, pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)
}

/// A full, nonblocking context that has shaken hands; `None`, and said so, where there is none.
pub(crate) fn ready(features: u64) -> Option<RawFd> {
    access::install();
    match sys::userfaultfd(0x8_0800) {
        Ok(fd) => {
            assert_eq!(api(fd, features), Ok(()));
            Some(fd)
        }
        Err(errno) => {
            skipped(&format!("userfaultfd: errno {errno}"));
            None
        }
    }
}

pub(crate) fn call(fd: RawFd, request: u32, argument: &[u8]) -> Result<()> {
    let scratch = Scratch::default();
    sys::ioctl(fd, request, scratch.put(argument, At::Good)).map(|_| ())
}

pub(crate) fn api(fd: RawFd, features: u64) -> Result<()> {
    call(fd, request::API, &Api { api: 0xAA, features, ioctls: 0 }.encode())
}

pub(crate) fn register(fd: RawFd, start: u64, pages: u64, mode: u64) -> Result<()> {
    let range = Range { start, len: pages * PAGE };
    call(fd, request::REGISTER, &Register { range, mode, ioctls: 0 }.encode())
}

pub(crate) fn unregister(fd: RawFd, start: u64, pages: u64) -> Result<()> {
    call(fd, request::UNREGISTER, &Range { start, len: pages * PAGE }.encode())
}

pub(crate) fn wake(fd: RawFd, start: u64, pages: u64) -> Result<()> {
    call(fd, request::WAKE, &Range { start, len: pages * PAGE }.encode())
}

pub(crate) fn zeropage(fd: RawFd, start: u64, pages: u64) -> Result<()> {
    let range = Range { start, len: pages * PAGE };
    call(fd, request::ZEROPAGE, &Zeropage { range, mode: 0, zeropage: 0 }.encode())
}

pub(crate) fn writeprotect(fd: RawFd, start: u64, pages: u64, mode: u64) -> Result<()> {
    let range = Range { start, len: pages * PAGE };
    call(fd, request::WRITEPROTECT, &Writeprotect { range, mode }.encode())
}

/// How many messages can be read now.
pub(crate) fn messages(fd: RawFd) -> usize {
    let scratch = Scratch::default();
    sys::read(fd, scratch.put(&[0; 320], At::Good), 320).unwrap_or(0) / 32
}

/// `pending` and `total`.
pub(crate) fn counts(fd: RawFd) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap();
    (value("pending:"), value("total:"))
}

/// In a fault, or in anything else that waits there.
pub(crate) fn in_fault(wchan: &str) -> Waits {
    if wchan == "handle_userfault" { Waits::InFault } else { Waits::No }
}

pub(crate) fn loads(worker: &Worker, address: u64) -> Thread {
    worker.start(Box::new(move || userfault_conformance::real::worker::ended(access::load(address))));
    worker.settle(in_fault)
}

/// Waits until something holds; fails if it never does.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::yield_now();
    }
}
