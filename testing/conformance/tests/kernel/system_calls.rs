//! Accesses by system calls, and huge pages.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use userfault_conformance::place::Thread;
use userfault_conformance::real::worker::Worker;
use userfault_conformance::real::{access, sys};

use super::common::*;

// spec(kernel): m/fault/kernel-signal, m/fault/kernel
#[test]
fn a_signal_does_not_end_a_system_call_that_waits_for_a_page() {
    let Some(fd) = ready(0) else { return };
    let memory = map(1);
    register(fd, memory, 1, 1).unwrap();
    let (input, mut output) = std::io::pipe().unwrap();
    output.write_all(b"contents").unwrap();
    let worker = Worker::spawn();
    let number = input.as_raw_fd();
    worker.start(Box::new(move || Thread::Done(sys::read(number, memory, 8).unwrap_or(0) as u64)));
    assert_eq!(worker.settle(in_fault), Thread::Asleep);
    assert_eq!(messages(fd), 1);
    worker.signal();
    // It does not sleep any more: until the call can go on it withdraws and repeats its message.
    until("the message is repeated", || messages(fd) == 1);
    until("and repeated again", || messages(fd) == 1);
    zeropage(fd, memory, 1).unwrap();
    assert_eq!(worker.settle(in_fault), Thread::Done(8), "and succeeds");
    assert_eq!(access::load(memory).value, u64::from_ne_bytes(*b"contents"));
    sys::close(fd);
}

// spec(kernel): m/fault/thp
#[test]
fn huge_pages_are_filled_and_protected_page_by_page() {
    const HUGE: u64 = 2 << 20;
    let Some(fd) = ready(0) else { return };
    let memory = map(4 * HUGE / PAGE);
    sys::advise(memory, 4 * HUGE, libc::MADV_HUGEPAGE).unwrap();
    register(fd, memory, HUGE / PAGE, 1).unwrap();
    let worker = Worker::spawn();
    assert_eq!(loads(&worker, memory + 5 * PAGE + 8), Thread::Asleep);
    assert_eq!(messages(fd), 1);
    zeropage(fd, memory + 5 * PAGE, 1).unwrap();
    assert_eq!(worker.settle(in_fault), Thread::Done(0));
    assert_eq!(loads(&worker, memory + 6 * PAGE), Thread::Asleep, "its neighbour is still missing");
    zeropage(fd, memory + 6 * PAGE, HUGE / PAGE - 6).unwrap();
    assert_eq!(worker.settle(in_fault), Thread::Done(0));
    // A huge page, where the system makes one, of which one small page is protected.
    let other = memory + 2 * HUGE;
    assert_eq!(access::store(other, 7).signal, 0);
    register(fd, other, HUGE / PAGE, 2).unwrap();
    writeprotect(fd, other + PAGE, 1, 1).unwrap();
    assert_eq!(access::store(other, 8).signal, 0);
    assert_eq!(access::store(other + 2 * PAGE, 8).signal, 0);
    worker.start(Box::new(move || userfault_conformance::real::worker::ended(access::store(other + PAGE, 9))));
    assert_eq!(worker.settle(in_fault), Thread::Asleep);
    assert_eq!(messages(fd), 1);
    writeprotect(fd, other, HUGE / PAGE, 0).unwrap();
    assert_eq!(worker.settle(in_fault), Thread::Done(0));
    sys::close(fd);
}
