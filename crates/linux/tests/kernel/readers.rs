//! Reading: several readers, waits that end, messages that vanish.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use userfault_client::{Event, Features, Options, Region as _, RegisterModes, Uffd as _, UffdError, Wait};

use crate::support::{Events, Rescue, is_readable, open, pattern, patterns, until, until_asleep, until_readable};

fn page() -> usize {
    rustix::param::page_size()
}

// spec: m/read/once, m/read/anyone
#[test]
fn each_fault_goes_to_exactly_one_of_several_readers() {
    const PAGES: usize = 64;
    let uffd = open!(&Options { require: Features::THREAD_ID, ..Options::default() });
    let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
    let window = region.window(0..PAGES).unwrap();
    let seen = Mutex::new(BTreeMap::<usize, usize>::new());
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut events = Events::new();
                while uffd.read(Wait::Forever, &mut events) != Err(UffdError::ShutDown) {
                    for event in events.drain(..) {
                        let Event::Fault(fault) = event else { panic!("{event:?}") };
                        assert!(fault.thread.is_some());
                        let number = region.page_at(fault.address).unwrap();
                        *seen.lock().unwrap().entry(number).or_default() += 1;
                        region.copy(number, &pattern(number, 0)).unwrap().complete().unwrap();
                    }
                }
            });
        }
        let touchers: Vec<_> = (0..PAGES)
            .map(|n| {
                scope.spawn({
                    let window = &window;
                    move || window.as_ref()[n * page()]
                })
            })
            .collect();
        for (n, toucher) in touchers.into_iter().enumerate() {
            assert_eq!(toucher.join().unwrap(), pattern(n, 0)[0]);
        }
        uffd.shut_down();
    });
    let expected: BTreeMap<_, _> = (0..PAGES).map(|n| (n, 1)).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(window.as_ref(), patterns(0..PAGES, 0));
}

#[test]
fn shutting_down_ends_every_blocked_and_future_read() {
    let uffd = open!();
    thread::scope(|scope| {
        let readers = [Wait::Forever, Wait::Forever, Wait::AtMost(crate::support::WATCHDOG)].map(|wait| {
            scope.spawn({
                let uffd = &uffd;
                move || uffd.read(wait, &mut Events::new())
            })
        });
        uffd.shut_down();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Err(UffdError::ShutDown));
        }
    });
    for wait in [Wait::Forever, Wait::Never, Wait::AtMost(Duration::ZERO)] {
        assert_eq!(uffd.read(wait, &mut Events::new()), Err(UffdError::ShutDown));
    }
}

#[test]
fn what_came_before_the_shutdown_is_still_read() {
    let uffd = open!();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let window = region.window(0..1).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| window.as_ref()[0]);
        until_asleep(&uffd, 1);
        uffd.shut_down();
        assert_eq!(uffd.read(Wait::Forever, &mut Events::new()), Ok(1));
        assert_eq!(uffd.read(Wait::Forever, &mut Events::new()), Err(UffdError::ShutDown));
        region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
        assert_eq!(reader.join().unwrap(), pattern(0, 0)[0]);
    });
}

// spec: m/read/empty, m/poll/nonblocking
#[test]
fn a_read_that_does_not_wait_finds_nothing() {
    let uffd = open!();
    let mut events = Events::new();
    for wait in [Wait::Never, Wait::AtMost(Duration::ZERO), Wait::AtMost(Duration::from_millis(1))] {
        assert_eq!(uffd.read(wait, &mut events), Ok(0));
    }
    assert!(events.is_empty());
    assert!(!is_readable(&uffd));
}

// spec: m/wake/unread, m/unregister/wakes
#[test]
fn a_message_that_vanished_after_the_poll_is_not_waited_for() {
    let uffd = open!();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let window = region.window(0..1).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let reader = scope.spawn(|| window.as_ref()[0]);
        until_readable(&uffd);
        region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
        assert_eq!(reader.join().unwrap(), pattern(0, 0)[0]);
        assert_eq!(uffd.read(Wait::Never, &mut Events::new()), Ok(0));
    });
}

// spec: m/read/size
#[test]
fn more_messages_than_one_batch_holds_come_at_once_and_none_is_lost() {
    const SLEEPERS: usize = 100;
    let uffd = open!();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let window = region.window(0..1).unwrap();
    thread::scope(|scope| {
        let _rescue = Rescue(&region);
        for _ in 0..SLEEPERS {
            scope.spawn(|| assert_eq!(window.as_ref()[0], pattern(0, 0)[0]));
        }
        until_asleep(&uffd, SLEEPERS as u64);
        let mut events = Events::with_capacity(70);
        assert_eq!(uffd.read(Wait::Forever, &mut events), Ok(SLEEPERS));
        assert_eq!(uffd.read(Wait::Never, &mut events), Ok(0));
        region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
    });
}

// spec: m/poll/blocking
#[test]
fn a_holder_who_makes_the_descriptor_blocking_does_not_trap_the_readers() {
    let uffd = open!();
    let thread = OnceLock::new();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            thread.set(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            uffd.read(Wait::Forever, &mut Events::new())
        });
        // Once it sleeps in poll, it will not read before poll has told it of the change.
        until("the reader polls", || {
            let wchan = thread.get().map(|task| std::path::Path::new("/proc").join(task).join("wchan"));
            wchan.is_some_and(|wchan| std::fs::read_to_string(wchan).unwrap().contains("poll"))
        });
        let flags = rustix::fs::fcntl_getfl(&uffd).unwrap();
        rustix::fs::fcntl_setfl(&uffd, flags - OFlags::NONBLOCK).unwrap();
        uffd.shut_down();
        assert_eq!(reader.join().unwrap(), Err(UffdError::ShutDown));
    });
    assert!(rustix::fs::fcntl_getfl(&uffd).unwrap().contains(OFlags::NONBLOCK));
}
