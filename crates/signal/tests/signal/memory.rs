//! Pages that fault, and accesses to them by known instructions.

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const PAGE: usize = 4096;

/// Maps `pages` that cannot be touched.
pub(crate) fn closed_pages(pages: usize) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses unused addresses.
    let base = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED);
    base.addr()
}

/// Changes what the page around `address` allows. Async-signal-safe.
pub(crate) fn protect(address: usize, protection: i32) {
    let page = ptr::without_provenance_mut(address & !(PAGE - 1));
    // SAFETY: pages of `closed_pages`, which no Rust object lives in.
    unsafe { libc::mprotect(page, PAGE, protection) };
}

pub(crate) fn open(address: usize) {
    protect(address, libc::PROT_READ | libc::PROT_WRITE);
}

/// The instruction of the last [`load`] or [`store`], and the one behind it.
pub(crate) static INSTRUCTION: AtomicUsize = AtomicUsize::new(0);
pub(crate) static BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Loads one byte; 0x55 if the instruction was skipped.
pub(crate) fn load(address: usize) -> u8 {
    let value: u8;
    // SAFETY: a load that faults, or from memory that no Rust object lives in.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{at}], {scratch}",
            "lea {scratch}, [rip + 3f]",
            "mov [{behind}], {scratch}",
            "mov {value}, 0x55",
            "2:",
            "mov {value}, byte ptr [{address}]",
            "3:",
            scratch = out(reg) _,
            at = in(reg) INSTRUCTION.as_ptr(),
            behind = in(reg) BEHIND.as_ptr(),
            address = in(reg) address,
            value = out(reg_byte) value,
        );
    }
    value
}

/// Stores one byte.
pub(crate) fn store(address: usize, value: u8) {
    // SAFETY: a store that faults, or to memory that no Rust object lives in.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{at}], {scratch}",
            "2:",
            "mov byte ptr [{address}], {value}",
            scratch = out(reg) _,
            at = in(reg) INSTRUCTION.as_ptr(),
            address = in(reg) address,
            value = in(reg_byte) value,
        );
    }
}

pub(crate) fn last_instruction() -> usize {
    INSTRUCTION.load(Relaxed)
}

/// Gives this thread an alternate stack of `size` bytes from memory that is never freed, or none for 0.
/// Returns its first byte.
pub(crate) fn use_stack(size: usize) -> *mut u8 {
    let memory = Box::leak(vec![0_u8; size].into_boxed_slice()).as_mut_ptr();
    let flags = if size == 0 { libc::SS_DISABLE } else { 0 };
    let stack = libc::stack_t { ss_sp: memory.cast(), ss_flags: flags, ss_size: size };
    // SAFETY: a live structure; the memory is leaked, and nobody else has it.
    let answer = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
    assert_eq!(answer, 0);
    memory
}
