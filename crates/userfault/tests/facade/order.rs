//! In which order things may be dropped: in any.

use std::sync::Arc;
use std::sync::mpsc;

use userfault::prelude::*;
use userfault::{Builder, Choice, RegisterModes};

use crate::support::{both, byte_at, first_wrong, name, pattern};

#[test]
fn a_window_outlives_the_handles_it_came_from() {
    for uffd in both() {
        let region = uffd.map(4, RegisterModes::MISSING).unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        let window = region.window(0..4).unwrap();
        drop((region, uffd));
        assert_eq!(first_wrong(window.as_ref()), None);
        // What is there stays there.
        drop(monitor);
        assert_eq!(first_wrong(window.as_ref()), None);
    }
}

#[test]
fn a_region_and_what_it_lent_go_before_their_monitor() {
    for uffd in both() {
        let region = uffd.map(4, RegisterModes::MISSING).unwrap();
        let shared = region.shared(0..4).unwrap();
        let monitor = uffd.serve(&region, pattern).unwrap();
        shared.read(0, &mut [0]);
        drop((shared, region, uffd));
        assert_eq!(monitor.join().unwrap().pages_filled, 1);
    }
}

#[test]
fn a_dropped_monitor_has_joined_its_threads_and_dropped_their_sources() {
    for uffd in both() {
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        let token = Arc::new(());
        let held = Arc::clone(&token);
        let source = move |pages, into: &mut [u8]| {
            let _held = &held;
            pattern(pages, into)
        };
        let monitor = uffd.monitor(&region).serve_with_threads(3, source).unwrap();
        assert_eq!(Arc::strong_count(&token), 4);
        drop(monitor);
        assert_eq!(Arc::strong_count(&token), 1, "{}", name(&uffd));
    }
}

#[test]
fn who_sleeps_when_the_monitor_is_dropped_is_answered_first() {
    for uffd in both() {
        let region = uffd.map(2, RegisterModes::MISSING).unwrap();
        let (entered, in_source) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let source = move |pages, into: &mut [u8]| {
            entered.send(()).unwrap();
            may_go_on.recv().unwrap();
            pattern(pages, into)
        };
        let monitor = uffd.serve(&region, source).unwrap();
        let shared = region.shared(0..2).unwrap();
        let reader = std::thread::spawn(move || {
            let mut byte = [0];
            shared.read(0, &mut byte);
            byte[0]
        });
        in_source.recv().unwrap();
        let dropping = std::thread::spawn(move || drop(monitor));
        go_on.send(()).unwrap();
        dropping.join().unwrap();
        assert_eq!(reader.join().unwrap(), byte_at(0), "{}", name(&uffd));
    }
}

#[test]
fn monitors_of_two_descriptors_do_not_know_each_other() {
    let open = || Builder::new().provider(Choice::Process).open().unwrap();
    let pairs: Vec<_> = (0..2)
        .map(|_| {
            let uffd = open();
            let region = uffd.map(2, RegisterModes::MISSING).unwrap();
            (uffd.serve(&region, pattern).unwrap(), region.window(0..2).unwrap())
        })
        .collect();
    let (first, second) = (&pairs[0], &pairs[1]);
    assert_eq!(first_wrong(second.1.as_ref()), None);
    assert_eq!((first.0.stats().faults, second.0.stats().faults), (0, 2));
}
