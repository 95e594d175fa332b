//! The system calls, on addresses.
//!
//! Everything here is async-signal-safe: no allocation, no lock, nothing that waits but a futex. Reads and writes
//! are raw calls, since the library's are cancellation points: a thread that is cancelled must not end in the
//! middle of an answer, nor with a lock of ours.
//!
//! Invariants:
//!
//! 1. A [`Span`] is page-aligned, not empty, and lies in one mapping that this crate made and has not
//!    unmapped, or in memory that the program has given it (`adopt.rs`); only [`Span::new`], whose callers
//!    prove that, makes one.
//! 2. No Rust reference points into a span: contents are reached only through loans of the `memory`
//!    crate, whose rules (`window.rs`) say when they may change. Into adopted memory references may point:
//!    nothing changes bytes there that one has seen, but a discard, whose caller answers for it.
//!
//! Kernel counterpart: `mprotect(2)`, `madvise(2)`, `proc_pid_mem(5)`.
#![expect(unsafe_code, reason = "system calls on addresses; the two invariants above are this file's proof")]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU8;

use userfault_abi::errno::Errno;
use userfault_memory::Mapping;

/// `MADV_GUARD_INSTALL`, since Linux 6.13; not yet in libc.
const MADV_GUARD_INSTALL: i32 = 102;
/// `MADV_GUARD_REMOVE`.
const MADV_GUARD_REMOVE: i32 = 103;

const PAGE: usize = crate::states::PAGE_SIZE;

/// Pages of a mapping of ours, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    len: usize,
}

/// What a page allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    Read,
    ReadWrite,
}

impl Span {
    /// # Safety
    ///
    /// Invariant 1.
    pub(crate) const unsafe fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }

    /// Pages of a mapping that lends nothing.
    pub(crate) fn of(mapping: &Mapping, pages: &std::ops::Range<usize>) -> Self {
        assert!(pages.start < pages.end && pages.end <= mapping.pages(), "pages of the mapping");
        // SAFETY: checked to lie in a live mapping of ours (invariant 1).
        unsafe { Self::new(mapping.base() + pages.start * PAGE, (pages.end - pages.start) * PAGE) }
    }

    /// The first half of its pages, if it has more than one.
    pub(crate) const fn first_half(self) -> Option<Self> {
        let len = self.len / 2 / PAGE * PAGE;
        if len == 0 { None } else { Some(Self { len, ..self }) }
    }

    /// All but the first half of its pages.
    pub(crate) const fn second_half(self) -> Self {
        let first = self.len / 2 / PAGE * PAGE;
        Self { start: self.start + first, len: self.len - first }
    }

    /// Its pages, one by one.
    pub(crate) fn pages(self) -> impl Iterator<Item = Self> {
        (0..self.len / PAGE).map(move |page| Self { start: self.start + page * PAGE, len: PAGE })
    }

    pub(crate) const fn start(self) -> usize {
        self.start
    }

    /// How many bytes.
    pub(crate) const fn len(self) -> usize {
        self.len
    }
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn check(answer: i32) -> Result<(), Errno> {
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets what the span allows.
pub(crate) fn protect(span: Span, access: Access) -> Result<(), Errno> {
    let bits = match access {
        Access::None => libc::PROT_NONE,
        Access::Read => libc::PROT_READ,
        Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    // SAFETY: pages of ours (invariant 1), which no reference points into (2).
    check(unsafe { libc::mprotect(span.start as *mut c_void, span.len, bits) })
}

fn advise(span: Span, advice: i32) -> Result<(), Errno> {
    // SAFETY: pages of ours (invariant 1), which no reference points into (2).
    check(unsafe { libc::madvise(span.start as *mut c_void, span.len, advice) })
}

/// Ends the contents of pages that nobody can reach.
pub(crate) fn zap(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_DONTNEED)
}

/// Puts guard markers on pages that nobody can reach (H2); contents end.
pub(crate) fn guard(span: Span) -> Result<(), Errno> {
    advise(span, MADV_GUARD_INSTALL)
}

/// Takes guard markers away.
pub(crate) fn unguard(span: Span) -> Result<(), Errno> {
    advise(span, MADV_GUARD_REMOVE)
}

/// Backs pages with single ones from now on, never with huge ones.
pub(crate) fn avoid_huge_pages(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_NOHUGEPAGE)
}

/// Lets pages be backed with huge ones.
pub(crate) fn allow_huge_pages(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_HUGEPAGE)
}

