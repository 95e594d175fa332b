//! Where the program, its libraries and the loader have their code and data.
//!
//! Parts of it are anonymous memory, which the kernel's list of mappings does not tell from any other.
//!
//! Invariants:
//!
//! 1. `note` and `note_locals` are called by `dl_iterate_phdr` only, with its own arguments and the local
//!    that was handed in, which nobody else uses meanwhile.
//!
//! Kernel counterpart: the ELF loader; `dl_iterate_phdr(3)`.
#![expect(unsafe_code, reason = "reads the loader's list; the invariant above is this file's proof")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;

use crate::pages::page_size;

#[cfg(target_pointer_width = "64")]
type Header = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type Header = libc::Elf32_Phdr;

struct Search {
    range: Range<usize>,
    found: Option<Range<usize>>,
}

/// Further from each other than this, thread locals were not allocated together.
const TOGETHER: usize = 1 << 20;

/// The addresses that the calling thread's locals take around `data`, which is among them.
pub(super) fn locals_around(data: usize) -> Range<usize> {
    let mut around = data..data;
    // SAFETY: `note_locals` is such a function, and gets the local (invariant 1).
    let _answer = unsafe { libc::dl_iterate_phdr(Some(note_locals), (&raw mut around).cast()) };
    around
}

extern "C" fn note_locals(info: *mut libc::dl_phdr_info, _size: usize, around: *mut c_void) -> c_int {
    // SAFETY: the local of `locals_around` (invariant 1).
    let around = unsafe { &mut *around.cast::<Range<usize>>() };
    // SAFETY: the loader's own structure, alive during the call (invariant 1).
    let info = unsafe { &*info };
    let start = info.dlpi_tls_data.addr();
    // SAFETY: the loader's own structure, alive during the call (invariant 1).
    let headers = unsafe { headers(info) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_TLS) {
        if start.abs_diff(around.start) < TOGETHER {
            let end = start.saturating_add(usize::try_from(header.p_memsz).unwrap_or(0));
            *around = around.start.min(start)..around.end.max(end);
        }
    }
    0
}

/// # Safety
///
/// The structure is the loader's own.
unsafe fn headers(info: &libc::dl_phdr_info) -> &[Header] {
    if info.dlpi_phdr.is_null() {
        return &[];
    }
    // SAFETY: as many headers as the loader says; it keeps them as long as the object.
    unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
}

/// A part of a loaded object, in whole pages, that shares an address with `range`.
pub(super) fn object_in(range: &Range<usize>) -> Option<Range<usize>> {
    let mut search = Search { range: range.clone(), found: None };
    // SAFETY: `note` is such a function, and gets the local (invariant 1).
    let _answer = unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut search).cast()) };
    search.found
}

extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
    // SAFETY: the local of `object_in` (invariant 1).
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader's own structure, alive during the call (invariant 1).
    let info = unsafe { &*info };
    // SAFETY: the loader's own structure, alive during the call (invariant 1).
    let headers = unsafe { headers(info) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let number = |value| usize::try_from(value).unwrap_or(0);
        let start = number(info.dlpi_addr).wrapping_add(number(header.p_vaddr));
        let end = start.saturating_add(number(header.p_memsz)).next_multiple_of(page_size());
        let start = start & !(page_size() - 1);
        if start < search.range.end && search.range.start < end {
            search.found = Some(start..end);
            return 1;
        }
    }
    0
}
