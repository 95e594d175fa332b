//! Adopts shared memory of the tests.
//!
//! 1. Memory is mapped for the rest of the process, reached by `access` only, and left alone while it is adopted.
#![expect(unsafe_code, reason = "memory is adopted by address; the invariant above is this file's proof")]

use std::fs::File;
use std::os::fd::AsFd;

use userfault_client::{Event, RegisterModes, UffdError};
use userfault_process::{FileRegion, Uffd};

pub(crate) fn adopt(uffd: &Uffd, address: usize, pages: usize, file: Option<&File>) -> Result<FileRegion, UffdError> {
    // SAFETY: invariant 1.
    unsafe { uffd.adopt_shared(address, pages, file.map(AsFd::as_fd), RegisterModes::MISSING) }
}

/// In other modes.
pub(crate) fn adopt_in(
    uffd: &Uffd,
    address: usize,
    pages: usize,
    modes: RegisterModes,
) -> Result<FileRegion, UffdError> {
    // SAFETY: invariant 1.
    unsafe { uffd.adopt_shared(address, pages, None, modes) }
}

/// The page of the region that a fault is about.
pub(crate) fn page_of(region: &FileRegion, event: &Event<core::convert::Infallible>) -> usize {
    let Event::Fault(fault) = event else { panic!("{event:?}") };
    region.page_at(fault.address).unwrap()
}
