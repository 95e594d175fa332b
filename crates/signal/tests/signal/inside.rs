//! Inside a handler: what the fault says, what is blocked, how much stack there is.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;

use libc::{SIGSEGV, SIGUSR1, SIGUSR2};
use userfault_signal::{
    AlternateStack, Disposition, FaultContext, FaultHandler, FutexWait, Signal, futex_wake, install, is_blocked,
};

use crate::child::{block, child_that_lives, send, set_action};
use crate::memory::{BEHIND, PAGE, closed_pages, last_instruction, load, open, protect, store, use_stack};

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static POINTER: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static IS_WRITE: AtomicBool = AtomicBool::new(false);

fn note(context: &FaultContext<'_>) {
    FAULTS.fetch_add(1, Relaxed);
    ADDRESS.store(context.address(), Relaxed);
    POINTER.store(context.instruction_pointer(), Relaxed);
    CODE.store(context.code(), Relaxed);
    IS_WRITE.store(context.is_write(), Relaxed);
}

/// Notes what it sees and opens the page; skips the instruction where there is no page.
struct Notes;
// SAFETY: atomics and one system call.
unsafe impl FaultHandler for Notes {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        if !context.is_page_fault() {
            return Disposition::NotOurs;
        }
        note(context);
        if context.code() == 2 {
            open(context.address());
        } else {
            // SAFETY: `load` may be skipped: its result is set before the instruction.
            unsafe { context.set_instruction_pointer(BEHIND.load(Relaxed)) };
        }
        // What a careless handler does.
        // SAFETY: this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { errno.write(libc::EXDEV) };
        Disposition::Handled
    }
}

// spec: H23
#[test]
fn a_fault_says_address_kind_and_instruction() {
    child_that_lives(|| {
        install::<Notes>(Signal::Segv).unwrap();
        let base = closed_pages(3);
        protect(base + 2 * PAGE, libc::PROT_READ);
        // Where nothing is: a whole mapping taken away again.
        let hole = 8;
        let cases = [
            ("read without access", base + 5, false, 2),
            ("write without access", base + PAGE + 4095, true, 2),
            ("write to read-only", base + 2 * PAGE, true, 2),
            ("read where nothing is", hole, false, 1),
        ];
        for (why, address, is_write, code) in cases {
            if is_write {
                store(address, 9);
                assert_eq!(load(address), 9, "{why}: the instruction repeated");
            } else {
                let expected = if code == 1 { 0x55 } else { 0 };
                assert_eq!(load(address), expected, "{why}: repeated, or skipped");
            }
            assert_eq!(ADDRESS.load(Relaxed), address, "{why}");
            assert_eq!((IS_WRITE.load(Relaxed), CODE.load(Relaxed)), (is_write, code), "{why}");
        }
        assert_eq!(FAULTS.load(Relaxed), 4, "one each");
        load(base + 2 * PAGE);
        load(hole);
        assert_eq!(POINTER.load(Relaxed), last_instruction());
    });
}

// spec: H22
#[test]
fn errno_survives_a_fault() {
    child_that_lives(|| {
        install::<Notes>(Signal::Segv).unwrap();
        let address = closed_pages(1);
        // SAFETY: this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { errno.write(libc::EDOM) };
        load(address);
        // SAFETY: as above.
        assert_eq!(unsafe { errno.read() }, libc::EDOM);
        assert_eq!(FAULTS.load(Relaxed), 1);
    });
}

// spec: H23
#[test]
fn an_address_that_no_table_can_hold_is_not_a_page_fault() {
    let ended = crate::child::child(|| {
        set_action(SIGSEGV, libc::SIG_DFL, 0, &[]);
        install::<Notes>(Signal::Segv).unwrap();
        // Leaves trap 14 in the thread's state: the next trap is another.
        load(closed_pages(1));
        load(0x8000_0000_0000_0000);
    });
    assert_eq!(ended.signal, Some(SIGSEGV), "{ended:?}");
}

