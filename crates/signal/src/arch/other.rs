//! Processors this crate does not know: no fault is ever ours, so every handler chains.
//!
//! 1. `call_on` only passes on what its caller promises.
#![expect(unsafe_code, reason = "has the signature of the others")]

use std::ffi::c_void;

use libc::ucontext_t;

pub(crate) const fn is_page_trap(_: &ucontext_t) -> bool {
    false
}

pub(crate) const fn is_write(_: &ucontext_t) -> bool {
    false
}

pub(crate) const fn error_code(_: &ucontext_t) -> u64 {
    0
}

pub(crate) const fn instruction_pointer(_: &ucontext_t) -> usize {
    0
}

pub(crate) const fn set_instruction_pointer(_: &mut ucontext_t, _: usize) {}

/// Calls `function(data)`, on this stack.
///
/// # Safety
///
/// `function` may be called with `data`.
pub(crate) unsafe fn call_on(_: *mut c_void, function: extern "C" fn(*mut c_void), data: *mut c_void) {
    function(data);
}
