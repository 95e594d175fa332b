//! Tracks the writes to an array that the program has had all along, and forks a child that has it as plain memory.
//!
//! `cargo run -p userfault --example adopt_array -- [--provider auto|linux|process]`
//!
//! Adopts the buffer of a vector where it stands, protects it, writes to some of its pages by the program's own
//! references, and gives it back. Meanwhile a child checks every element and writes to all of them, unnoticed. Exit
//! status 1 if the pages found are not those that were written, or the child found something else.
//!
//! 1. The vector is neither dropped nor grown before the region is.
//! 2. The child touches its memory, and ends without running anything of its parent's.
#![expect(unsafe_code, reason = "adopts memory and forks; the invariants above are the promises that takes")]

mod arguments;

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use userfault::prelude::*;
use userfault::{Builder, RegisterModes, WriteProtect};

const ELEMENTS: usize = 1 << 20;

fn main() -> ExitCode {
    arguments::status(run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (provider, _) = arguments::read()?;
    let mut array: Vec<u64> = (0..ELEMENTS as u64).collect();
    let uffd = Builder::new().provider(provider).open()?;

    let bytes = NonNull::slice_from_raw_parts(NonNull::from(array.as_mut_slice()).cast(), ELEMENTS * 8);
    // SAFETY: invariant 1.
    let region = unsafe { uffd.adopt(bytes, RegisterModes::MISSING | RegisterModes::WP)? };
    let first = (region.base() - bytes.cast::<u8>().addr().get()) / 8;
    let per_page = region.page_size() / 8;

    let dirty = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&dirty);
    let note = move |page| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).insert(page);
    };
    let nothing_is_missing = |_, _: &mut [u8]| Ok(());
    let monitor = uffd.monitor(&region).on_write(note).serve(nothing_is_missing)?;
    region.writeprotect(0..region.pages(), WriteProtect::Protect)?;

    let written: BTreeSet<usize> = [3, 7, 500, region.pages() - 1].into();
    for page in &written {
        array[first + page * per_page] = u64::MAX;
    }
    let is_right = |n: usize, element: u64| {
        let (page, rest) = (n.wrapping_sub(first) / per_page, n.wrapping_sub(first) % per_page);
        element == if rest == 0 && written.contains(&page) { u64::MAX } else { n as u64 }
    };
    let child = status_of(|| {
        let is_as_here = array.iter().enumerate().all(|(n, element)| is_right(n, *element));
        array.fill(0);
        is_as_here
    })?;
    monitor.join()?;
    drop(region);

    let dirty = dirty.lock().unwrap_or_else(PoisonError::into_inner);
    println!("pages written: {dirty:?}, by provider `{}`", uffd.provider());
    println!("a child found every element in its place, and overwrote its own: {}", if child { "yes" } else { "no" });
    Ok(child && *dirty == written && array.iter().enumerate().all(|(n, element)| is_right(n, *element)))
}

/// Forks; whether `child` said yes, in the child.
fn status_of(child: impl FnOnce() -> bool) -> std::io::Result<bool> {
    // SAFETY: invariant 2.
    let id = unsafe { libc::fork() };
    if id == 0 {
        let said = child();
        // SAFETY: takes a number.
        unsafe { libc::_exit(i32::from(!said)) };
    }
    let mut status = 0;
    // SAFETY: a live integer.
    if id < 0 || unsafe { libc::waitpid(id, &raw mut status, 0) } != id {
        return Err(std::io::Error::last_os_error());
    }
    Ok(status == 0)
}
