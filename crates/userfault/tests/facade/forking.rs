//! What a forked child does with what it finds of its parent's: nothing, and the parent does not notice.
//!
//! Invariant:
//!
//! 1. A child made here has one thread, which ends in [`libc::_exit`] and never returns into its parent's code.
#![expect(unsafe_code, reason = "forks; the invariant above is this file's proof")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use userfault::prelude::*;
use userfault::{Builder, Bytes, MonitorError, RegisterModes, report_sleepers_on};

use crate::support::{again, both, both_with, first_wrong, name, path_of, pattern, role, run, text};

const USR1: i32 = 10;
/// Ends a child that hangs.
const WATCHDOG_SECONDS: u32 = 60;

/// Runs `body` in a forked child; whether it returned there.
fn returns_in_child(body: impl FnOnce()) -> bool {
    // SAFETY: the C library makes malloc usable in the child, which keeps to invariant 1.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: takes a number.
        unsafe { libc::alarm(WATCHDOG_SECONDS) };
        let is_done = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: takes a number, and does not return (invariant 1).
        unsafe { libc::_exit(i32::from(!is_done)) };
    }
    let mut status = 0;
    // SAFETY: the status is a live local.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status == 0
}

/// Runs `body` in a process of its own, which forks without other tests in it.
fn alone(path: &str, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    let output = run(again(path, "alone")).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
}

#[test]
fn a_monitor_that_is_dropped_in_a_forked_child_goes_on_in_the_parent() {
    alone(&path_of(&a_monitor_that_is_dropped_in_a_forked_child_goes_on_in_the_parent), || {
        for uffd in both() {
            let region = uffd.map(4, RegisterModes::MISSING).unwrap();
            let mut monitor = Some(uffd.monitor(&region).serve_with_threads(2, pattern).unwrap());
            assert!(returns_in_child(|| drop(monitor.take())), "{}", name(&uffd));
            let serve = || assert!(matches!(uffd.monitor(&region).serve(pattern), Err(MonitorError::Forked)));
            assert!(returns_in_child(serve), "{}", name(&uffd));
            let join = || assert!(matches!(monitor.take().unwrap().join(), Err(MonitorError::Forked)));
            assert!(returns_in_child(join), "{}", name(&uffd));
            let window = region.window(0..4).unwrap();
            assert_eq!(first_wrong(window.as_ref()), None, "{}", name(&uffd));
            assert_eq!(monitor.take().unwrap().join().unwrap().pages_filled, 4);
        }
    });
}

#[test]
fn inline_answers_that_are_dropped_in_a_forked_child_go_on_in_the_parent() {
    alone(&path_of(&inline_answers_that_are_dropped_in_a_forked_child_go_on_in_the_parent), || {
        for uffd in both_with(&Builder::new().answer_inline()) {
            let region = uffd.map(4, RegisterModes::MISSING).unwrap();
            let mut contents = vec![0; 4 * region.page_size()];
            pattern(0..4, &mut contents).unwrap();
            let mut monitor = Some(uffd.monitor(&region).serve_inline(Bytes::from(contents)).unwrap());
            assert!(returns_in_child(|| drop(monitor.take())), "{}", name(&uffd));
            let window = region.window(0..4).unwrap();
            assert_eq!(first_wrong(window.as_ref()), None, "{}", name(&uffd));
            assert_eq!(monitor.take().unwrap().join().unwrap().pages_filled, 4);
        }
    });
}

#[test]
fn a_report_that_is_dropped_in_a_forked_child_goes_on_in_the_parent() {
    alone(&path_of(&a_report_that_is_dropped_in_a_forked_child_goes_on_in_the_parent), || {
        let mut report = Some(report_sleepers_on(USR1).unwrap());
        assert!(returns_in_child(|| drop(report.take())));
        assert!(returns_in_child(|| drop(report_sleepers_on(USR1).unwrap())), "of its own");
        drop(report.take());
        // All of it was taken back here.
        drop(report_sleepers_on(USR1).unwrap());
    });
}

#[test]
fn in_a_forked_child_none_of_its_parents_threads_sleeps() {
    alone(&path_of(&in_a_forked_child_none_of_its_parents_threads_sleeps), || {
        for uffd in both_with(&Builder::new().answer_inline()) {
            let region = uffd.map(1, RegisterModes::MISSING).unwrap();
            // On the stack that threads have, nobody answers inline.
            let inline = region.answer_inline(userfault_signal::Zeros, 1).unwrap();
            std::thread::scope(|scope| {
                let shared = region.shared(0..1).unwrap();
                let reading = scope.spawn(move || shared.compare(0, &[7]));
                while uffd.sleepers().unwrap().iter().all(|sleeper| sleeper.thread.is_none()) {
                    std::thread::yield_now();
                }
                let count = || userfault::process::print_sleepers() + userfault::linux::print_sleepers();
                let seen = (returns_in_child(|| assert_eq!(count(), 0)), count());
                // Nothing fails before the thread goes on.
                region.copy(0, &vec![7; region.page_size()]).unwrap().complete().unwrap();
                assert_eq!(reading.join().unwrap(), None);
                assert_eq!(seen, (true, 1), "{}", name(&uffd));
            });
            drop(inline);
        }
    });
}
