//! Faults that are not ours go where they would have gone without us.

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed};

use libc::{SIGABRT, SIGBUS, SIGSEGV, SIGUSR1, SIGUSR2, siginfo_t};
use userfault_signal::{
    Disposition, FaultContext, FaultHandler, InstallError, Replaced, Signal, install, is_blocked, still_installed,
};

use crate::child::{block, child, child_that_lives, send, set_action};
use crate::memory::{closed_pages, load, open, store};

/// Wants nothing, and counts what it is shown.
struct NotOurs;
static SHOWN: AtomicUsize = AtomicUsize::new(0);
// SAFETY: one atomic addition.
unsafe impl FaultHandler for NotOurs {
    fn handle(_: &mut FaultContext<'_>) -> Disposition {
        SHOWN.fetch_add(1, Relaxed);
        Disposition::NotOurs
    }
}

/// What a previous handler saw.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(i32::MIN);
static BLOCKED_USR1: AtomicBool = AtomicBool::new(false);
static BLOCKED_USR2: AtomicBool = AtomicBool::new(false);
static BLOCKED_ALARM: AtomicBool = AtomicBool::new(false);
static BLOCKED_SEGV: AtomicBool = AtomicBool::new(false);
/// The page that handlers of one argument open.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

fn note_masks() {
    CALLS.fetch_add(1, Relaxed);
    BLOCKED_USR1.store(is_blocked(SIGUSR1), Relaxed);
    BLOCKED_USR2.store(is_blocked(SIGUSR2), Relaxed);
    BLOCKED_ALARM.store(is_blocked(libc::SIGALRM), Relaxed);
    BLOCKED_SEGV.store(is_blocked(SIGSEGV), Relaxed);
}

extern "C" fn with_information(_: i32, info: *mut siginfo_t, context: *mut c_void) {
    note_masks();
    assert!(!context.is_null());
    // SAFETY: the kernel's information, passed on.
    let info = unsafe { &*info };
    CODE.store(info.si_code, Relaxed);
    // SAFETY: SIGSEGV has an address.
    let address = unsafe { info.si_addr() }.addr();
    ADDRESS.store(address, Relaxed);
    if info.si_code > 0 {
        open(address);
    }
}

extern "C" fn plain(_: i32) {
    note_masks();
    open(CLOSED.load(Relaxed));
}

fn address_of_with_information() -> usize {
    with_information as extern "C" fn(i32, *mut siginfo_t, *mut c_void) as usize
}

fn address_of_plain() -> usize {
    plain as extern "C" fn(i32) as usize
}

fn masks() -> [bool; 4] {
    [&BLOCKED_USR1, &BLOCKED_USR2, &BLOCKED_ALARM, &BLOCKED_SEGV].map(|seen| seen.load(Relaxed))
}

// spec: H26
#[test]
fn a_null_read_dies_by_11_as_without_us() {
    let ended = child(|| {
        install::<NotOurs>(Signal::Segv).unwrap();
        load(0);
    });
    assert_eq!(ended.signal, Some(SIGSEGV), "{ended:?}");
}

// spec: H26
#[test]
fn a_stack_overflow_keeps_rusts_message_and_abort() {
    #[expect(unconditional_recursion, reason = "to overflow the stack")]
    fn deeper(above: &[u8; 512]) -> u8 {
        let here = black_box([above[0]; 512]);
        deeper(&here).wrapping_add(here[511])
    }
    let ended = child(|| {
        install::<NotOurs>(Signal::Segv).unwrap();
        install::<NotOurs>(Signal::Bus).unwrap();
        black_box(deeper(&[1; 512]));
    });
    assert_eq!(ended.signal, Some(SIGABRT), "{ended:?}");
    assert!(ended.output.contains("has overflowed its stack"), "{ended:?}");
}

// spec: H26
#[test]
fn the_default_action_dies_by_the_signal_of_the_fault() {
    let segv = child(|| {
        set_action(SIGSEGV, libc::SIG_DFL, 0, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        store(closed_pages(1), 1);
    });
    assert_eq!(segv.signal, Some(SIGSEGV), "{segv:?}");
}

// spec: H26
#[test]
fn a_page_behind_the_end_of_a_file_dies_by_7() {
    let ended = child(|| {
        set_action(SIGBUS, libc::SIG_DFL, 0, &[]);
        install::<NotOurs>(Signal::Bus).unwrap();
        // SAFETY: a terminated name.
        let file = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
        // SAFETY: the kernel chooses unused addresses.
        let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0) };
        load(page.addr());
    });
    assert_eq!(ended.signal, Some(SIGBUS), "{ended:?}");
}

