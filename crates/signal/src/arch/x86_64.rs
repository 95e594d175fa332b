//! x86-64: trap number and error code in the saved general registers.
//!
//! # Source
//!
//! Intel SDM volume 3, "Page-Fault Exception (#PF)"; observed on Linux 6.18 (`spec/host.md`, H23). System V ABI,
//! AMD64 supplement, "Function Calling Sequence".
//!
//! 1. `call_on` keeps what the calling convention wants kept: the stack pointer, in a register that a callee saves.
#![expect(unsafe_code, reason = "changes the stack pointer; the invariant above is this file's proof")]

use std::arch::asm;
use std::ffi::c_void;

use libc::ucontext_t;

/// The number of the page fault exception.
const PAGE_FAULT: i64 = 14;
/// Set in the error code if the access was a write.
const WRITE: i64 = 1 << 1;

const RIP: usize = libc::REG_RIP.cast_unsigned() as usize;
const ERR: usize = libc::REG_ERR.cast_unsigned() as usize;
const TRAPNO: usize = libc::REG_TRAPNO.cast_unsigned() as usize;

/// Whether the last trap of the thread was a page fault. Old news unless the signal is a fault's.
pub(crate) const fn is_page_trap(context: &ucontext_t) -> bool {
    context.uc_mcontext.gregs[TRAPNO] == PAGE_FAULT
}

pub(crate) const fn is_write(context: &ucontext_t) -> bool {
    context.uc_mcontext.gregs[ERR] & WRITE != 0
}

pub(crate) const fn error_code(context: &ucontext_t) -> u64 {
    context.uc_mcontext.gregs[ERR].cast_unsigned()
}

pub(crate) const fn instruction_pointer(context: &ucontext_t) -> usize {
    usize::from_ne_bytes(context.uc_mcontext.gregs[RIP].to_ne_bytes())
}

pub(crate) const fn set_instruction_pointer(context: &mut ucontext_t, address: usize) {
    context.uc_mcontext.gregs[RIP] = i64::from_ne_bytes(address.to_ne_bytes());
}

/// Calls `function(data)` on the stack that ends at `top`.
///
/// # Safety
///
/// The stack is mapped, large enough and used by nothing else; `function` may be called with `data`.
pub(crate) unsafe fn call_on(top: *mut c_void, function: extern "C" fn(*mut c_void), data: *mut c_void) {
    // SAFETY: invariant 1, and what the caller promises. `top` is a multiple of 16, as a call wants it.
    unsafe {
        asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {function}",
            "mov rsp, r12",
            top = in(reg) top,
            function = in(reg) function,
            in("rdi") data,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}
