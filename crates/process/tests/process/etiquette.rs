//! What programs do with signals that makes missing pages crashes: found and named where it can be.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use userfault_client::{AdoptError, Region as _, RegisterModes, Uffd as _, UffdError};
use userfault_process::{accept_handler, check_signals};
use userfault_signal::unblock_faults;

use crate::access::load;
use crate::adopt::Memory;
use crate::alone::{Ended, alone, child};
use crate::os;
use crate::support::{PAGE, Rescue, fill, map, open, read, until_asleep, word};

/// Runs `touch` on a missing page that a monitor fills as soon as it hears of it.
fn answered(touch: impl FnOnce(usize) + Send) {
    let uffd = open();
    let region = map(&uffd, 2);
    thread::scope(|scope| {
        scope.spawn(|| {
            os::set_blocked(libc::SIGUSR1, true);
            let _rescue = Rescue(&region);
            read(&uffd, 1);
            fill(&region, 0, 1);
        });
        touch(region.base());
    });
    assert_eq!(load(region.base()), word(0, 1));
}

static ADDRESS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn touch(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    load(ADDRESS.load(SeqCst));
}

fn touch_in_a_handler(address: usize) {
    ADDRESS.store(address, SeqCst);
    os::send(os::thread_id(), libc::SIGUSR1);
}

fn killed(ended: &Ended) {
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "{ended:?}");
}

// spec: H27
#[test]
fn a_touch_of_a_missing_page_dies_by_11_where_sigsegv_is_blocked() {
    killed(&child(|| {
        answered(|address| {
            os::set_blocked(libc::SIGSEGV, true);
            load(address);
        });
    }));
}

// spec: H27
#[test]
fn a_touch_of_a_missing_page_dies_by_11_in_a_handler_that_masks_every_signal() {
    killed(&child(|| {
        os::handle_with_all_blocked(libc::SIGUSR1, touch);
        answered(touch_in_a_handler);
    }));
}

// spec: H27
#[test]
fn the_same_handler_without_that_mask_is_answered() {
    alone(|| {
        os::handle(libc::SIGUSR1, touch, 0);
        answered(touch_in_a_handler);
    });
}

// spec: H27
#[test]
fn a_thread_that_blocks_sigsegv_is_told_so_when_it_registers_and_how_to_let_it_in() {
    alone(|| {
        let uffd = open();
        os::set_blocked(libc::SIGSEGV, true);
        let refused = uffd.map(1, RegisterModes::MISSING).unwrap_err();
        assert_eq!(refused, UffdError::SignalBlocked);
        assert_eq!(check_signals(), Err(UffdError::SignalBlocked));
        assert!(refused.to_string().contains("unblock"), "{refused}");
        // Each thread has its own mask; a new one inherits.
        assert_eq!(thread::spawn(check_signals).join().unwrap(), Err(UffdError::SignalBlocked));
        assert!(unblock_faults(), "it was blocked");
        assert!(!unblock_faults(), "it is not any more");
        assert_eq!(check_signals(), Ok(()));
        let region = map(&uffd, 1);
        fill(&region, 0, 1);
        assert_eq!(load(region.base()), word(0, 1));
    });
}

fn is_replaced(result: Result<(), UffdError>) -> String {
    match result {
        Err(UffdError::HandlerReplaced { found }) => found,
        other => panic!("{other:?}"),
    }
}

// spec: H28
#[test]
fn who_replaced_the_handler_after_the_open_is_named_at_register_and_wake() {
    alone(|| {
        assert_eq!(check_signals(), Ok(()), "before the first open there is nothing to replace");
        let uffd = open();
        let region = map(&uffd, 2);
        assert_eq!((check_signals(), region.wake(0..1)), (Ok(()), Ok(())));
        // A function of a C library: the loader knows its name and its file.
        let abort = libc::abort as *const () as usize;
        os::set_action(libc::SIGSEGV, abort, 0);
        for result in [uffd.map(1, RegisterModes::MISSING).map(drop), region.wake(0..1), check_signals()] {
            let found = is_replaced(result);
            assert!(["abort", "libc", &format!("{abort:#x}")].iter().all(|part| found.contains(part)), "{found}");
        }
        for (action, word) in [(libc::SIG_DFL, "default"), (libc::SIG_IGN, "ignores")] {
            os::set_action(libc::SIGSEGV, action, 0);
            let found = is_replaced(check_signals());
            assert!(found.contains(word), "{found}");
        }
    });
}

// spec: H27, H28
#[test]
fn memory_is_not_adopted_where_its_faults_would_be_crashes() {
    alone(|| {
        let uffd = open();
        let memory = Memory::map(4);
        memory.write([1, 2], 1);
        os::set_blocked(libc::SIGSEGV, true);
        assert_eq!(memory.adopt(&uffd).err(), Some(AdoptError::Uffd(UffdError::SignalBlocked)));
        os::set_blocked(libc::SIGSEGV, false);
        os::set_action(libc::SIGSEGV, libc::abort as *const () as usize, 0);
        match memory.adopt(&uffd) {
            Err(AdoptError::Uffd(error)) => drop(is_replaced(Err(error))),
            other => panic!("{other:?}"),
        }
        // It is the program's own as before: every word, without a fault.
        for (page, generation) in [0, 1, 1, 0].into_iter().enumerate() {
            memory.check(page, generation);
        }
    });
}

// spec: H28
#[test]
fn a_wake_that_finds_the_handler_replaced_has_woken_its_sleepers() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 1);
        let base = region.base();
        thread::scope(|scope| {
            let sleeping = scope.spawn(move || load(base));
            read(&uffd, 1);
            let copied = region.copy_without_wake(0, &crate::support::contents(0, 1)).unwrap();
            assert_eq!(copied.complete(), Ok(1));
            until_asleep(1);
            os::replace_and_pass_on(libc::SIGSEGV, libc::SA_ONSTACK | libc::SA_NODEFER);
            is_replaced(region.wake(0..1));
            assert_eq!(sleeping.join().unwrap(), word(0, 1));
        });
    });
}

// spec: H28
#[test]
fn a_later_handler_that_calls_the_one_it_replaced_can_be_accepted_until_there_is_another() {
    alone(|| {
        drop(open());
        os::replace_and_pass_on(libc::SIGSEGV, libc::SA_ONSTACK | libc::SA_NODEFER);
        is_replaced(check_signals());
        accept_handler();
        assert_eq!(check_signals(), Ok(()));
        answered(|address| assert_eq!(load(address), word(0, 1)));
        os::set_action(libc::SIGSEGV, libc::abort as *const () as usize, 0);
        is_replaced(check_signals());
    });
}

// spec: H27, H28
#[test]
fn sigsegv_in_the_mask_of_another_thread_or_signal_is_nobodys_business() {
    alone(|| {
        let uffd = open();
        let blocked = thread::spawn(|| {
            os::set_blocked(libc::SIGSEGV, true);
            check_signals()
        });
        assert_eq!(blocked.join().unwrap(), Err(UffdError::SignalBlocked));
        os::set_action(libc::SIGBUS, libc::SIG_IGN, 0);
        assert_eq!(check_signals(), Ok(()));
        let region = map(&uffd, 1);
        fill(&region, 0, 1);
        assert_eq!(load(region.base() + PAGE - 8), word(0, 1));
    });
}
