//! One load, store or atomic addition whose bus error or segmentation fault is a result.
//!
//! 1. Each routine accesses memory in its first instruction only, before it has touched the stack. So
//!    when that instruction faults, returning from the routine at once is what a call that did nothing
//!    would do.
//! 2. The handler changes the interrupted thread only if it was at one of these instructions; it sets
//!    the two result registers and continues at `leave`, which returns to the routine's caller.
//! 3. The handler touches nothing but its arguments and atomics: it is async-signal-safe.
//! 4. The address belongs to the tests (`sys`, invariant 1): no Rust value lies there.
//!
//! Kernel counterpart: the exception table of `get_user`.

#![expect(
    unsafe_code,
    reason = "accesses that may fault, and the handler that makes a result of it; invariants 1 to 4"
)]

use std::arch::naked_asm;
use std::ptr;
use std::sync::Once;

/// What came of an access; in RAX and RDX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Access {
    /// The value, or the address of the fault.
    pub value: u64,
    /// 0, or the signal, and its code in the upper half.
    pub signal: u64,
}

#[unsafe(naked)]
extern "C" fn load_at(address: u64) -> Access {
    naked_asm!("mov rax, [rdi]", "xor edx, edx", "ret")
}

#[unsafe(naked)]
extern "C" fn store_at(address: u64, value: u64) -> Access {
    naked_asm!("mov [rdi], rsi", "xor eax, eax", "xor edx, edx", "ret")
}

#[unsafe(naked)]
extern "C" fn add_at(address: u64, value: u64) -> Access {
    naked_asm!("lock xadd [rdi], rsi", "mov rax, rsi", "xor edx, edx", "ret")
}

#[unsafe(naked)]
extern "C" fn leave() {
    naked_asm!("ret")
}

/// Loads eight bytes.
#[must_use]
pub fn load(address: u64) -> Access {
    load_at(address)
}

/// Stores eight bytes.
#[must_use]
pub fn store(address: u64, value: u64) -> Access {
    store_at(address, value)
}

/// Adds to eight bytes at once; the old value is the result.
#[must_use]
pub fn add(address: u64, value: u64) -> Access {
    add_at(address, value)
}

/// Installs the handlers; again is harmless. Whoever installs others on top has to chain to them.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            handle(signal, handler as *const () as usize, libc::SA_NODEFER);
        }
        handle(libc::SIGUSR1, nothing as *const () as usize, 0);
    });
}

fn handle(signal: i32, handler: usize, flags: i32) {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // Not on the alternate stack: the one that std gives each thread is too small for nested frames.
    action.sa_flags = libc::SA_SIGINFO | flags;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and keeps to invariant 3.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction");
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes the interrupted context, which is ours until we return.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let at = usize::try_from(registers[register(libc::REG_RIP)]).unwrap_or(0);
    let ours = [load_at as *const () as usize, store_at as *const () as usize, add_at as *const () as usize];
    if !ours.contains(&at) {
        // Not a tested access: let the default action tell of it.
        // SAFETY: takes numbers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel fills in the siginfo of a synchronous signal.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS have an address.
    let address = unsafe { info.si_addr() };
    registers[register(libc::REG_RAX)] = (address as usize).cast_signed() as i64;
    registers[register(libc::REG_RDX)] = i64::from(signal) | (i64::from(info.si_code) << 32);
    registers[register(libc::REG_RIP)] = (leave as *const () as usize).cast_signed() as i64;
}

fn register(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}
