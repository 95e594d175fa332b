//! Jumping out of a signal handler that interrupted a parked fault, as `siglongjmp` does.
//!
//! 1. What is jumped over is assembly and this file's `touch`, which own nothing, and the handlers' frames.
//! 2. The jump goes back to a frame that is still there: of the thread that is running. `JUMP_STACK` is not 0
//!    exactly as long as there is one, and belongs to its thread.
#![expect(unsafe_code, reason = "leaves frames behind; the two invariants above are this file's proof")]

use std::arch::global_asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread;

use userfault_client::{Region as _, Uffd as _, Wait};
use userfault_process::statistics;

use crate::access::load;
use crate::alone::alone;
use crate::os;
use crate::support::{PAGE, fill, map, open, until};

// `call_until_jump(function, argument)` returns 0 when the function does, and 1 when somebody jumps: the
// registers that a call keeps are on its stack, which `stack` points to meanwhile; afterwards it is 0.
global_asm!(
    ".globl userfault_test_call_until_jump",
    "userfault_test_call_until_jump:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdx",
    "mov [rdx], rsp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "xor eax, eax",
    "2:",
    "pop rdx",
    "mov qword ptr [rdx], 0",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".globl userfault_test_jump",
    "userfault_test_jump:",
    "mov rsp, rdi",
    "mov eax, 1",
    "jmp 2b",
);

unsafe extern "C" {
    fn userfault_test_call_until_jump(function: extern "C" fn(usize), argument: usize, stack: *mut usize) -> i32;
    fn userfault_test_jump(stack: usize) -> !;
}

thread_local! {
    static JUMP_STACK: Cell<usize> = const { Cell::new(0) };
}

static THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn touch(address: usize) {
    load(address);
}

/// Jumps back, with neither signal of the tests blocked; nothing where there is no frame to jump to.
pub(crate) extern "C" fn jump(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    let stack = JUMP_STACK.get();
    if stack != 0 {
        os::set_blocked(libc::SIGUSR1, false);
        os::set_blocked(libc::SIGUSR2, false);
        // SAFETY: the frame of `call_until_jump` of this thread (invariants 1 and 2).
        unsafe { userfault_test_jump(stack) };
    }
}

/// Calls `function`, which owns nothing, and says whether [`jump`] has left it.
pub(crate) fn is_left_by_jump(function: extern "C" fn(usize), argument: usize) -> bool {
    // SAFETY: it owns nothing that would be lost (invariant 1).
    JUMP_STACK.with(|stack| unsafe { userfault_test_call_until_jump(function, argument, stack.as_ptr()) == 1 })
}

fn jumps() -> usize {
    std::env::var("USERFAULT_JUMPS").ok().map_or(10_000, |text| text.parse().unwrap())
}

fn jump_again_and_again(stack: usize, flags: i32) {
    let uffd = open();
    let region = map(&uffd, 64);
    os::handle(libc::SIGUSR1, jump, flags);
    let (base, is_over) = (region.base(), AtomicBool::new(false));
    thread::scope(|scope| {
        let jumping = scope.spawn(|| {
            os::use_stack(stack, 0);
            THREAD.store(os::thread_id(), Relaxed);
            let mut jumps = 0;
            while !is_over.load(Relaxed) {
                jumps += usize::from(is_left_by_jump(touch, base + jumps % 63 * PAGE));
            }
            jumps
        });
        let mut events = Vec::with_capacity(64);
        for turn in 0..jumps() {
            events.clear();
            assert_eq!(uffd.read(Wait::Forever, &mut events).unwrap(), 1, "turn {turn}");
            let all = statistics().unwrap();
            assert!(all.slots <= 2 && all.asleep <= 2, "turn {turn}: {all:?}");
            if turn + 1 == jumps() {
                is_over.store(true, Relaxed);
            }
            os::send(THREAD.load(Relaxed), libc::SIGUSR1);
        }
        println!("measured: {} jumps, {:?}", jumping.join().unwrap(), statistics().unwrap());
    });
    // The thread is gone and has left one slot behind; the next of the same thread, or the end, reaps it.
    assert!(statistics().unwrap().slots <= 1);
    (0..64).for_each(|page| fill(&region, page, 1));
    drop((region, uffd));
    until("the last slot is reaped", || statistics().unwrap().asleep == 0);
}

// spec: H29
#[test]
fn jumping_out_of_a_handler_over_a_parked_fault_leaves_no_slots_behind() {
    alone(|| jump_again_and_again(0, 0));
}

// spec: H29
#[test]
fn jumping_out_of_a_handler_on_an_alternate_stack_leaves_no_slots_behind() {
    alone(|| jump_again_and_again(64 << 10, libc::SA_ONSTACK | libc::SA_RESTART));
}
