//! What this machine can do, found by doing it on scratch pages (H9).
//!
//! A version number proves nothing: forced writes can be refused by a boot option, guard markers by the
//! kernel's age, anything by a sandbox. One function a mechanism; each says what it was refused, and the
//! remedy.

mod all;

pub use all::{Mechanism, probe};

use userfault_abi::errno::Errno;
use userfault_client::Refusal;
use userfault_memory::{Mapping, Protection, page_size};

use crate::machine::Tuning;
use crate::region::{Alias, Contents, Mirror};
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};
use crate::writer::Writer;

/// Whether the host knows this kind of machine at all.
pub(crate) fn platform() -> Result<(), Refusal> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Refusal {
            way: "process provider",
            errno: Errno::ENOSYS,
            remedy: "it decodes faults of x86-64 only; use the linux provider here",
        });
    }
    if page_size() != PAGE_SIZE {
        return Err(Refusal {
            way: "process provider",
            errno: Errno::ENOSYS,
            remedy: "it knows pages of 4 KiB only; use the linux provider here",
        });
    }
    Ok(())
}

/// How bytes are brought to pages: through `/proc/self/mem`, else by way of mirrors (M4).
///
/// # Errors
///
/// Each way that was tried.
pub(crate) fn writer(tuning: Tuning) -> Result<Writer, Vec<Refusal>> {
    let mut tried = Vec::new();
    if !tuning.without_forced_writes {
        match forced_write() {
            Ok(writer) => return Ok(writer),
            Err(refusal) => tried.push(refusal),
        }
    }
    match plain_write().and_then(|writer| mirror(&writer).map(|()| writer)) {
        Ok(writer) => Ok(writer),
        Err(refusal) => {
            tried.push(refusal);
            Err(tried)
        }
    }
}

/// Writes through PROT_NONE, opens the page, reads it back.
pub(crate) fn forced_write() -> Result<Writer, Refusal> {
    let writer = Writer::forced().map_err(|errno| Refusal {
        way: "open /proc/self/mem",
        errno,
        remedy: "mount /proc, and let the process open its own mem file",
    })?;
    let refused = refusal(
        "write to inaccessible pages through /proc/self/mem",
        "boot without proc_mem.force_override=never, or leave the sandbox that refuses it",
    );
    let scratch = scratch(1, Protection::None)?;
    write_and_look(&writer, Span::of(&scratch, &(0..1)), |page| sys::protect(page, Access::Read)).map_err(refused)?;
    Ok(writer)
}

/// Writes to a page by a system call that checks the source.
pub(crate) fn plain_write() -> Result<Writer, Refusal> {
    let scratch = scratch(1, Protection::ReadWrite)?;
    let page = Span::of(&scratch, &(0..1));
    if write_and_look(&Writer::Direct, page, |_| Ok(())).is_ok() {
        return Ok(Writer::Direct);
    }
    let refused =
        refusal("copy one's own memory by process_vm_readv or a pipe", "allow one of the two in the sandbox's filter");
    let writer = Writer::pipe().map_err(&refused)?;
    write_and_look(&writer, page, |_| Ok(())).map_err(refused)?;
    Ok(writer)
}

/// Moves a page from a mirror of a mapping onto an inaccessible page of that mapping.
pub(crate) fn mirror(writer: &Writer) -> Result<(), Refusal> {
    mirror_onto(writer, |page| sys::protect(page, Access::None))
}

/// As [`mirror`], onto a page that `close` makes inaccessible.
fn mirror_onto(writer: &Writer, close: impl FnOnce(Span) -> Result<(), Errno>) -> Result<(), Refusal> {
    let refused =
        refusal("move finished pages into place by mremap (MREMAP_DONTUNMAP)", "use Linux 5.7 or later, allow mremap");
    let scratch = scratch(2, Protection::ReadWrite)?;
    let mirror = Mirror::of(writer, Span::of(&scratch, &(0..2))).map_err(&refused)?;
    let page = Span::of(&scratch, &(1..2));
    let moved = close(page).and_then(|()| {
        writer.write(BYTES.as_ptr(), mirror.span(&(1..2))).map_err(|(_, errno)| errno)?;
        sys::move_pages(mirror.span(&(1..2)), page)
    });
    moved.and_then(|()| look(page)).map_err(refused)
}

/// Puts a guard on a page, sees that it cannot be read although its mapping could, takes it away.
pub(crate) fn guards() -> Result<(), Refusal> {
    let refused = refusal("guard markers (MADV_GUARD_INSTALL)", "use Linux 6.13 or later, allow madvise");
    let scratch = scratch(1, Protection::None)?;
    guard_and_look(Span::of(&scratch, &(0..1))).map_err(refused)
}