// spec: H26
#[test]
fn a_fault_of_a_program_that_ignores_sigsegv_dies_by_11() {
    let ended = child(|| {
        set_action(SIGSEGV, libc::SIG_IGN, 0, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        load(closed_pages(1));
    });
    assert_eq!(ended.signal, Some(SIGSEGV), "{ended:?}");
}

// spec: H26
#[test]
fn a_previous_handler_gets_the_same_arguments_under_its_own_mask() {
    child_that_lives(|| {
        set_action(SIGSEGV, address_of_with_information(), libc::SA_SIGINFO, &[SIGUSR1]);
        install::<NotOurs>(Signal::Segv).unwrap();
        block(SIGUSR2);
        let address = closed_pages(1) + 77;
        assert_eq!(load(address), 0);
        assert_eq!((SHOWN.load(Relaxed), CALLS.load(Relaxed)), (1, 1), "shown to us first");
        assert_eq!((ADDRESS.load(Relaxed), CODE.load(Relaxed)), (address, 2), "SEGV_ACCERR");
        let why = "its sa_mask, the interrupted mask, nothing of ours, the signal itself";
        assert_eq!(masks(), [true, true, false, true], "{why}");
        let after = [SIGUSR1, SIGUSR2, SIGSEGV].map(is_blocked);
        assert_eq!(after, [false, true, false], "the interrupted mask is back");
    });
}

/// Wants nothing, after a call that failed.
struct Fails;
// SAFETY: a system call that is refused.
unsafe impl FaultHandler for Fails {
    fn handle(_: &mut FaultContext<'_>) -> Disposition {
        // SAFETY: no descriptor has that number.
        unsafe { libc::close(-1) };
        Disposition::NotOurs
    }
}

fn errno() -> *mut i32 {
    // SAFETY: this thread's, which lives as long as it does.
    unsafe { libc::__errno_location() }
}

extern "C" fn notes_errno(_: i32) {
    // SAFETY: this thread's errno.
    CODE.store(unsafe { errno().read() }, Relaxed);
    open(CLOSED.load(Relaxed));
}

// spec: H26
#[test]
fn a_previous_handler_finds_the_errno_of_the_interrupted_code() {
    child_that_lives(|| {
        CLOSED.store(closed_pages(1), Relaxed);
        set_action(SIGSEGV, notes_errno as extern "C" fn(i32) as usize, 0, &[]);
        install::<Fails>(Signal::Segv).unwrap();
        // SAFETY: this thread's errno.
        unsafe { errno().write(libc::EDOM) };
        assert_eq!(load(CLOSED.load(Relaxed)), 0);
        assert_eq!(CODE.load(Relaxed), libc::EDOM);
    });
}

// spec: H26
#[test]
fn a_previous_handler_of_one_argument_is_called_with_one() {
    child_that_lives(|| {
        CLOSED.store(closed_pages(1), Relaxed);
        set_action(SIGSEGV, address_of_plain(), libc::SA_NODEFER, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        assert_eq!(load(CLOSED.load(Relaxed)), 0);
        assert_eq!(masks(), [false; 4], "SA_NODEFER leaves the signal itself open");
    });
}

// spec: H26
#[test]
fn a_previous_handler_with_resethand_runs_once() {
    let ended = child(|| {
        set_action(SIGSEGV, address_of_with_information(), libc::SA_SIGINFO | libc::SA_RESETHAND, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        let base = closed_pages(2);
        assert_eq!(load(base), 0);
        eprintln!("once");
        load(base + 4096);
        eprintln!("twice");
    });
    assert_eq!(ended.signal, Some(SIGSEGV), "{ended:?}");
    assert!(ended.output.contains("once") && !ended.output.contains("twice"), "{ended:?}");
}

// spec: H26
#[test]
fn a_sent_sigsegv_is_not_shown_to_us_and_does_what_it_did_before() {
    child_that_lives(|| {
        set_action(SIGSEGV, address_of_with_information(), libc::SA_SIGINFO, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        send(SIGSEGV);
        assert_eq!((SHOWN.load(Relaxed), CALLS.load(Relaxed)), (0, 1));
        assert_eq!(CODE.load(Relaxed), libc::SI_TKILL, "as it was sent");
    });
}

// spec: H26
#[test]
fn a_sent_sigsegv_that_is_ignored_stays_ignored() {
    child_that_lives(|| {
        set_action(SIGSEGV, libc::SIG_IGN, 0, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        send(SIGSEGV);
        assert_eq!(still_installed(Signal::Segv), Ok(()));
    });
}

// spec: H26
#[test]
fn a_sent_signal_with_the_default_action_kills_though_no_instruction_repeats() {
    let segv = child(|| {
        set_action(SIGSEGV, libc::SIG_DFL, 0, &[]);
        install::<NotOurs>(Signal::Segv).unwrap();
        send(SIGSEGV);
    });
    assert_eq!(segv.signal, Some(SIGSEGV), "{segv:?}");
}

// spec: H28
#[test]
fn who_replaced_us_is_named() {
    child_that_lives(|| {
        assert_eq!(still_installed(Signal::Segv), Err(Replaced::NeverInstalled(Signal::Segv)));
        install::<NotOurs>(Signal::Segv).unwrap();
        assert_eq!(still_installed(Signal::Segv), Ok(()));
        assert_eq!(still_installed(Signal::Bus), Err(Replaced::NeverInstalled(Signal::Bus)), "one signal only");
        let ours = set_action(SIGSEGV, libc::SIG_DFL, 0, &[]);
        assert_eq!(still_installed(Signal::Segv), Err(Replaced::ByDefault(Signal::Segv)));
        set_action(SIGSEGV, libc::SIG_IGN, 0, &[]);
        assert_eq!(still_installed(Signal::Segv), Err(Replaced::ByIgnore(Signal::Segv)));
        set_action(SIGSEGV, address_of_plain(), 0, &[]);
        let replaced = still_installed(Signal::Segv).unwrap_err();
        let Replaced::ByHandler { address, ref origin, .. } = replaced else { panic!("{replaced}") };
        assert_eq!(address, address_of_plain());
        let program = std::env::current_exe().unwrap();
        let program = program.file_name().unwrap().to_str().unwrap();
        assert!(origin.as_deref().is_some_and(|origin| origin.contains(program)), "{replaced}");
        set_action(SIGSEGV, ours.sa_sigaction, ours.sa_flags, &[]);
        assert_eq!(still_installed(Signal::Segv), Ok(()));
    });
}

/// Opens the page, and notes whether SIGUSR1 was blocked.
struct Answers;
// SAFETY: atomics, and two system calls that are async-signal-safe.
unsafe impl FaultHandler for Answers {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        note_masks();
        open(context.address());
        Disposition::Handled
    }
}

#[test]
fn handlers_are_asked_in_the_order_of_their_installation_until_one_answers() {
    child_that_lives(|| {
        install::<NotOurs>(Signal::Segv).unwrap();
        install::<Answers>(Signal::Segv).unwrap();
        install::<NotOurs>(Signal::Segv).unwrap();
        install::<NotOurs>(Signal::Segv).unwrap();
        assert_eq!(install::<NotOurs>(Signal::Segv), Err(InstallError::Full { places: 4 }));
        assert_eq!(load(closed_pages(1)), 0);
        assert_eq!((SHOWN.load(Relaxed), CALLS.load(Relaxed)), (1, 1));
    });
}

static REPLACED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn passes_on(signal: i32, info: *mut siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(i32, *mut siginfo_t, *mut c_void);
    let ours: *const () = ptr::with_exposed_provenance(REPLACED.load(Relaxed));
    // SAFETY: what `sigaction` said was installed before, with SA_SIGINFO.
    let ours = unsafe { std::mem::transmute::<*const (), Handler>(ours) };
    ours(signal, info, context);
    // The mask of this handler is back: its own, and the signal.
    assert!(!is_blocked(SIGUSR1) && is_blocked(SIGSEGV));
}

// spec: H28
#[test]
fn one_who_replaced_us_and_passes_on_with_signals_open_finds_us_with_signals_blocked() {
    child_that_lives(|| {
        install::<Answers>(Signal::Segv).unwrap();
        let address = passes_on as extern "C" fn(i32, *mut siginfo_t, *mut c_void) as usize;
        let ours = set_action(SIGSEGV, address, libc::SA_SIGINFO | libc::SA_ONSTACK, &[]);
        REPLACED.store(ours.sa_sigaction, Relaxed);
        assert_eq!(load(closed_pages(1)), 0);
        assert_eq!(masks()[..3], [true; 3]);
    });
}
