//! Everything the host uses or could use of a machine, each tried by itself, with what needs it.
//!
//! For people who want to know what works here, and why not: it needs no host, and opens none.
//!
//! Kernel counterpart: none.

use std::sync::Arc;

use userfault_abi::errno::Errno;
use userfault_client::{Refusal, UffdError};
use userfault_engine::{Page, PageRange};
use userfault_memory::{Advice, AdviseError, Mapping, Protection, byte_in_child};

use super::{
    BYTES, alias, forced_write, guards, look, mirror, mirror_onto, plain_write, platform, refusal, scratch,
    shared_guards,
};
use crate::etiquette::check_signals;
use crate::pagemap::Pagemap;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};

/// Something of this machine that the process provider uses, and whether it works here.
///
/// Example: [`probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mechanism {
    /// A stable word for it, such as `guard`.
    pub name: &'static str,
    /// What does not work, or works in another way, without it.
    pub needed_for: &'static str,
    /// It was used on scratch pages and the result looked at; or what refused that.
    pub outcome: Result<(), Refusal>,
}

type Try = fn() -> Result<(), Refusal>;

const ALL: [(&str, &str, Try); 13] = [
    ("platform", "the provider", platform),
    ("proc", "forced-write, pagemap, counting mappings", proc),
    ("forced-write", "fills in place; without it: mirror", || forced_write().map(drop)),
    ("copy", "mirror", || plain_write().map(drop)),
    ("mirror", "fills where forced-write is refused", || plain_write().and_then(|writer| mirror(&writer))),
    ("guard", "few mappings under random fills", guards),
    ("guarded-mirror", "both of these together", guarded_mirror),
    ("shared-guard", "shared memory in few mappings", shared_guards),
    ("alias", "fills of shared memory", || plain_write().and_then(|writer| alias(&writer))),
    ("pagemap", "seeing which pages have contents", pagemap),
    ("wipe-on-fork", "knowing a forked child", wipe_on_fork),
    ("mappings", "random fills where there is no guard", mappings),
    ("sigsegv", "hearing of faults", sigsegv),
];

/// Tries everything the process provider uses or could use, on scratch pages.
///
/// Needs no open provider, and opens none. `sigsegv` is about the calling thread.
///
/// # Blocking
///
/// It makes a child process for a moment: with a userfaultfd of the kernel's that has `EVENT_FORK`, until its
/// monitor has read of that.
///
/// # Examples
///
/// ```
/// for mechanism in userfault_process::probe() {
///     match mechanism.outcome {
///         Ok(()) => println!("{}: works", mechanism.name),
///         Err(refusal) => println!("{}, needed for {}: {refusal}", mechanism.name, mechanism.needed_for),
///     }
/// }
/// ```
#[must_use]
pub fn probe() -> Vec<Mechanism> {
    // Scratch pages are pages of the size that the provider knows.
    let count = if userfault_memory::page_size() == PAGE_SIZE { ALL.len() } else { 1 };
    let outcome = |(name, needed_for, attempt): &(&'static str, &'static str, Try)| Mechanism {
        name,
        needed_for,
        outcome: attempt(),
    };
    ALL.iter().take(count).map(outcome).collect()
}

/// Finds a scratch page in the list of mappings.
fn proc() -> Result<(), Refusal> {
    let refused = refusal("read /proc/self/maps", "mount /proc: `mount -t proc proc /proc`");
    let page = scratch(1, Protection::ReadWrite)?;
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| refused(errno_of(&error)))?;
    let holds_page = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let bounds = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        bounds.contains(&page.base()).then_some(())
    };
    maps.lines().find_map(holds_page).ok_or_else(|| refused(Errno::EINVAL))
}

/// Moves a page from a mirror onto a guarded one, in a mapping that is readable.
fn guarded_mirror() -> Result<(), Refusal> {
    let writer = plain_write()?;
    mirror_onto(&writer, |page| {
        sys::protect(page, Access::None)?;
        sys::guard(page)?;
        sys::protect(page, Access::ReadWrite)
    })
}

/// Sees that of three pages the middle one has contents.
fn pagemap() -> Result<(), Refusal> {
    let refused = refusal("read /proc/self/pagemap", "mount /proc, and let the process read its own page map");
    let writer = plain_write()?;
    let pages = scratch(3, Protection::ReadWrite)?;
    let done = Pagemap::open().and_then(|mut pagemap| {
        writer.write(BYTES.as_ptr(), Span::of(&pages, &(1..2))).map_err(|(_, errno)| errno)?;
        let first = Page::new((pages.base() / PAGE_SIZE) as u64);
        let middle = first.next();
        let all = PageRange::new(first, middle.next().next()).ok_or(Errno::EINVAL)?;
        let mut found = Vec::new();
        pagemap.present(all, |run| found.push(run))?;
        if found == [PageRange::one(middle)] { Ok(()) } else { Err(Errno::EIO) }
    });
    done.map_err(refused)
}

/// Has a child look at a page that is to be empty there.
fn wipe_on_fork() -> Result<(), Refusal> {
    let way = "a page that the kernel empties at fork (MADV_WIPEONFORK)";
    let refused = refusal(way, "use Linux 4.14 or later, and allow madvise");
    let no_child =
        refusal("a child process, to look there (clone)", "allow clone, raise the limit of processes (ulimit -u)");
    let writer = plain_write()?;
    let page = scratch(1, Protection::ReadWrite)?;
    let span = Span::of(&page, &(0..1));
    let written = wipe(&page).and_then(|()| writer.write(BYTES.as_ptr(), span).map_err(|(_, errno)| errno));
    written.and_then(|()| look(span)).map_err(&refused)?;
    let page = Arc::new(page).window(0..PAGE_SIZE).map_err(|_| refused(Errno::EINVAL))?;
    let byte = page.as_slice().first().unwrap_or(&0);
    match byte_in_child(byte).map_err(|error| no_child(errno_of(&error)))? {
        0 => Ok(()),
        _ => Err(refused(Errno::EIO)),
    }
}

fn wipe(page: &Mapping) -> Result<(), Errno> {
    page.advise(page.range(), Advice::WipeOnFork).map_err(|error| match error {
        AdviseError::Os { errno } => Errno::from_raw(errno),
        AdviseError::Range(_) | AdviseError::HeldByWindow { .. } | _ => Errno::EINVAL,
    })
}

/// Makes as many mappings of a chunk as it can have.
fn mappings() -> Result<(), Refusal> {
    let refused = refusal(
        "a mapping for each page of 2 MiB (vm.max_map_count)",
        "raise the limit, as by `sysctl vm.max_map_count=262144`, or give the process fewer mappings",
    );
    let pages = scratch(512, Protection::None)?;
    let all = Span::of(&pages, &(0..pages.pages()));
    all.pages().step_by(2).try_for_each(|page| sys::protect(page, Access::Read)).map_err(refused)
}

/// Whether a fault of this thread comes to a handler, and to the provider's if that is installed.
fn sigsegv() -> Result<(), Refusal> {
    let (way, errno, remedy) = match check_signals() {
        Ok(()) => return Ok(()),
        Err(UffdError::SignalBlocked) => (
            "let SIGSEGV in",
            Errno::EPERM,
            "unblock it in every thread (pthread_sigmask, or userfault::unblock_faults): blocked, it kills",
        ),
        Err(_) => (
            "keep the SIGSEGV handler",
            Errno::EBUSY,
            "install the program's own handler before the first open, or say that it calls the one it replaced \
             (accept_handler)",
        ),
    };
    Err(Refusal { way, errno, remedy })
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
