//! What belongs to a thread: masks, sleeps, stacks. No handler for faults is installed here.

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{scope, spawn};
use std::time::Duration;

use libc::{SIGBUS, SIGINT, SIGSEGV, SIGUSR1, SIGUSR2};
use userfault_signal::{
    AlternateStack, FutexWait, LARGE_STACK_BYTES, SignalSet, SignalsBlocked, StackError, block_all_in_this_thread,
    futex_wait, futex_wake, is_blocked,
};

use crate::child::{block, child_that_lives, send, set_action};
use crate::memory::use_stack;

/// Signals of interest: two that others send, the C library's two, the two of faults.
const ASKED: [i32; 6] = [SIGUSR1, SIGINT, 32, 33, SIGSEGV, SIGBUS];

/// In a thread of its own: masks are a thread's.
fn in_thread(body: impl FnOnce() + Send + 'static) {
    spawn(body).join().unwrap();
}

#[test]
fn a_set_holds_signals_1_to_64_and_no_others() {
    for (signal, bits) in [(1, 1), (SIGSEGV, 1 << 10), (64, 1 << 63), (0, 0), (65, 0), (-1, 0), (i32::MIN, 0)] {
        let set = SignalSet::EMPTY.with(signal);
        assert_eq!(set.bits(), bits, "signal {signal}");
        assert_eq!(SignalSet::ALL.contains(signal), bits != 0, "signal {signal}");
        assert_eq!(SignalSet::ALL.without(signal).bits(), !bits, "signal {signal}");
        assert_eq!(set.union(set.with(2)), set.with(2), "signal {signal}");
    }
}

#[test]
fn a_token_blocks_every_asynchronous_signal_and_gives_the_old_mask_back() {
    in_thread(|| {
        block(SIGUSR2);
        let outer = SignalsBlocked::new();
        assert_eq!(ASKED.map(is_blocked), [true, true, true, true, false, false], "a fault reaches its handler");
        let inner = SignalsBlocked::new();
        drop(inner);
        assert!(is_blocked(SIGUSR1), "the outer token lives");
        drop(outer);
        assert_eq!(ASKED.map(is_blocked), [false; 6]);
        assert!(is_blocked(SIGUSR2), "as before");
    });
}

#[test]
fn an_assumed_token_changes_no_mask() {
    in_thread(|| {
        let token = SignalsBlocked::new();
        // SAFETY: `token` blocks them, and lives longer.
        let mut assumed = unsafe { SignalsBlocked::assume() };
        assert!(assumed.while_unblocked(|| is_blocked(SIGUSR1)));
        drop(assumed);
        assert!(is_blocked(SIGUSR1));
        drop(token);
        assert!(!is_blocked(SIGUSR1));
    });
}

static DELIVERED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn counts(_: i32) {
    DELIVERED.fetch_add(1, Relaxed);
}

fn count(signal: i32) {
    set_action(signal, counts as extern "C" fn(i32) as usize, 0, &[]);
}

#[test]
fn a_signal_waits_for_the_end_of_a_token_or_for_a_sleep_inside_it() {
    child_that_lives(|| {
        count(SIGUSR1);
        let mut token = SignalsBlocked::new();
        send(SIGUSR1);
        assert_eq!(DELIVERED.load(Relaxed), 0);
        assert_eq!(token.while_unblocked(|| DELIVERED.load(Relaxed)), 1);
        send(SIGUSR1);
        assert_eq!(DELIVERED.load(Relaxed), 1, "blocked again after the sleep");
        drop(token);
        assert_eq!(DELIVERED.load(Relaxed), 2);
    });
}