extern "C" fn counts(_: i32) {
    DELIVERED.fetch_add(1, Relaxed);
}

// spec: H23
#[test]
fn a_signal_that_the_kernel_forces_for_another_reason_is_not_a_page_fault() {
    /// `SI_KERNEL`: a bad frame, for one. Its trap number is that of the thread's last fault.
    const FORCED: i32 = 0x80;
    child_that_lives(|| {
        set_action(SIGSEGV, counts as extern "C" fn(i32) as usize, 0, &[]);
        install::<Notes>(Signal::Segv).unwrap();
        load(closed_pages(1));
        // SAFETY: integers: zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_code = FORCED;
        let process = std::process::id();
        // SAFETY: no pointers.
        let thread = unsafe { libc::gettid() };
        let call = libc::SYS_rt_tgsigqueueinfo;
        // SAFETY: a live structure.
        let answer = unsafe { libc::syscall(call, process, thread, SIGSEGV, &raw const info) };
        assert_eq!(answer, 0);
        assert_eq!((FAULTS.load(Relaxed), DELIVERED.load(Relaxed)), (1, 1));
    });
}

static DEPTH: AtomicUsize = AtomicUsize::new(0);
static DEEPEST: AtomicUsize = AtomicUsize::new(0);

/// Touches the next page before it opens its own, three deep.
struct Nests;
// SAFETY: atomics and one system call; its faults come back here, three times.
unsafe impl FaultHandler for Nests {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        let address = context.address();
        let depth = DEPTH.fetch_add(1, Relaxed) + 1;
        DEEPEST.fetch_max(depth, Relaxed);
        if depth < 3 {
            load(address + PAGE);
        }
        open(address);
        DEPTH.fetch_sub(1, Relaxed);
        Disposition::Handled
    }
}

// spec: H21
#[test]
fn a_fault_inside_the_handler_is_handled_three_deep() {
    child_that_lives(|| {
        install::<Nests>(Signal::Segv).unwrap();
        let _stack = AlternateStack::ensure(0).unwrap();
        assert_eq!(load(closed_pages(3)), 0);
        assert_eq!((DEEPEST.load(Relaxed), DEPTH.load(Relaxed)), (3, 0));
    });
}

static DELIVERED: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(9);
static PARKED: AtomicUsize = AtomicUsize::new(9);
static AFTER: AtomicBool = AtomicBool::new(false);
static SIZE: AtomicUsize = AtomicUsize::new(9);
static ON_STACK: AtomicBool = AtomicBool::new(false);
/// A page that the SIGUSR1 handler touches.
static SECOND: AtomicUsize = AtomicUsize::new(0);

extern "C" fn touches(_: i32) {
    load(SECOND.load(Relaxed));
    DELIVERED.fetch_add(1, Relaxed);
}

/// Sends SIGUSR1 to itself and looks when it comes.
struct Parks;
// SAFETY: atomics and system calls that are async-signal-safe; the fault of `touches` is answered at once.
unsafe impl FaultHandler for Parks {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        if context.address() != SECOND.load(Relaxed) {
            SIZE.store(context.alternate_stack_size().unwrap_or(0), Relaxed);
            ON_STACK.store(context.on_alternate_stack(), Relaxed);
            send(SIGUSR1);
            BEFORE.store(DELIVERED.load(Relaxed), Relaxed);
            PARKED.store(context.signals_blocked_mut().while_unblocked(|| DELIVERED.load(Relaxed)), Relaxed);
            AFTER.store(is_blocked(SIGUSR1), Relaxed);
        }
        open(context.address());
        Disposition::Handled
    }
}

