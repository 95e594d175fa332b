//! What the process provider has beside the raw door: a descriptor for readiness, and monitors.

use std::os::fd::AsRawFd as _;

use userfault_client::{Options, Region as _, RegisterModes, Uffd as _, Wait};
use userfault_conformance::place::Thread;
use userfault_conformance::places::process::alone;
use userfault_conformance::real::worker::{Waits, Worker, ended};
use userfault_conformance::real::{access, sys};
use userfault_process::Uffd;

fn parked(wchan: &str) -> Waits {
    if wchan.contains("futex") { Waits::InFault } else { Waits::No }
}

fn loads(worker: &Worker, address: usize) -> Thread {
    let address = u64::try_from(address).unwrap();
    worker.start(Box::new(move || ended(access::load(address))));
    worker.settle(parked)
}

// spec(process): m/poll/epoll
#[test]
fn an_edge_comes_with_a_new_message_and_is_not_repeated() {
    let _alone = alone();
    let uffd = Uffd::open(&Options::default()).unwrap();
    let region = uffd.map(2, RegisterModes::MISSING).unwrap();
    let set = sys::edges_of(uffd.descriptor().unwrap().as_raw_fd());
    assert_eq!(sys::edges(set), 0);
    let workers = [Worker::spawn(), Worker::spawn()];
    assert_eq!(loads(&workers[0], region.base()), Thread::Asleep);
    assert_eq!(sys::edges(set), 1);
    assert_eq!(sys::edges(set), 0, "unread, and not repeated");
    assert_eq!(loads(&workers[1], region.base() + 4096), Thread::Asleep);
    assert_eq!(sys::edges(set), 1, "a new one is a new edge");
    let mut events = Vec::new();
    assert_eq!(uffd.read(Wait::Forever, &mut events).unwrap(), 2);
    assert_eq!(sys::edges(set), 0);
    let _all_done = region.zeropage(0..2).unwrap();
    assert!(workers.iter().all(|worker| worker.settle(|_| Waits::No) == Thread::Done(0)));
    sys::close(set);
}

// spec(process): W35
#[test]
fn a_monitor_that_faults_on_its_own_range_is_told_so() {
    let _alone = alone();
    let uffd = Uffd::open(&Options::default()).unwrap();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let base = u64::try_from(region.base()).unwrap();
    let worker = Worker::spawn();
    let monitored = uffd.clone();
    worker.start(Box::new(move || {
        monitored.enter_monitor();
        let result = access::load(base);
        monitored.leave_monitor();
        ended(result)
    }));
    // An immediate error, not a sleep.
    assert_eq!(worker.settle(|_| Waits::No), Thread::Bus(base));
    assert_eq!(loads(&worker, region.base()), Thread::Asleep, "as anybody else");
    let _all_done = region.zeropage(0..1).unwrap();
    assert_eq!(worker.settle(|_| Waits::No), Thread::Done(0));
}
