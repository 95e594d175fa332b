//! Real memory and real threads, for the places that have them.
//!
//! Kernel counterpart: none; this is a test program's plumbing.

pub mod access;
pub mod maps;
pub mod scratch;
pub mod sys;
pub mod worker;

/// The byte that fills the page, if one does.
#[must_use]
pub fn uniform(page: &[u8]) -> Option<u8> {
    let first = page.first().copied()?;
    page.iter().all(|byte| *byte == first).then_some(first)
}
