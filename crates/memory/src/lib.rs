//! Owned memory mappings: reserve, lend, copy in and out, advise, unmap.
//!
//! A [`Mapping`] owns whole pages of private anonymous memory. What a program may do with them it borrows:
//! a [`Window`] is exclusive and gives slices, a [`Shared`] is not and gives word copies. Both hold the
//! mapping alive, so memory is never unmapped under a thread that sleeps in a fault on it.
//!
//! ```text
//! Mapping ── window(range) ──▶ Window   &[u8], &mut [u8]; discard needs &mut
//!    │  └─── shared(range) ──▶ Shared   read, write, compare by relaxed words; discard needs &
//!    ▼
//!  pages (mmap, munmap, madvise) ◀── Fixed<T>, Zeroed<T>   tables outside the malloc heap
//! ```
//!
//! The memory may be *absent*: a touch may fault, and a userfault monitor may answer the fault. This crate
//! touches contents only in the accessors of [`Window`] and [`Shared`] and to [`populate`] pages, and never under a
//! lock.
//!
//! What a program has mapped *itself* is looked at by a [`Survey`] before a provider adopts it.
//!
//! Separate from the providers because each of them, and the pager, lends memory in the same way.
//!
//! For those who build a provider or a pager: `userfault-process` and `userfault-linux` lend their regions by it. Of use
//! to every program are [`populate`] and [`populate_mut`], which `userfault` re-exports.
//!
//! Kernel counterpart: `mm_struct` and `vm_area_struct`, as far as one mapping needs them.
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use userfault_memory::{Mapping, Protection, page_size};
//!
//! let mapping = Arc::new(Mapping::reserve(4 * page_size(), Protection::ReadWrite)?);
//! let mut window = mapping.window(0..2 * page_size())?; // slices, for nobody else meanwhile
//! window.as_mut_slice()[7] = 42;
//! let shared = mapping.shared(2 * page_size()..4 * page_size())?; // copies, for any number
//! shared.write(0, window.as_slice())?;
//! let mut byte = [0];
//! shared.read(7, &mut byte)?;
//! assert_eq!(byte, [42]);
//! assert!(mapping.shared(0..page_size()).is_err(), "the window is exclusive");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod bits;
mod child;
mod claims;
mod error;
mod mapping;
mod own;
mod pagemap;
mod pages;
mod range;
mod shared;
mod survey;
mod touch;
mod window;

pub use arena::{Fixed, ZeroIsValid, Zeroed};
pub use bits::Bits;
pub use child::{byte_in_child, let_children_be_waited_for};
pub use error::{AccessError, AdviseError, DiscardError, LendError, MapError, RangeError};
pub use mapping::Mapping;
pub use own::is_own_for_ever;
pub use pagemap::{Holds, Pagemap};
pub use pages::{Advice, Protection, page_size};
pub use shared::Shared;
pub use survey::{FaultsBy, Survey, SurveyError, Unfit};
pub use touch::{populate, populate_mut};
pub use window::Window;