/// Gives pages that allow reading and have no contents the kernel's page of zeros, so that they count as
/// present. Since Linux 5.14.
pub(crate) fn populate(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_POPULATE_READ)
}

/// Writes `len` bytes from `source` to `target` through `/proc/self/mem`, whatever `target` allows.
///
/// # Errors
///
/// How many bytes were written before the errno; `EFAULT` if the source cannot be read from there on.
pub(crate) fn forced_write(memory: BorrowedFd<'_>, source: *const u8, target: Span) -> Result<(), (usize, Errno)> {
    let mut done = 0;
    let mut most = target.len;
    while done < target.len {
        let at = i64::try_from(target.start + done).map_err(|_| (done, Errno::EINVAL))?;
        let (number, from) = (memory.as_raw_fd(), source.wrapping_add(done));
        // SAFETY: the kernel reads the source and answers EFAULT if it cannot; it writes pages of ours
        // (invariant 1), which no reference points into (2).
        let answer = unsafe { libc::syscall(libc::SYS_pwrite64, number, from, most.min(target.len - done), at) };
        match usize::try_from(answer) {
            Ok(0) => return Err((done, Errno::EIO)),
            Ok(written) => done += written,
            Err(_) => match last_errno() {
                Errno::EINTR => {}
                // For this file the kernel forgets how much it wrote before the source ended: page by page.
                Errno::EFAULT if most > PAGE => most = PAGE,
                errno => return Err((done, errno)),
            },
        }
    }
    Ok(())
}

/// Writes `len` bytes from `source` to `target`, which must be writable, by reading one's own memory.
///
/// # Errors
///
/// As [`forced_write`].
pub(crate) fn direct_write(source: *const u8, target: Span) -> Result<(), (usize, Errno)> {
    let here = std::process::id().cast_signed();
    let mut done = 0;
    while done < target.len {
        let len = target.len - done;
        let into = libc::iovec { iov_base: (target.start + done) as *mut c_void, iov_len: len };
        let from = libc::iovec { iov_base: source.wrapping_add(done).cast_mut().cast(), iov_len: len };
        // SAFETY: the kernel reads the source and stops where it cannot; it writes pages of ours (invariant
        // 1), which no reference points into (2).
        let answer = unsafe { libc::process_vm_readv(here, &raw const into, 1, &raw const from, 1, 0) };
        match usize::try_from(answer) {
            Ok(0) => return Err((done, Errno::EIO)),
            // Less than all of it: the next round learns why.
            Ok(copied) => done += copied,
            Err(_) => return Err((done, last_errno())),
        }
    }
    Ok(())
}

/// `write(2)` of bytes that may not be there; how many were written.
pub(crate) fn write_from(file: BorrowedFd<'_>, source: *const u8, len: usize) -> Result<usize, Errno> {
    // SAFETY: the kernel reads the source and answers EFAULT if it cannot.
    let answer = unsafe { libc::syscall(libc::SYS_write, file.as_raw_fd(), source, len) };
    usize::try_from(answer).map_err(|_| last_errno())
}

/// `read(2)` into pages of ours; how many bytes.
pub(crate) fn read_into(file: BorrowedFd<'_>, target: Span) -> Result<usize, Errno> {
    // SAFETY: the kernel writes pages of ours (invariant 1), which no reference points into (2).
    let answer = unsafe { libc::syscall(libc::SYS_read, file.as_raw_fd(), target.start, target.len) };
    usize::try_from(answer).map_err(|_| last_errno())
}

