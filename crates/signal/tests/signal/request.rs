//! A function that is called when somebody sends a signal.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use userfault_signal::{RequestError, on_signal};

use crate::child::{child, child_that_lives, send, set_action};

static CALLS: AtomicUsize = AtomicUsize::new(0);

fn work() {
    CALLS.fetch_add(1, SeqCst);
}

#[test]
fn a_signal_has_the_function_called_once_or_more_and_the_next_one_again() {
    child_that_lives(|| {
        let _until_the_end = on_signal(libc::SIGUSR2, work).unwrap();
        for round in 1..=100 {
            send(libc::SIGUSR2);
            while CALLS.load(SeqCst) < round {
                thread::yield_now();
            }
            assert_eq!(CALLS.load(SeqCst), round, "nobody else has asked");
        }
    });
}

#[test]
fn there_is_one_request_at_a_time_and_none_on_signals_that_have_an_owner() {
    child_that_lives(|| {
        let first = on_signal(libc::SIGUSR2, work).unwrap();
        assert_eq!(on_signal(libc::SIGUSR1, work).unwrap_err(), RequestError::Taken);
        drop(first);
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            assert_eq!(on_signal(signal, work).unwrap_err(), RequestError::OfFaults { signal });
        }
        set_action(libc::SIGUSR1, libc::abort as *const () as usize, 0, &[]);
        let error = on_signal(libc::SIGUSR1, work).unwrap_err();
        assert!(error.to_string().contains("abort"), "{error}");
        assert_eq!(
            on_signal(libc::SIGKILL, work).unwrap_err(),
            RequestError::Os { call: "sigaction", errno: libc::EINVAL }
        );
        // None of these left anything behind.
        let _other = on_signal(libc::SIGUSR2, work).unwrap();
        send(libc::SIGUSR2);
        while CALLS.load(SeqCst) == 0 {
            thread::yield_now();
        }
    });
}

#[test]
fn when_the_request_is_dropped_the_signal_does_what_it_did_before() {
    let ended = child(|| {
        drop(on_signal(libc::SIGUSR2, work).unwrap());
        send(libc::SIGUSR2);
    });
    assert_eq!(ended.signal, Some(libc::SIGUSR2), "{ended:?}");
}

#[test]
fn a_handler_that_the_program_set_meanwhile_stays() {
    let ended = child(|| {
        extern "C" fn exit_with_7(_: i32) {
            // SAFETY: takes no pointers, and is async-signal-safe.
            unsafe { libc::_exit(7) };
        }
        let request = on_signal(libc::SIGUSR2, work).unwrap();
        set_action(libc::SIGUSR2, exit_with_7 as *const () as usize, 0, &[]);
        drop(request);
        send(libc::SIGUSR2);
    });
    assert_eq!(ended.code, Some(7), "{ended:?}");
}