// spec: H21
#[test]
fn signals_come_in_while_parked_where_the_stack_has_room_and_else_after_the_answer() {
    child_that_lives(|| {
        install::<Parks>(Signal::Segv).unwrap();
        let handler = touches as extern "C" fn(i32) as usize;
        set_action(SIGUSR1, handler, libc::SA_ONSTACK, &[]);
        let cases = [
            ("no alternate stack", 0, 1),
            ("Rust's own", 8 << 10, 0),
            ("large for some", 16 << 10, 0),
            ("one byte too small", (64 << 10) - 1, 0),
            ("large", 64 << 10, 1),
        ];
        for (why, size, while_parked) in cases {
            let base = closed_pages(2);
            SECOND.store(base + PAGE, Relaxed);
            DELIVERED.store(0, Relaxed);
            use_stack(size);
            load(base);
            assert_eq!(SIZE.load(Relaxed), size, "{why}");
            assert_eq!(ON_STACK.load(Relaxed), size != 0, "{why}");
            assert_eq!(BEFORE.load(Relaxed), 0, "{why}: blocked in the handler");
            assert_eq!(PARKED.load(Relaxed), while_parked, "{why}");
            assert!(AFTER.load(Relaxed), "{why}: blocked again");
            assert_eq!(DELIVERED.load(Relaxed), 1, "{why}: delivered in the end");
        }
    });
}

/// What it sleeps on.
static WORD: AtomicU32 = AtomicU32::new(0);
/// Sent to itself before it sleeps.
static SENT: AtomicI32 = AtomicI32::new(0);
/// Whether the sleep was interrupted.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Sleeps on `WORD`, after it has sent itself a signal.
struct Sleeps;
// SAFETY: atomics and system calls that are async-signal-safe.
unsafe impl FaultHandler for Sleeps {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        send(SENT.load(Relaxed));
        let ended = context.signals_blocked_mut().sleep_on(&WORD, 0);
        INTERRUPTED.store(ended == FutexWait::Interrupted, Relaxed);
        PARKED.store(DELIVERED.load(Relaxed), Relaxed);
        open(context.address());
        Disposition::Handled
    }
}

// spec: H21
#[test]
fn a_signal_ends_a_sleep_on_a_small_stack_if_the_interrupted_code_lets_it_in() {
    child_that_lives(|| {
        install::<Sleeps>(Signal::Segv).unwrap();
        for signal in [SIGUSR1, SIGUSR2] {
            set_action(signal, counts as extern "C" fn(i32) as usize, libc::SA_ONSTACK | libc::SA_RESTART, &[]);
        }
        block(SIGUSR2);
        for size in [8 << 10, (64 << 10) - 1] {
            use_stack(size);
            SENT.store(SIGUSR1, Relaxed);
            DELIVERED.store(0, Relaxed);
            load(closed_pages(1));
            assert!(INTERRUPTED.load(Relaxed), "{size}");
            assert_eq!(PARKED.load(Relaxed), 0, "{size}: there is no room");
            assert_eq!(DELIVERED.load(Relaxed), 1, "{size}: it comes when the handler has returned");
            // One that the interrupted code blocks does not end it; a wake does.
            SENT.store(SIGUSR2, Relaxed);
            let waker = thread::spawn(|| while futex_wake(&WORD, 1) == 0 {});
            load(closed_pages(1));
            waker.join().unwrap();
            assert!(!INTERRUPTED.load(Relaxed), "{size}");
            assert_eq!(DELIVERED.load(Relaxed), 1, "{size}");
        }
    });
}

/// A byte of the whole of a page's neighbours.
static NEIGHBOUR: AtomicUsize = AtomicUsize::new(0);
static SUM: AtomicUsize = AtomicUsize::new(0);

/// More than a small alternate stack has, and a fault in the middle of it that needs as much.
#[inline(never)]
fn work(context: &FaultContext<'_>) -> usize {
    let mut bytes = std::hint::black_box([1_u8; 20 << 10]);
    if context.address() != NEIGHBOUR.load(Relaxed) {
        bytes[0] = load(NEIGHBOUR.load(Relaxed)) + 1;
        protect(NEIGHBOUR.load(Relaxed), libc::PROT_NONE);
    }
    std::hint::black_box(&bytes).iter().map(|byte| usize::from(*byte)).sum()
}