/// Moves the contents of `from` to `to`, in one step for everybody who looks. What was at `to` is gone; it
/// allows from then on what `from` allows. `from` stays mapped, and holds nothing.
///
/// The kernel takes `to` away before it asks whether the limits let it map as much again. For an instant another
/// thread's `mmap` could get that place. So who calls this while [`is_data_limited`] holds takes the right to write
/// from `from` first: what cannot be written to is not data, and is not limited.
///
/// # Errors
///
/// `to` has lost its contents or not, and nobody can reach what had none; `from` is unchanged.
pub(crate) fn move_pages(from: Span, to: Span) -> Result<(), Errno> {
    if has_limit(libc::RLIMIT_AS) {
        // If there is as much as a page, there is no less when `to` is gone: others get no more than the limit.
        one_more_page()?;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: both are pages of ours (invariant 1), which no reference points into (2).
    let moved = unsafe { libc::mremap(from.start as *mut c_void, from.len, to.len, flags, to.start as *mut c_void) };
    if moved != libc::MAP_FAILED {
        return Ok(());
    }
    Err(keep_mapped(to, last_errno()))
}

/// Whether there is a limit to private writable memory.
pub(crate) fn is_data_limited() -> bool {
    has_limit(libc::RLIMIT_DATA)
}

fn has_limit(what: impl Into<libc::c_long>) -> bool {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let nothing = std::ptr::null::<libc::rlimit64>();
    // SAFETY: a live structure; nothing is set.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, what.into(), nothing, &raw mut limit) };
    answer != 0 || limit.rlim_cur != libc::RLIM64_INFINITY
}

/// Whether the process may map one page more: tried.
fn one_more_page() -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: fresh memory at an address of the kernel's choice.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_NONE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // SAFETY: just mapped; nobody knows it.
    check(unsafe { libc::munmap(page, PAGE) })
}

/// After a call that may have taken closed pages of ours away, maps something inaccessible there; the call's errno.
fn keep_mapped(to: Span, errno: Errno) -> Errno {
    map_if_gone(to);
    // Mostly the call was refused before it took anything. What can be read is not ours any more.
    if is_readable(to) {
        lost();
    }
    errno
}

fn lost() -> ! {
    die("userfault: a part of a region was lost by a failed mremap, and could not be mapped again\n")
}

/// Maps something inaccessible where a failed call has left nothing.
pub(crate) fn map_if_gone(span: Span) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: pages of ours, or nothing, at that address: what is mapped there is not replaced.
    let filled = unsafe { libc::mmap(span.start as *mut c_void, span.len, libc::PROT_NONE, flags, -1, 0) };
    if filled != libc::MAP_FAILED {
        // SAFETY: just mapped, ours; without huge pages as all of it. An error costs memory, no more.
        let _huge_pages = unsafe { libc::madvise(filled, span.len, libc::MADV_NOHUGEPAGE) };
    } else if last_errno() != Errno::EEXIST {
        lost();
    }
}

/// Maps the shared memory at `from` once more, at `onto`.
///
/// # Errors
///
/// `EINVAL` if it is private. `onto` is as it was, or inaccessible.
pub(crate) fn alias(from: Span, onto: Span) -> Result<(), Errno> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // An old length of 0 asks for a second mapping.
    // SAFETY: both are pages of ours (invariant 1); `onto` lends nothing yet, and `from` is unchanged.
    let mapped = unsafe { libc::mremap(from.start as *mut c_void, 0, onto.len, flags, onto.start as *mut c_void) };
    if mapped == libc::MAP_FAILED { Err(keep_mapped(onto, last_errno())) } else { Ok(()) }
}

/// Maps shared memory, a file's or nobody's, at the pages of a mapping that has lent nothing yet.
pub(crate) fn map_shared(file: Option<BorrowedFd<'_>>, onto: Span) -> Result<(), Errno> {
    let bits = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let (flags, file) = file.map_or((flags | libc::MAP_ANONYMOUS, -1), |file| (flags, file.as_raw_fd()));
    // SAFETY: pages of ours (invariant 1), which no reference points into (2); they stay mapped.
    let mapped = unsafe { libc::mmap(onto.start as *mut c_void, onto.len, bits, flags, file, 0) };
    if mapped == libc::MAP_FAILED { Err(keep_mapped(onto, last_errno())) } else { Ok(()) }
}

/// Frees pages of shared memory, for everybody who maps them.
pub(crate) fn remove(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_REMOVE)
}

/// Gives writable pages without contents zeros of their own. Since Linux 5.14.
pub(crate) fn populate_for_writing(span: Span) -> Result<(), Errno> {
    advise(span, libc::MADV_POPULATE_WRITE)
}

/// Sets bit 0 of a flag for each page that is resident; there is a flag for each.
pub(crate) fn resident(span: Span, flags: &mut [u8]) -> Result<(), Errno> {
    assert!(flags.len() >= span.len / PAGE, "a flag for each page");
    // SAFETY: as many bytes as pages are written to the flags.
    check(unsafe { libc::mincore(span.start as *mut c_void, span.len, flags.as_mut_ptr()) })
}

/// Undoes what `mlock` does to pages.
pub(crate) fn unlock(span: Span) -> Result<(), Errno> {
    // SAFETY: pages of ours (invariant 1); contents are unchanged.
    check(unsafe { libc::munlock(span.start as *const c_void, span.len) })
}

