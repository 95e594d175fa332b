//! What of a fault is written in registers. One file per processor, chosen here and nowhere else.

#[cfg(not(target_arch = "x86_64"))]
mod other;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use other::{call_on, error_code, instruction_pointer, is_page_trap, is_write, set_instruction_pointer};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{call_on, error_code, instruction_pointer, is_page_trap, is_write, set_instruction_pointer};
