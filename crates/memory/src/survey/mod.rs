//! What stands in a range of the program's own memory, and whether a provider may take over its faults.
//!
//! Asked before anything is changed. What cannot be found out, such as other threads' alternate stacks, is
//! the caller's to know.
//!
//! Kernel counterpart: `vma_can_userfault`; the kernel has no handler in the process that could fault on
//! itself, and needs to refuse less.

mod objects;
mod smaps;
mod threads;

use std::fmt::{Display, Formatter, Result as Written};
use std::fs::File;
use std::io;
use std::ops::Range;

use crate::arena::Fixed;
use crate::own::own_in;
use crate::pagemap::{Holds, Pagemap};
use smaps::{Flags, Smaps, Vma};
use threads::InUse;

/// How the faults of the memory would be taken.
///
/// Example: [`Survey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultsBy {
    /// By a signal handler, which changes what pages allow.
    Signal,
    /// By the kernel.
    Kernel,
}

/// Why memory cannot be adopted.
///
/// Example: [`Survey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// Nothing is mapped there.
    NotMapped,
    /// A thread's stack is in the mapping.
    Stack,
    /// A thread's alternate signal stack.
    AlternateStack,
    /// It grows downwards.
    GrowsDown,
    /// What the C library keeps of a thread is in the mapping: thread locals, the rseq area, robust locks.
    ThreadData,
    /// Code or data of the program, of a library or of the loader.
    LoadedObject,
    /// Memory of this library.
    Own,
    /// Registered already, here or with the kernel's userfaultfd.
    Registered,
    /// Shared with others.
    Shared,
    /// A file is behind it.
    File,
    /// Huge pages, by `MAP_HUGETLB`.
    HugePages,
    /// Memory of a device or of the kernel.
    Device,
    /// It may hold code.
    Executable,
    /// It cannot be read and written.
    NotWritable,
    /// Locked into memory.
    Locked,
    /// It has guard markers.
    Guarded,
    /// Sealed by `mseal`.
    Sealed,
    /// It has a protection key of its own.
    ProtectionKey,
    /// Forked children do not get it.
    NotForChildren,
}

impl Display for Unfit {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.write_str(match self {
            Self::NotMapped => "nothing is mapped there; adopt each mapping by itself",
            Self::Stack => {
                "a thread's stack is in that mapping, and its fault handler would run on it; adopt other memory"
            }
            Self::AlternateStack => {
                "a thread's signal stack is there, and its fault handler runs on it; adopt other memory"
            }
            Self::GrowsDown => "it grows downwards (MAP_GROWSDOWN); map it without",
            Self::ThreadData => {
                "thread locals and what the C library keeps of a thread are in that mapping; adopt other memory"
            }
            Self::LoadedObject => {
                "code or data of the program or of a library is there; adopt memory of the heap instead"
            }
            Self::Own => "this library keeps its own data or a region of its own there; adopt other memory",
            Self::Registered => "it is registered already; unregister it there first",
            Self::Shared => "it is shared (MAP_SHARED); adopt private memory, or register it as shared memory",
            Self::File => "a file is behind it; copy it into anonymous memory",
            Self::HugePages => "it has huge pages (MAP_HUGETLB); map it without",
            Self::Device => "a device or the kernel is behind it; copy it into anonymous memory",
            Self::Executable => "it may hold code; take PROT_EXEC away first",
            Self::NotWritable => "it cannot be read and written; allow both by mprotect first",
            Self::Locked => "it is locked into memory (mlock); unlock it first",
            Self::Guarded => "it has guard markers (MADV_GUARD_INSTALL); remove them first",
            Self::Sealed => "it is sealed (mseal), so that what it allows cannot change; adopt other memory",
            Self::ProtectionKey => "it has a protection key; give it key 0 by pkey_mprotect first",
            Self::NotForChildren => "forked children do not get it (MADV_DONTFORK); take that back by MADV_DOFORK",
        })
    }
}

