//! Processors this crate does not know: no fault is ever ours, so every handler chains.

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
