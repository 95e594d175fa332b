//! Several monitors read one descriptor.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, Uffd as _, UffdError, Wait};
use userfault_process::{Region, Uffd, statistics};

use crate::access::load;
use crate::alone::alone;
use crate::support::{Mode, PAGE, Random, asleep, contents, map, open_in, page_of, word};

const FAULTING: usize = 8;
const MONITORS: usize = 3;

/// Answers until the descriptor is shut down; how many messages it got.
fn monitor(uffd: &Uffd, region: &Region) -> usize {
    let mut events = Vec::with_capacity(64);
    let mut read = 0;
    loop {
        events.clear();
        match uffd.read(Wait::Forever, &mut events) {
            Ok(added) => read += added,
            Err(UffdError::ShutDown) => return read,
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            let page = page_of(region, event);
            assert_eq!(region.copy(page, &contents(page, 1)).unwrap().complete(), Ok(1), "one message a page");
        }
    }
}

fn share_the_work(mode: Mode, pages: usize) {
    let uffd = open_in(mode);
    let region = map(&uffd, pages);
    let mut random = Random::new();
    let order = random.order(pages);
    let (base, touched) = (region.base(), AtomicUsize::new(0));
    let messages: Vec<usize> = thread::scope(|scope| {
        let monitors: Vec<_> = (0..MONITORS).map(|_| scope.spawn(|| monitor(&uffd, &region))).collect();
        let faulting: Vec<_> = order
            .chunks(pages.div_ceil(FAULTING))
            .map(|part| {
                let touched = &touched;
                scope.spawn(move || {
                    for page in part {
                        let last = load(base + page * PAGE + PAGE - 8);
                        assert_eq!((load(base + page * PAGE), last), (word(*page, 1), word(*page, 1)));
                        touched.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        faulting.into_iter().for_each(|thread| thread.join().unwrap());
        uffd.shut_down();
        monitors.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(messages.iter().sum::<usize>(), pages, "each message to exactly one reader: {messages:?}");
    assert_eq!((touched.into_inner(), asleep()), (pages, 0));
    let shared = region.shared(0..pages).unwrap();
    for page in 0..pages {
        assert_eq!(userfault_client::Shared::compare(&shared, page * PAGE, &contents(page, 1)), None, "page {page}");
    }
    println!("measured: messages {messages:?}, {:?}", statistics().unwrap());
}

// spec: H1, H30
#[test]
fn three_monitors_answer_each_fault_of_eight_threads_exactly_once() {
    alone(|| share_the_work(Mode::Guarded, 64 << 20 >> 12));
}

// spec: H1, H30
#[test]
fn three_monitors_answer_each_fault_exactly_once_where_mappings_are_short_and_guards_unknown() {
    alone(|| share_the_work(Mode::Soft, 16 << 20 >> 12));
}