struct Roomy;
// SAFETY: atomics, arithmetic and system calls.
unsafe impl FaultHandler for Roomy {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        let size = context.alternate_stack_size();
        let sum = context.with_room(|context| work(context));
        SUM.store(sum, Relaxed);
        SIZE.store(size.unwrap_or(0), Relaxed);
        open(context.address());
        Disposition::Handled
    }
}

// spec: H21, H22
#[test]
fn work_has_room_on_every_stack_and_a_fault_in_it_harms_nobody() {
    child_that_lives(|| {
        install::<Roomy>(Signal::Segv).unwrap();
        NEIGHBOUR.store(closed_pages(1), Relaxed);
        for size in [0, 8 << 10, 16 << 10, 128 << 10] {
            use_stack(size);
            for _ in 0..3 {
                load(closed_pages(1));
                assert_eq!((SUM.load(Relaxed), SIZE.load(Relaxed)), (20 << 10, size));
            }
        }
    });
}

/// Takes its time.
struct Slow;
// SAFETY: system calls and arithmetic.
unsafe impl FaultHandler for Slow {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        context.with_room(|_| {
            let bytes = std::hint::black_box([1_u8; 32 << 10]);
            (0..10).for_each(|_| std::thread::yield_now());
            FAULTS.fetch_add(std::hint::black_box(&bytes).iter().map(|byte| usize::from(*byte)).sum(), Relaxed);
        });
        open(context.address());
        Disposition::Handled
    }
}

// spec: H22
#[test]
fn more_threads_than_there_are_stacks_to_borrow_take_turns() {
    const THREADS: usize = 200;
    child_that_lives(|| {
        install::<Slow>(Signal::Segv).unwrap();
        let fault_on = || {
            use_stack(8 << 10);
            (0..10).for_each(|_| assert_eq!(load(closed_pages(1)), 0));
        };
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(fault_on))));
        assert_eq!(FAULTS.load(Relaxed), THREADS * 10 * (32 << 10));
    });
}

/// The lowest byte of the handler's own frames, by painting.
static LOWEST: AtomicUsize = AtomicUsize::new(0);

/// Says where the kernel's frame begins.
struct Shallow;
// SAFETY: atomics and one system call.
unsafe impl FaultHandler for Shallow {
    fn handle(context: &mut FaultContext<'_>) -> Disposition {
        let here = 0_u8;
        LOWEST.store((&raw const here).addr(), Relaxed);
        open(context.address());
        context.signals_blocked_mut().while_unblocked(|| ());
        Disposition::Handled
    }
}

// spec: H22
#[test]
fn the_handler_around_an_answer_needs_less_than_a_kibibyte_of_stack() {
    const PAINT: u8 = 0xA5;
    const SIZE: usize = 64 << 10;
    child_that_lives(|| {
        install::<Shallow>(Signal::Segv).unwrap();
        let start = use_stack(SIZE);
        // SAFETY: the stack of `use_stack`, on which no handler runs.
        unsafe { start.write_bytes(PAINT, SIZE) };
        load(closed_pages(1));
        // SAFETY: as above.
        let stack = unsafe { std::slice::from_raw_parts(start, SIZE) };
        let untouched = stack.iter().take_while(|byte| **byte == PAINT).count();
        // SAFETY: `getauxval` takes no pointers.
        let frame = usize::try_from(unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) }).unwrap();
        let used = SIZE - untouched;
        assert!(LOWEST.load(Relaxed) > start.addr() && used > 512, "it ran there: {used}");
        // Frame alignment of the kernel is in the 128.
        assert!(used < frame + 1024 + 128, "{used} bytes, {frame} of them the kernel's");
    });
}