/// The same in shared memory.
pub(crate) fn shared_guards() -> Result<(), Refusal> {
    let remedy =
        "use Linux 6.15 or later, allow madvise; without them shared memory costs a mapping for each run of pages";
    let refused = refusal("guard markers in shared memory (MADV_GUARD_INSTALL)", remedy);
    let scratch = scratch_shared(1)?;
    let page = Span::of(&scratch, &(0..1));
    sys::protect(page, Access::None).and_then(|()| guard_and_look(page)).map_err(refused)
}

/// Maps shared memory once more, writes there, and reads it back.
pub(crate) fn alias(writer: &Writer) -> Result<(), Refusal> {
    let refused =
        refusal("map shared memory once more (mremap with an old length of 0)", "allow mremap in the sandbox's filter");
    let scratch = scratch_shared(1)?;
    let page = Span::of(&scratch, &(0..1));
    let alias = Alias::of(page, Contents::Resident).map_err(&refused)?;
    writer.write(BYTES.as_ptr(), alias.span(&(0..1))).map_err(|(_, errno)| refused(errno))?;
    look(page).map_err(refused)
}

/// Asks which of two pages of shared memory is resident.
pub(crate) fn resident(writer: &Writer) -> Result<(), Refusal> {
    let refused = refusal("ask which shared pages are there (mincore)", "allow mincore, or give the memory's file");
    let scratch = scratch_shared(2)?;
    writer.write(BYTES.as_ptr(), Span::of(&scratch, &(1..2))).map_err(|(_, errno)| refused(errno))?;
    let mut flags = [0; 2];
    sys::resident(Span::of(&scratch, &(0..2)), &mut flags).map_err(&refused)?;
    if flags.map(|flag| flag & 1) == [0, 1] { Ok(()) } else { Err(refused(Errno::EIO)) }
}

/// Whether pages can be swapped out, and then are there without being resident.
pub(crate) fn swap() -> Result<(), Refusal> {
    let refused = refusal(
        "tell shared pages that are swapped out from missing ones",
        "give the memory's file, or turn swap off (swapoff -a; /proc/swaps says what is on)",
    );
    match std::fs::read_to_string("/proc/swaps") {
        Ok(swaps) if swaps.lines().count() <= 1 => Ok(()),
        Ok(_) => Err(refused(Errno::EBUSY)),
        Err(error) => Err(refused(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))),
    }
}

fn guard_and_look(page: Span) -> Result<(), Errno> {
    sys::guard(page)?;
    sys::protect(page, Access::ReadWrite)?;
    let mut byte = [0];
    let is_guarded = sys::copy_in(page.start(), &mut byte) == Err(Errno::EFAULT);
    sys::unguard(page)?;
    let is_free = sys::copy_in(page.start(), &mut byte).is_ok();
    if is_guarded && is_free { Ok(()) } else { Err(Errno::EINVAL) }
}

/// What is written to scratch pages.
static BYTES: [u8; PAGE_SIZE] = [0x5a; PAGE_SIZE];

/// Writes to a page and reads it back, once it was made readable.
fn write_and_look(writer: &Writer, page: Span, open: impl FnOnce(Span) -> Result<(), Errno>) -> Result<(), Errno> {
    writer.write(BYTES.as_ptr(), page).map_err(|(_, errno)| errno)?;
    open(page)?;
    look(page)
}

/// Whether a page holds what is written to scratch pages.
fn look(page: Span) -> Result<(), Errno> {
    let mut read = [0_u8; PAGE_SIZE];
    sys::copy_in(page.start(), &mut read)?;
    if read == BYTES { Ok(()) } else { Err(Errno::EIO) }
}

fn scratch(pages: usize, protection: Protection) -> Result<Mapping, Refusal> {
    Mapping::reserve(pages * PAGE_SIZE, protection).map_err(|_| Refusal {
        way: "map scratch pages",
        errno: Errno::ENOMEM,
        remedy: "raise the limit of address space (ulimit -v)",
    })
}

/// Pages that are shared, readable and writable.
pub(crate) fn scratch_shared(pages: usize) -> Result<Mapping, Refusal> {
    let mapping = scratch(pages, Protection::None)?;
    sys::map_shared(None, Span::of(&mapping, &(0..pages)))
        .map_err(refusal("map shared memory that has no file", "allow mmap of shared memory"))?;
    Ok(mapping)
}

/// Makes refusals of an errno, unless that says something about the probe and not about the machine.
fn refusal(way: &'static str, remedy: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| match errno {
        Errno::EMFILE | Errno::ENFILE => Refusal {
            way: "a pipe to probe the machine with",
            errno,
            remedy: "raise the limit of open files (ulimit -n)",
        },
        errno => Refusal { way, errno, remedy },
    }
}