/// Whether the first word of the span can be read, without reading it and without a descriptor.
pub(crate) fn is_readable(span: Span) -> bool {
    const NO_SUCH_WAY: usize = usize::MAX >> 1;
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the kernel reads the set first, EFAULT if it cannot, and then does not know what to do with it.
    let _error = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_WAY, span.start, nothing, 8_usize) };
    last_errno() == Errno::EINVAL
}

/// The thread's identity without a system call: its thread pointer, which glibc and musl keep in its
/// first word.
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: on x86-64 `fs:0` holds the thread pointer itself in every thread of the C library's.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    pointer
}

/// The thread's id.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    u32::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

/// Time that never goes back, in nanoseconds from some start.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live structure; async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: takes nothing and cannot fail.
    let _always_zero = unsafe { libc::sched_yield() };
}

/// Writes a sentence to standard error and ends the process: for bugs found in a signal handler.
pub(crate) fn die(sentence: &str) -> ! {
    warn(sentence);
    // SAFETY: takes nothing; async-signal-safe.
    unsafe { libc::abort() }
}

/// Writes a sentence to standard error, from anywhere.
pub(crate) fn warn(sentence: &str) {
    // SAFETY: a live slice of that length.
    let _nobody_reads =
        unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, sentence.as_ptr(), sentence.len()) };
}

/// Bytes that are zero until somebody stores to them, for the rest of the process.
pub(crate) struct Reservation {
    bytes: &'static [AtomicU8],
}

/// Reserves `len` bytes that read as zeros and count as no memory until they are made writable.
///
/// Never unmapped, so the slice lives for ever.
pub(crate) fn reserve_zeros(len: usize) -> Result<Reservation, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(last_errno());
    }
    userfault_memory::is_own_for_ever(start.addr()..start.addr() + len);
    // SAFETY: just mapped, ours. An error leaves zeros in core dumps, nothing worse.
    let _kept_out_of_dumps = unsafe { libc::madvise(start, len, libc::MADV_DONTDUMP) };
    // SAFETY: mapped for ever, all zero bytes, and zero is a value of an atomic byte.
    Ok(Reservation { bytes: unsafe { std::slice::from_raw_parts(start.cast(), len) } })
}

impl Reservation {
    /// All of it.
    pub(crate) const fn bytes(&self) -> &'static [AtomicU8] {
        self.bytes
    }

    /// The pages that hold `part`, rounded outwards; `None` if it is empty or not part of this.
    pub(crate) fn span(&self, part: &[AtomicU8], page_size: usize) -> Option<Span> {
        let all = self.bytes.as_ptr_range();
        let part = part.as_ptr_range();
        if part.is_empty() || part.start < all.start || all.end < part.end {
            return None;
        }
        let start = part.start.addr() & !(page_size - 1);
        let end = part.end.addr().next_multiple_of(page_size);
        // SAFETY: whole pages of the reservation, which begins and ends at a page (invariant 1).
        Some(unsafe { Span::new(start, end - start) })
    }
}

/// Reads `target.len()` bytes at `source` as a system call would: EFAULT where the thread could not.
///
/// Goes through a pipe, because the kernel's checked copies are to be had nowhere else without
/// privilege; for arguments of a few bytes and probes of one page.
pub(crate) fn copy_in(source: usize, target: &mut [u8]) -> Result<(), Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    if write_from(writer.as_fd(), source as *const u8, target.len()) != Ok(target.len()) {
        return Err(Errno::EFAULT);
    }
    let mut done = 0;
    while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
        done += rustix::io::read(&reader, rest).map_err(|_| Errno::EFAULT)?;
    }
    Ok(())
}

/// Writes `source` to `target` as a system call would.
///
/// # Safety
///
/// The caller lets the bytes at `target` change, as with any system call that is given a buffer.
pub(crate) unsafe fn copy_out(source: &[u8], target: usize) -> Result<(), Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    rustix::io::write(&writer, source).map_err(|_| Errno::EFAULT)?;
    // SAFETY: the kernel writes the target, which the caller lets change, and answers EFAULT if it cannot.
    let answer = unsafe { libc::syscall(libc::SYS_read, reader.as_raw_fd(), target, source.len()) };
    if usize::try_from(answer) == Ok(source.len()) { Ok(()) } else { Err(Errno::EFAULT) }
}
