//! Who sleeps, as a listing says it.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use userfault_client::{FaultKind, Region as _, Sleeper, Told, Uffd as _, Wait, WriteProtect};

use crate::access::{load, store};
use crate::alone::alone;
use crate::os;
use crate::support::{PAGE, contents, fill, map, map_protectable, open, page_of, read, until, until_asleep, word};

fn one(uffd: &userfault_process::Uffd) -> Sleeper {
    let all = uffd.sleepers().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

static THREAD: AtomicI32 = AtomicI32::new(0);

fn thread_of(sleeper: &Sleeper) -> i32 {
    i32::try_from(sleeper.thread.unwrap()).unwrap()
}

#[test]
fn a_sleeper_is_listed_with_thread_address_time_message_and_kind_until_it_is_answered() {
    alone(|| {
        let (uffd, other) = (open(), open());
        let region = map_protectable(&uffd, 4);
        fill(&region, 2, 1);
        region.writeprotect(2..3, WriteProtect::Protect).unwrap();
        let base = region.base();
        for (address, kind) in [(base + PAGE + 24, FaultKind::Missing), (base + 2 * PAGE + 8, FaultKind::WriteProtect)]
        {
            let before = Instant::now();
            thread::scope(|scope| {
                let sleeping = scope.spawn(move || {
                    THREAD.store(os::thread_id(), SeqCst);
                    store(address, 5);
                });
                until_asleep(1);
                // Between joining and parking the note is still to come.
                until("the note is there", || one(&uffd).thread.is_some());
                let unread = one(&uffd);
                let expected = (THREAD.load(SeqCst), Some(address as u64), Some(Told::Unread), Some(kind));
                assert_eq!((thread_of(&unread), unread.address, unread.told, unread.kind), expected);
                read(&uffd, 1);
                let then = one(&uffd);
                assert_eq!((thread_of(&then), then.address), (thread_of(&unread), unread.address));
                assert_eq!((then.told, then.kind), (Some(Told::Read), Some(kind)));
                let times = [unread.asleep_for.unwrap(), then.asleep_for.unwrap(), before.elapsed()];
                assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
                assert_eq!(other.sleepers(), Ok(vec![]), "nobody sleeps for the other descriptor");
                match kind {
                    FaultKind::WriteProtect => region.writeprotect(2..3, WriteProtect::Lift).unwrap(),
                    FaultKind::Missing | FaultKind::Minor => fill(&region, 1, 1),
                }
                sleeping.join().unwrap();
            });
            assert_eq!((uffd.sleepers(), load(address)), (Ok(vec![]), 5));
        }
    });
}

#[test]
fn a_listing_while_threads_come_and_go_never_mixes_two_sleeps() {
    alone(|| {
        const PAGES: usize = 2000;
        let uffd = open();
        let region = map(&uffd, 4 * PAGES);
        let (base, start) = (region.base(), Instant::now());
        let ids: [AtomicI32; 4] = [const { AtomicI32::new(0) }; 4];
        let is_over = AtomicBool::new(false);
        let (mut listed, mut noted) = (0, 0);
        thread::scope(|scope| {
            let touching: Vec<_> = ids
                .iter()
                .enumerate()
                .map(|(at, id)| {
                    scope.spawn(move || {
                        id.store(os::thread_id(), SeqCst);
                        for page in at * PAGES..(at + 1) * PAGES {
                            assert_eq!(load(base + page * PAGE), word(page, 1));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut events = Vec::new();
                while !is_over.load(SeqCst) {
                    events.clear();
                    uffd.read(Wait::AtMost(Duration::from_millis(20)), &mut events).unwrap();
                    for event in &events {
                        let page = page_of(&region, event);
                        assert_eq!(region.copy(page, &contents(page, 1)).unwrap().complete(), Ok(1));
                    }
                }
            });
            while touching.iter().any(|touching| !touching.is_finished()) {
                for sleeper in uffd.sleepers().unwrap() {
                    listed += 1;
                    let page = region.page_at(sleeper.address.unwrap()).unwrap();
                    if sleeper.thread.is_none() {
                        continue;
                    }
                    noted += 1;
                    // Each thread has pages of its own: another's name would be a mixture.
                    assert_eq!(thread_of(&sleeper), ids[page / PAGES].load(SeqCst), "page {page}");
                    assert!(sleeper.asleep_for.unwrap() < start.elapsed(), "{sleeper:?}");
                }
            }
            is_over.store(true, SeqCst);
        });
        println!("measured: {listed} listed, {noted} of them with their note");
        assert!(noted > 0);
        assert_eq!(uffd.sleepers(), Ok(vec![]));
    });
}

fn print() {
    assert_eq!(userfault_process::print_sleepers(), 1);
}

/// The thread that was started to report, once it has its name.
fn reporter() -> Option<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
    let mut named = threads.filter(|thread| {
        std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with("userfault-repor"))
    });
    named.next()?.file_name().to_str()?.parse().ok()
}

#[test]
fn a_request_is_taken_by_the_reporting_thread_itself_where_every_other_blocks_it() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 1);
        let base = region.base();
        let _report = userfault_signal::on_signal(libc::SIGQUIT, print).unwrap();
        os::set_blocked(libc::SIGQUIT, true);
        let mut thread = None;
        until("the reporting thread has its name", || {
            thread = reporter();
            thread.is_some()
        });
        thread::scope(|scope| {
            let sleeping = scope.spawn(move || load(base));
            until_asleep(1);
            let mut captured = os::Captured::begin();
            // As the kernel would choose it: the test's runner has one more thread, which must not help.
            os::send(thread.unwrap(), libc::SIGQUIT);
            let mut text = [0; 600];
            let len = captured.read(&mut text);
            drop(captured);
            let text = String::from_utf8_lossy(&text[..len]);
            assert!(text.ends_with(": message not read\n"), "{text}");
            fill(&region, 0, 1);
            assert_eq!(sleeping.join().unwrap(), word(0, 1));
        });
    });
}
