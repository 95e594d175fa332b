//! Accesses to memory by address, by known instructions.
//!
//! 1. Addresses lie in regions or mappings that the test keeps; what is there may change at any time, so
//!    accesses are volatile or assembly, and no reference is made.
#![expect(unsafe_code, reason = "accesses to raw memory; the invariant above is this file's proof")]

use std::arch::asm;
use std::ptr;

/// Reads a word that other threads may change.
pub(crate) fn load(address: usize) -> u64 {
    let value: u64;
    // SAFETY: invariant 1.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags, readonly)) };
    value
}

/// Writes a word.
pub(crate) fn store(address: usize, value: u64) {
    // SAFETY: invariant 1.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack, preserves_flags)) };
}

pub(crate) fn load_byte(address: usize) -> u8 {
    // SAFETY: invariant 1.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

pub(crate) fn store_byte(address: usize, value: u8) {
    // SAFETY: invariant 1.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(value) };
}

/// Adds in one locked instruction, and returns what was there.
pub(crate) fn add(address: usize, value: u64) -> u64 {
    let mut old = value;
    // SAFETY: invariant 1.
    unsafe { asm!("lock xadd [{}], {}", in(reg) address, inout(reg) old, options(nostack)) };
    old
}

/// A compare-exchange of a byte; what was there. A failing one writes what it read.
pub(crate) fn compare_exchange(address: usize, expected: u8, new: u8) -> u8 {
    let mut seen = expected;
    // SAFETY: invariant 1.
    unsafe {
        asm!("lock cmpxchg [{}], {}", in(reg) address, in(reg_byte) new, inout("al") seen, options(nostack));
    }
    seen
}

/// Adds to a 32-bit integer that need not be aligned.
pub(crate) fn add_split(address: usize, value: u32) -> u32 {
    let mut old = value;
    // SAFETY: invariant 1.
    unsafe { asm!("lock xadd [{}], {:e}", in(reg) address, inout(reg) old, options(nostack)) };
    old
}

/// Copies by one `rep movsb`.
pub(crate) fn move_bytes(from: usize, to: usize, len: usize) {
    // SAFETY: invariant 1.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}

/// Copies a word by one instruction, which needs all of its pages at once.
pub(crate) fn move_word(from: usize, to: usize) {
    // SAFETY: invariant 1.
    unsafe { asm!("movsq", inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags)) };
}

/// 32 bytes by one load.
pub(crate) fn load_vector(address: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    let target: *mut [u8; 32] = &raw mut bytes;
    // SAFETY: invariant 1; the target is a live array.
    unsafe {
        asm!("vmovdqu ymm0, [{}]", "vmovdqu [{}], ymm0", in(reg) address, in(reg) target, out("ymm0") _,
            options(nostack, preserves_flags));
    }
    bytes
}

/// Eight 32-bit words at these distances from `base`, by one instruction.
pub(crate) fn gather(base: usize, offsets: &[i32; 8]) -> [u32; 8] {
    let mut words = [0; 8];
    let target: *mut [u32; 8] = &raw mut words;
    // SAFETY: invariant 1; the offsets and the target are live arrays.
    unsafe {
        asm!(
            "vmovdqu ymm1, [{offsets}]",
            "vpcmpeqd ymm2, ymm2, ymm2",
            "vpxor ymm0, ymm0, ymm0",
            "vpgatherdd ymm0, [{base} + ymm1], ymm2",
            "vmovdqu [{target}], ymm0",
            base = in(reg) base,
            offsets = in(reg) offsets.as_ptr(),
            target = in(reg) target,
            out("ymm0") _, out("ymm1") _, out("ymm2") _,
            options(nostack, preserves_flags)
        );
    }
    words
}

/// Stores one byte by an instruction whose address is noted at `instruction` first.
pub(crate) fn store_at_known_place(address: usize, value: u8, instruction: &std::sync::atomic::AtomicUsize) {
    // SAFETY: invariant 1; the note is a live atomic.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{note}], {scratch}",
            "2:",
            "mov byte ptr [{address}], {value}",
            scratch = out(reg) _,
            note = in(reg) instruction.as_ptr(),
            address = in(reg) address,
            value = in(reg_byte) value,
            options(nostack, preserves_flags)
        );
    }
}

/// What lives at `address` for ever, or nothing for 0.
pub(crate) fn shared<T: Sync>(address: usize) -> Option<&'static T> {
    // SAFETY: the caller leaked it, and stored its address.
    unsafe { ptr::with_exposed_provenance::<T>(address).as_ref() }
}
