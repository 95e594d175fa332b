//! Readiness: what a poller of the descriptor sees.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, Uffd as _, Wait};
use userfault_process::Uffd;

use crate::access::load;
use crate::alone::alone;
use crate::os::Poller;
use crate::support::{PAGE, Random, asleep, contents, fill, map, open, page_of, until_asleep, word};

/// Longer than any test: a poll that should not wait at all waits so long at most, and fails.
const LONG_MS: i32 = 60_000;

fn poller(uffd: &Uffd, edges: bool) -> Poller {
    Poller::new(uffd.descriptor().unwrap(), edges)
}

// spec: H30, H31
#[test]
fn a_descriptor_that_is_asked_for_with_a_fault_waiting_is_readable() {
    alone(|| {
        for edges in [false, true] {
            let uffd = open();
            let region = map(&uffd, 1);
            let base = region.base();
            thread::scope(|scope| {
                scope.spawn(move || load(base));
                until_asleep(1);
                assert!(poller(&uffd, edges).wait(LONG_MS));
                assert_eq!(uffd.read(Wait::Never, &mut Vec::new()), Ok(1));
                fill(&region, 0, 1);
            });
            // Nothing waits: asking again does not make it readable.
            let idle = poller(&uffd, false);
            let _again = uffd.descriptor().unwrap();
            assert!(!idle.wait(0));
        }
    });
}

// spec: H30
#[test]
fn a_descriptor_stays_readable_after_a_read_that_left_some() {
    alone(|| {
        let uffd = open();
        let sleepers = 75;
        let region = map(&uffd, sleepers);
        let base = region.base();
        let (level, edge) = (poller(&uffd, false), poller(&uffd, true));
        thread::scope(|scope| {
            for page in 0..sleepers {
                scope.spawn(move || load(base + page * PAGE));
            }
            until_asleep(sleepers);
            let mut events = Vec::new();
            while events.len() < sleepers {
                assert!(level.wait(LONG_MS), "{} of {sleepers} read", events.len());
                assert!(edge.wait(LONG_MS), "each read that leaves some makes an edge");
                let added = uffd.read(Wait::Never, &mut events).unwrap();
                assert!(added > 0);
            }
            assert!(events.len() == sleepers && events.iter().all(|event| page_of(&region, event) < sleepers));
            assert!(!level.wait(0), "nothing is left");
            (0..sleepers).for_each(|page| fill(&region, page, 1));
        });
    });
}

// spec: H30
#[test]
fn an_edge_triggered_poller_gets_an_edge_for_each_fault() {
    alone(|| {
        let uffd = open();
        let pages = 400;
        let region = map(&uffd, pages);
        let base = region.base();
        let edge = poller(&uffd, true);
        thread::scope(|scope| {
            for page in 0..pages {
                let faulting = scope.spawn(move || load(base + page * PAGE));
                // Every other fault is left unread: the next one makes its own edge all the same.
                assert!(edge.wait(LONG_MS), "fault {page}");
                if page % 2 == 1 {
                    let mut events = Vec::new();
                    let mut read = 0;
                    while read < 2 {
                        read += uffd.read(Wait::AtMost(crate::support::WATCHDOG), &mut events).unwrap();
                    }
                    fill(&region, page - 1, 1);
                    fill(&region, page, 1);
                    assert_eq!(faulting.join().unwrap(), word(page, 1));
                }
            }
        });
    });
}

const FAULTING: usize = 8;
const PAGES_EACH: usize = 700;

fn poll_and_fill(uffd: &Uffd, region: &userfault_process::Region, edges: bool, answered: &AtomicUsize) {
    let poller = poller(uffd, edges);
    let mut events = Vec::new();
    while answered.load(Relaxed) < FAULTING * PAGES_EACH {
        // A short wait looks at the count again; what must not happen is that nobody is told.
        if !poller.wait(1000) {
            continue;
        }
        loop {
            events.clear();
            if uffd.read(Wait::Never, &mut events).unwrap() == 0 {
                break;
            }
            for event in &events {
                let page = page_of(region, event);
                assert_eq!(region.copy(page, &contents(page, 1)).unwrap().complete(), Ok(1));
                answered.fetch_add(1, Relaxed);
            }
        }
    }
}

fn no_readiness_is_lost(edges: bool, pollers: usize) {
    let uffd = open();
    let region = map(&uffd, FAULTING * PAGES_EACH);
    let (base, answered) = (region.base(), AtomicUsize::new(0));
    let mut random = Random::new();
    thread::scope(|scope| {
        for _ in 0..pollers {
            scope.spawn(|| poll_and_fill(&uffd, &region, edges, &answered));
        }
        for thread in 0..FAULTING {
            let order = random.order(PAGES_EACH);
            scope.spawn(move || {
                for page in order.into_iter().map(|page| page * FAULTING + thread) {
                    assert_eq!(load(base + page * PAGE), word(page, 1));
                }
            });
        }
    });
    assert_eq!((answered.into_inner(), asleep()), (FAULTING * PAGES_EACH, 0));
}

/// Each thread faults once a round, so that nobody's later fault tells of one that was lost.
fn no_readiness_is_lost_in_rounds(edges: bool) {
    let rounds = 700;
    let uffd = open();
    let region = map(&uffd, FAULTING * rounds);
    let (base, begin) = (region.base(), Barrier::new(FAULTING));
    let poller = poller(&uffd, edges);
    thread::scope(|scope| {
        for thread in 0..FAULTING {
            let begin = &begin;
            scope.spawn(move || {
                for page in (0..rounds).map(|round| round * FAULTING + thread) {
                    begin.wait();
                    assert_eq!(load(base + page * PAGE), word(page, 1));
                }
            });
        }
        let (mut answered, mut events) = (0, Vec::new());
        while answered < FAULTING * rounds {
            assert!(poller.wait(LONG_MS), "{answered} answered, {} asleep, nobody told", asleep());
            events.clear();
            // A level-triggered poller need not read until there is nothing.
            while uffd.read(Wait::Never, &mut events).unwrap() > 0 && edges {}
            for event in &events {
                fill(&region, page_of(&region, event), 1);
            }
            answered += events.len();
        }
    });
    assert_eq!(asleep(), 0);
}

// spec: H30
#[test]
fn a_level_triggered_poller_is_told_of_the_last_fault_of_each_round() {
    alone(|| no_readiness_is_lost_in_rounds(false));
}

// spec: H30
#[test]
fn an_edge_triggered_poller_is_told_of_the_last_fault_of_each_round() {
    alone(|| no_readiness_is_lost_in_rounds(true));
}

// spec: H30
#[test]
fn two_level_triggered_pollers_lose_no_fault_of_eight_threads() {
    alone(|| no_readiness_is_lost(false, 2));
}

// spec: H30
#[test]
fn an_edge_triggered_poller_loses_no_fault_of_eight_threads() {
    alone(|| no_readiness_is_lost(true, 1));
}

// spec: H30
#[test]
fn two_edge_triggered_pollers_lose_no_fault_of_eight_threads() {
    alone(|| no_readiness_is_lost(true, 2));
}
