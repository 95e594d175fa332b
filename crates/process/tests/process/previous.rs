//! Faults that are none of ours, with regions registered.

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use userfault_client::Region as _;
use userfault_process::Region;

use crate::access::{load, store};
use crate::alone::{Ended, alone, child};
use crate::os;
use crate::support::{CHUNK, fill, map, open, scatter};

/// A region in use, and then a fault elsewhere.
fn busy() -> Region {
    let uffd = open();
    let region = map(&uffd, CHUNK);
    scatter(&region, 0..20, 1);
    fill(&region, 100, 1);
    load(region.base());
    region
}

fn died_by(ended: &Ended, signal: i32) {
    assert_eq!(ended.signal, Some(signal), "{ended:?}");
}

// spec: H26
#[test]
fn a_strangers_fault_dies_by_the_default_action() {
    died_by(
        &child(|| {
            os::set_action(libc::SIGSEGV, libc::SIG_DFL, 0);
            let _region = busy();
            store(16, 1);
        }),
        libc::SIGSEGV,
    );
}

// spec: H26
#[test]
fn a_strangers_fault_dies_where_the_program_ignores_it() {
    died_by(
        &child(|| {
            os::set_action(libc::SIGSEGV, libc::SIG_IGN, 0);
            let _region = busy();
            store(16, 1);
        }),
        libc::SIGSEGV,
    );
}

extern "C" fn exit_with_the_address(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let code = if os::instruction_of(context) != 0 { os::address_of(info) } else { 1 };
    std::process::exit(i32::try_from(code).unwrap_or(2));
}

// spec: H26
#[test]
fn a_strangers_fault_reaches_the_handler_that_was_there_with_its_arguments() {
    let ended = child(|| {
        os::handle(libc::SIGSEGV, exit_with_the_address, 0);
        let _region = busy();
        store(77, 1);
    });
    assert_eq!(ended.code, Some(77), "{ended:?}");
}

extern "C" fn exit_with_the_signal(signal: i32) {
    std::process::exit(100 + signal);
}

// spec: H26
#[test]
fn a_strangers_fault_reaches_a_handler_of_the_old_kind() {
    let ended = child(|| {
        os::set_action(libc::SIGSEGV, exit_with_the_signal as *const () as usize, libc::SA_RESETHAND);
        let _region = busy();
        store(77, 1);
    });
    assert_eq!(ended.code, Some(111), "{ended:?}");
}

fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if black_box(depth) == u64::MAX { 0 } else { overflow(depth + 1) + frame[7] }
}

// spec: H26
#[test]
fn an_overflow_of_the_stack_still_ends_with_the_message_of_the_standard_library() {
    let ended = child(|| {
        let _region = busy();
        black_box(overflow(0));
    });
    died_by(&ended, libc::SIGABRT);
    assert!(ended.output.contains("has overflowed its stack"), "{ended:?}");
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn pass_on(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    CALLS.fetch_add(1, Relaxed);
    let _ = info;
    // Past a load of eight bytes through a register: 3 bytes.
    os::continue_at(context, os::instruction_of(context) + 3);
}

// spec: H26
#[test]
fn after_the_last_close_the_handler_only_chains() {
    alone(|| {
        os::handle(libc::SIGSEGV, pass_on, libc::SA_NODEFER);
        let region = busy();
        let stale = region.base() + 2 * 4096;
        drop(region);
        load(stale);
        load(8);
        assert_eq!(CALLS.load(Relaxed), 2);
    });
}