#[test]
fn a_monitor_thread_lets_in_nothing_that_others_send_but_what_the_c_library_needs() {
    in_thread(|| {
        block_all_in_this_thread();
        assert_eq!(ASKED.map(is_blocked), [true, true, false, false, false, false]);
        let crashes = [libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
        assert_eq!(crashes.map(is_blocked), [false; 4], "a crash is reported as any other");
    });
}

#[test]
fn a_futex_wait_does_not_sleep_if_the_word_has_changed_and_ends_with_its_time() {
    let word = AtomicU32::new(1);
    assert_eq!(futex_wait(&word, 0, None), FutexWait::Changed);
    assert_eq!(futex_wait(&word, 1, Some(Duration::from_nanos(1))), FutexWait::TimedOut);
    assert_eq!(futex_wake(&word, u32::MAX), 0, "nobody sleeps");
}

/// Waits until the kernel says that thread `id` is inside `futex`.
fn until_asleep(id: i32) {
    let path = format!("/proc/self/task/{id}/syscall");
    let number = format!("{} ", libc::SYS_futex);
    while !fs::read_to_string(&path).unwrap().starts_with(&number) {
        std::thread::yield_now();
    }
}

/// Sleeps on `word` in another thread, does `wake` with its id, and says why the sleep ended.
fn sleep_until(word: &AtomicU32, wake: impl FnOnce(i32)) -> FutexWait {
    scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let sleeper = scope.spawn(move || {
            // SAFETY: no pointers.
            sender.send(unsafe { libc::gettid() }).unwrap();
            futex_wait(word, 0, None)
        });
        let id = receiver.recv().unwrap();
        until_asleep(id);
        wake(id);
        sleeper.join().unwrap()
    })
}

// spec: H29
#[test]
fn a_sleep_ends_by_a_wake_or_by_a_signal_and_says_which() {
    child_that_lives(|| {
        count(SIGUSR1);
        let word = AtomicU32::new(0);
        let by_wake = sleep_until(&word, |_| while futex_wake(&word, 1) == 0 {});
        assert_eq!(by_wake, FutexWait::Woken);
        let by_signal = sleep_until(&word, |id| {
            let process = std::process::id();
            // SAFETY: no pointers; the thread sleeps until it gets this signal.
            let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, id, SIGUSR1) };
            assert_eq!(answer, 0);
        });
        assert_eq!(by_signal, FutexWait::Interrupted);
        assert_eq!(DELIVERED.load(Relaxed), 1);
    });
}

fn current_stack() -> libc::stack_t {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: a live structure; null asks only.
    assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) }, 0);
    stack
}

// spec: H21
#[test]
fn a_thread_gets_a_large_alternate_stack_for_as_long_as_it_holds_it() {
    in_thread(|| {
        let before = current_stack();
        assert!(before.ss_size < LARGE_STACK_BYTES, "Rust's own is small");
        let stack = AlternateStack::ensure(0).unwrap();
        assert!(stack.is_new());
        assert_eq!(current_stack().ss_size, LARGE_STACK_BYTES);
        let second = AlternateStack::ensure(LARGE_STACK_BYTES).unwrap();
        assert!(!second.is_new(), "it has one");
        drop(second);
        let larger = AlternateStack::ensure(LARGE_STACK_BYTES + 1).unwrap();
        assert!(larger.is_new() && current_stack().ss_size > LARGE_STACK_BYTES);
        drop(larger);
        assert_eq!(current_stack().ss_size, LARGE_STACK_BYTES);
        drop(stack);
        let after = current_stack();
        assert_eq!((after.ss_sp, after.ss_size, after.ss_flags), (before.ss_sp, before.ss_size, before.ss_flags));
    });
}

// spec: H21
#[test]
fn an_alternate_stack_that_the_program_set_meanwhile_stays() {
    in_thread(|| {
        let stack = AlternateStack::ensure(0).unwrap();
        let theirs = use_stack(32 << 10);
        drop(stack);
        assert_eq!(current_stack().ss_sp.cast(), theirs);
    });
}

// spec: H21
#[test]
fn alternate_stacks_that_go_in_another_order_leave_one_that_is_mapped() {
    child_that_lives(|| {
        in_thread(|| {
            let first = AlternateStack::ensure(0).unwrap();
            let second = AlternateStack::ensure(2 * LARGE_STACK_BYTES).unwrap();
            drop(first);
            drop(second);
            // Were it not there, the signal would find no room, and kill.
            set_action(SIGUSR1, counts as extern "C" fn(i32) as usize, libc::SA_ONSTACK, &[]);
            send(SIGUSR1);
            assert_eq!(DELIVERED.load(Relaxed), 1);
        });
    });
}

#[test]
fn an_alternate_stack_that_cannot_be_mapped_is_refused() {
    in_thread(|| {
        let before = current_stack().ss_sp;
        let refused = AlternateStack::ensure(usize::MAX).unwrap_err();
        assert_eq!(refused, StackError::TooLarge { min_bytes: usize::MAX });
        let refused = AlternateStack::ensure(1 << 62).unwrap_err();
        assert_eq!(refused, StackError::Os { call: "mmap", errno: libc::ENOMEM });
        assert_eq!(current_stack().ss_sp, before);
    });
}