/// Why a survey ended without result. Nothing was changed.
///
/// Example: [`Survey`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SurveyError {
    /// Some of it cannot be adopted.
    Unfit {
        /// The addresses of what is in the way, as far as they lie in the range.
        range: Range<usize>,
        /// Why.
        why: Unfit,
    },
    /// What is there could not be found out.
    Unknown {
        /// What was being read.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// Memory that may be adopted.
///
/// # Examples
///
/// ```
/// use userfault_memory::{FaultsBy, Survey, SurveyError, Unfit, page_size};
///
/// let heap = vec![1_u8; 64 * page_size()];
/// let start = heap.as_ptr().addr().next_multiple_of(page_size());
/// assert!(Survey::of(&(start..start + page_size()), FaultsBy::Kernel).is_ok());
///
/// let code = main as fn() as usize / page_size() * page_size();
/// let refused = Survey::of(&(code..code + page_size()), FaultsBy::Kernel).unwrap_err();
/// assert!(matches!(refused, SurveyError::Unfit { why: Unfit::LoadedObject, .. }));
/// ```
#[derive(Debug)]
pub struct Survey {
    huge: Fixed<Range<usize>>,
}

/// How many mappings a range may have.
const MAPPINGS: usize = 1 << 16;

impl Survey {
    /// Looks at `range`, addresses of whole pages.
    ///
    /// # Errors
    ///
    /// [`SurveyError`] with the first thing that is in the way.
    pub fn of(range: &Range<usize>, faults: FaultsBy) -> Result<Self, SurveyError> {
        let known = [
            (own_in(range), Unfit::Own),
            (objects::object_in(range), Unfit::LoadedObject),
            (threads::alternate_stack(), Unfit::AlternateStack),
        ];
        for (found, why) in known {
            if let Some(part) = found.and_then(|found| overlap(&found, range)) {
                return Err(SurveyError::Unfit { range: part, why });
            }
        }
        let in_use = InUse::find().map_err(|error| SurveyError::Unknown { what: "reading /proc/self/task", error })?;
        let unread = |error| SurveyError::Unknown { what: "reading /proc/self/smaps", error };
        let smaps = File::open("/proc/self/smaps").and_then(Smaps::new).map_err(unread)?;
        let survey = Self::read(range, faults, smaps, &in_use)?;
        no_guards(range)?;
        Ok(survey)
    }

    fn read<R: io::Read>(
        range: &Range<usize>,
        faults: FaultsBy,
        mut smaps: Smaps<R>,
        in_use: &InUse,
    ) -> Result<Self, SurveyError> {
        let unread = |error| SurveyError::Unknown { what: "reading /proc/self/smaps", error };
        let mut huge = Fixed::with_capacity(MAPPINGS).map_err(|_| unread(io_error(libc::ENOMEM)))?;
        let mut at = range.start;
        while at < range.end {
            let vma = smaps.next().map_err(unread)?;
            let hole_end = vma.as_ref().map_or(range.end, |vma| vma.range.start.min(range.end));
            if at < hole_end {
                return Err(SurveyError::Unfit { range: at..hole_end, why: Unfit::NotMapped });
            }
            let Some(vma) = vma else { break };
            let Some(part) = overlap(&vma.range, range) else { continue };
            let whole = unfit(&vma, faults).map(|why| (part.clone(), why));
            if let Some((range, why)) = whole.or_else(|| in_use.part_of(&vma.range, &part)) {
                return Err(SurveyError::Unfit { range, why });
            }
            at = part.end;
            if vma.may_be_huge {
                huge.push(part).map_err(|_| unread(io_error(libc::ENOMEM)))?;
            }
        }
        Ok(Self { huge })
    }

    /// The parts, as addresses, that the kernel may back with huge pages at this time; in a mapping of their own.
    #[must_use]
    pub fn huge(&self) -> &[Range<usize>] {
        self.huge.as_ref()
    }
}

/// What a mapping has that is in the way, whatever is in it. The most telling first.
fn unfit(vma: &Vma, faults: FaultsBy) -> Option<Unfit> {
    let by_signal = faults == FaultsBy::Signal;
    let reasons = [
        (vma.is_stack || vma.flags.has(Flags::SHADOW_STACK), Unfit::Stack),
        (vma.flags.has(Flags::GROWS_DOWN), Unfit::GrowsDown),
        (vma.flags.has(Flags::HUGE_PAGES), Unfit::HugePages),
        (vma.flags.has(Flags::DEVICE), Unfit::Device),
        (vma.is_shared, Unfit::Shared),
        (vma.is_file, Unfit::File),
        (vma.flags.has(Flags::REGISTERED), Unfit::Registered),
        (vma.flags.has(Flags::SEALED), Unfit::Sealed),
        (vma.is_executable && by_signal, Unfit::Executable),
        (!(vma.is_readable && vma.is_writable) && by_signal, Unfit::NotWritable),
        (vma.flags.has(Flags::LOCKED) && by_signal, Unfit::Locked),
        (vma.has_key && by_signal, Unfit::ProtectionKey),
        (vma.flags.has(Flags::NOT_FOR_CHILDREN) && by_signal, Unfit::NotForChildren),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
}

fn no_guards(range: &Range<usize>) -> Result<(), SurveyError> {
    let unread = |error| SurveyError::Unknown { what: "reading /proc/self/pagemap", error };
    let mut first = None;
    let mut found = |run, holds| {
        if holds == Holds::Guard && first.is_none() {
            first = Some(run);
        }
    };
    Pagemap::open().and_then(|mut pagemap| pagemap.runs(range.clone(), &mut found)).map_err(unread)?;
    first.map_or(Ok(()), |range| Err(SurveyError::Unfit { range, why: Unfit::Guarded }))
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> Option<Range<usize>> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (both.start < both.end).then_some(both)
}

fn io_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests;
