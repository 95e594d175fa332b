//! A SIGBUS of our own making.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use libc::{SIGBUS, siginfo_t, ucontext_t};
use userfault_signal::{Disposition, FaultContext, FaultHandler, Signal, install};

use crate::child::{block, child, child_that_lives, set_action};
use crate::memory::{closed_pages, last_instruction, load, open};

static RAISED: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static POINTER: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

/// Answers every fault with a bus error.
struct Poisoned;
// SAFETY: atomics and system calls that are async-signal-safe.
unsafe impl FaultHandler for Poisoned {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        RAISED.fetch_add(1, Relaxed);
        context.raise_bus_error(context.address());
        Disposition::Handled
    }
}

extern "C" fn program(_: i32, info: *mut siginfo_t, context: *mut c_void) {
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the kernel's information.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info.si_addr() }.addr();
    CODE.store(info.si_code, Relaxed);
    ADDRESS.store(address, Relaxed);
    // SAFETY: the kernel's context.
    let context = unsafe { &*context.cast::<ucontext_t>() };
    let pointer = context.uc_mcontext.gregs[usize::try_from(libc::REG_RIP).unwrap()];
    POINTER.store(usize::try_from(pointer).unwrap(), Relaxed);
    open(address);
}

fn program_handles_sigbus() {
    let handler = program as extern "C" fn(i32, *mut siginfo_t, *mut c_void) as usize;
    set_action(SIGBUS, handler, libc::SA_SIGINFO | libc::SA_ONSTACK, &[]);
}

fn assert_delivered_at(address: usize) {
    assert_eq!((RAISED.load(Relaxed), CALLS.load(Relaxed)), (1, 1), "before the instruction repeats");
    assert_eq!((ADDRESS.load(Relaxed), CODE.load(Relaxed)), (address, libc::BUS_ADRERR));
    assert_eq!(POINTER.load(Relaxed), last_instruction());
}

// spec: H33
#[test]
fn a_bus_error_has_the_exact_address_and_comes_before_the_instruction_repeats() {
    child_that_lives(|| {
        install::<Poisoned>(Signal::Segv).unwrap();
        program_handles_sigbus();
        let address = closed_pages(1) + 123;
        assert_eq!(load(address), 0);
        assert_delivered_at(address);
    });
}

/// Wants no SIGBUS.
struct NotOurs;
// SAFETY: does nothing.
unsafe impl FaultHandler for NotOurs {
    fn handle(_: &mut FaultContext<'_>) -> Disposition {
        Disposition::NotOurs
    }
}

// spec: H33
#[test]
fn a_bus_error_passes_through_our_own_sigbus_handler_to_the_programs() {
    child_that_lives(|| {
        program_handles_sigbus();
        install::<NotOurs>(Signal::Bus).unwrap();
        install::<Poisoned>(Signal::Segv).unwrap();
        let address = closed_pages(1) + 4095;
        assert_eq!(load(address), 0);
        assert_delivered_at(address);
    });
}

static REPLACED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn passes_on(signal: i32, info: *mut siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(i32, *mut siginfo_t, *mut c_void);
    let ours: *const () = std::ptr::with_exposed_provenance(REPLACED.load(Relaxed));
    // SAFETY: what `sigaction` said was installed before, with SA_SIGINFO.
    let ours = unsafe { std::mem::transmute::<*const (), Handler>(ours) };
    ours(signal, info, context);
}

// spec: H33
#[test]
fn a_bus_error_waits_for_the_end_of_a_handler_that_replaced_us_and_passes_on() {
    child_that_lives(|| {
        install::<Poisoned>(Signal::Segv).unwrap();
        program_handles_sigbus();
        let handler = passes_on as extern "C" fn(i32, *mut siginfo_t, *mut c_void) as usize;
        let ours = set_action(libc::SIGSEGV, handler, libc::SA_SIGINFO | libc::SA_ONSTACK, &[]);
        REPLACED.store(ours.sa_sigaction, Relaxed);
        let address = closed_pages(1) + 7;
        assert_eq!(load(address), 0);
        assert_delivered_at(address);
    });
}

// spec: H33
#[test]
fn a_bus_error_of_code_that_blocks_sigbus_dies_by_7() {
    let ended = child(|| {
        install::<Poisoned>(Signal::Segv).unwrap();
        program_handles_sigbus();
        block(SIGBUS);
        load(closed_pages(1));
    });
    assert_eq!(ended.signal, Some(SIGBUS), "{ended:?}");
}

// spec: H33
#[test]
fn a_bus_error_of_a_program_that_ignores_sigbus_dies_by_7() {
    let ended = child(|| {
        install::<Poisoned>(Signal::Segv).unwrap();
        set_action(SIGBUS, libc::SIG_IGN, 0, &[]);
        load(closed_pages(1));
    });
    assert_eq!(ended.signal, Some(SIGBUS), "{ended:?}");
}

// spec: H33
#[test]
fn a_bus_error_of_a_program_that_ignored_sigbus_before_us_dies_by_7() {
    let ended = child(|| {
        set_action(SIGBUS, libc::SIG_IGN, 0, &[]);
        install::<NotOurs>(Signal::Bus).unwrap();
        install::<Poisoned>(Signal::Segv).unwrap();
        load(closed_pages(1));
    });
    assert_eq!(ended.signal, Some(SIGBUS), "{ended:?}");
}

// spec: H33
#[test]
fn a_bus_error_with_the_default_action_dies_by_7() {
    let ended = child(|| {
        install::<Poisoned>(Signal::Segv).unwrap();
        set_action(SIGBUS, libc::SIG_DFL, 0, &[]);
        load(closed_pages(1));
    });
    assert_eq!(ended.signal, Some(SIGBUS), "{ended:?}");
}
