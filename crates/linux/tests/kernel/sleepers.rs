//! Who sleeps, as far as it can be known. Each test in a process of its own: other tests' threads sleep, too.

use std::thread;

use userfault_client::{FaultKind, Features, Options, Region as _, RegisterModes, Sleeper, Told, Uffd as _};
use userfault_linux::{Region, Uffd};

use crate::support::{Rescue, alone, open, pattern, read, until, until_asleep};

fn with_thread_id() -> Options {
    Options { require: Features::THREAD_ID, ..Options::default() }
}

fn one(uffd: &Uffd) -> Sleeper {
    let all = uffd.sleepers().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

/// A thread that reads a byte of a page; its id comes first.
fn reader<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    region: &Region,
    page: usize,
) -> (u32, thread::ScopedJoinHandle<'scope, u8>) {
    let (tell, told) = std::sync::mpsc::channel();
    let window = region.window(page..page + 1).unwrap();
    let reading = scope.spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        window.as_ref()[24]
    });
    (u32::try_from(told.recv().unwrap().as_raw_nonzero().get()).unwrap(), reading)
}

fn page_of(region: &Region, sleeper: &Sleeper) -> Option<usize> {
    region.page_at(sleeper.address.unwrap())
}

#[test]
fn with_thread_ids_a_fault_that_was_read_is_known_until_its_thread_is_woken() {
    alone!(with_thread_ids_a_fault_that_was_read_is_known_until_its_thread_is_woken, {
        let uffd = open!(&with_thread_id());
        let region = uffd.map(4, RegisterModes::MISSING).unwrap();
        assert_eq!(uffd.sleepers(), Ok(vec![]));
        thread::scope(|scope| {
            let _rescue = Rescue(&region);
            let (thread, reading) = reader(scope, &region, 2);
            until_asleep(&uffd, 1);
            // Counted before it is seen to sleep.
            until("the thread is seen", || one(&uffd).thread.is_some());
            let unread = one(&uffd);
            assert_eq!((unread.thread, unread.told), (Some(thread), Some(Told::Unread)));
            assert_eq!((unread.address, unread.asleep_for, unread.kind), (None, None, None));
            read(&uffd, 1);
            let then = one(&uffd);
            assert_eq!((then.thread, page_of(&region, &then)), (Some(thread), Some(2)));
            assert_eq!((then.told, then.kind), (Some(Told::Read), Some(FaultKind::Missing)));
            assert!(one(&uffd).asleep_for > then.asleep_for);
            // An answer elsewhere, and one that wakes nobody, change nothing.
            assert_eq!(region.copy(1, &pattern(1, 0)).unwrap().complete(), Ok(1));
            assert_eq!(region.copy_without_wake(2, &pattern(2, 0)).unwrap().complete(), Ok(1));
            assert_eq!(page_of(&region, &one(&uffd)), Some(2));
            region.wake(2..3).unwrap();
            assert_eq!(reading.join().unwrap(), pattern(2, 0)[24]);
            assert_eq!(uffd.sleepers(), Ok(vec![]));
            // The same again, and nothing of the first fault is left; then a fault that is not read.
            let (thread, reading) = reader(scope, &region, 3);
            until_asleep(&uffd, 1);
            until("the thread is seen", || one(&uffd).thread == Some(thread));
            assert_eq!((one(&uffd).told, one(&uffd).address), (Some(Told::Unread), None));
            assert_eq!(region.copy(3, &pattern(3, 0)).unwrap().complete(), Ok(1));
            assert_eq!(reading.join().unwrap(), pattern(3, 0)[24]);
        });
    });
}

#[test]
fn without_thread_ids_threads_are_named_if_no_other_descriptors_can_be_meant() {
    alone!(without_thread_ids_threads_are_named_if_no_other_descriptors_can_be_meant, {
        let (first, second) = (open!(), open!());
        let regions = [&first, &second].map(|uffd| uffd.map(2, RegisterModes::MISSING).unwrap());
        thread::scope(|scope| {
            let _rescue = (Rescue(&regions[0]), Rescue(&regions[1]));
            let (thread, reading) = reader(scope, &regions[0], 0);
            until_asleep(&first, 1);
            until("the thread is seen", || one(&first).thread == Some(thread));
            read(&first, 1);
            let then = one(&first);
            assert_eq!((then.thread, then.told, then.address), (Some(thread), Some(Told::Read), None));
            assert_eq!(second.sleepers(), Ok(vec![]));
            let (_, other) = reader(scope, &regions[1], 0);
            until_asleep(&second, 1);
            // Two threads sleep, and which is whose nobody says.
            until("both are seen", || [&first, &second].iter().all(|uffd| one(uffd).thread.is_none()));
            assert_eq!([&first, &second].map(|uffd| one(uffd).told), [Some(Told::Read), Some(Told::Unread)]);
            for region in &regions {
                assert_eq!(region.copy(0, &pattern(0, 0)).unwrap().complete(), Ok(1));
            }
            assert_eq!([reading, other].map(|reading| reading.join().unwrap()), [pattern(0, 0)[24]; 2]);
        });
    });
}
