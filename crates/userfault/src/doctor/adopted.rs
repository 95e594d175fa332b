//! Adoption of memory that the program has.
//!
//! 1. What is adopted is a vector of this file's own, which is neither grown nor dropped before its registration
//!    has ended; no reference into it is used across a change of its contents.
//!
//! Kernel counterpart: none.
#![expect(unsafe_code, reason = "adopts memory; the invariant above is this file's proof")]

use core::ptr::NonNull;

use userfault_client::{AdoptError, Errno, Region as _, RegisterModes};
use userfault_memory::page_size;

use super::Attempt;
use super::pages::{are_numbers, number, numbers};
use super::reason::{Stop, right};

const PAGES: usize = 8;
/// Of these the contents end, and come again.
const ENDED: core::ops::Range<usize> = 2..4;

pub(super) fn adopt(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let size = page_size();
    let mut memory = vec![0; (PAGES + 1) * size];
    // SAFETY: invariant 1.
    let region = unsafe { uffd.adopt(NonNull::from(memory.as_mut_slice()), RegisterModes::MISSING) }.map_err(stop)?;
    let first = region.base() - memory.as_ptr().addr();
    let whole = first..first + region.pages() * size;
    for (page, bytes) in memory.get_mut(whole.clone()).unwrap_or_default().chunks_mut(size).enumerate() {
        bytes.fill(if ENDED.contains(&page) { 0 } else { number(page) });
    }
    // SAFETY: invariant 1.
    unsafe { region.discard_adopted(ENDED)? };
    let monitor = uffd.serve(&region, numbers)?;
    let has_numbers = || memory.get(whole.clone()).is_some_and(|bytes| are_numbers(bytes, size));
    let while_registered = has_numbers();
    let faults = monitor.join()?.faults;
    drop(region);
    right(while_registered, "pages have other bytes than they had, or were filled")?;
    right(faults == ENDED.len() as u64, "not each of the missing pages raised a fault, or others did")?;
    right(has_numbers(), "contents were lost when the registration ended")
}

fn stop(error: AdoptError) -> Stop {
    let tried = "adopt a vector";
    match error {
        AdoptError::Uffd(error) => error.into(),
        AdoptError::Unfit { why, .. } => Stop::System(tried, Errno::EINVAL, why.to_string()),
        AdoptError::NoWholePage { .. } | AdoptError::LeftClosed { .. } | _ => Stop::Wrong(error.to_string()),
    }
}
