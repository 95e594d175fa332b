//! The crate's only unsafe code: requests that name memory, and descriptors that arrive as numbers.
//!
//! Everything that can be asked of the kernel without naming memory goes through `rustix`. What is
//! here cannot: an ioctl takes addresses inside a structure.
//!
//! Invariants:
//!
//! 1. A [`Span`] lies in a live [`Mapping`] of this crate, which it borrows, or in memory that the
//!    program has promised to leave as it is ([`Adopted`]), or it is an address range of a context that
//!    is [`Elsewhere`].
//! 2. No request changes bytes that a Rust slice can show. Fills touch missing pages only: the kernel
//!    answers `EEXIST` for any page that somebody can have seen. REGISTER, UNREGISTER, WRITEPROTECT
//!    and WAKE change no bytes. MOVE empties its source, and [`Source`] borrows the window of the
//!    source mutably. File pages can be written from outside: a mapping that shows them
//!    ([`place_file`]) is lent by `memory::Shared` alone, see `file.rs`.
//! 3. An argument is an array as long as its request word says, and lives on the stack of the call.
//! 4. A descriptor number becomes an owned descriptor once, in the call that received it.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)`, `userfaultfd(2)`, `PAGEMAP_SCAN`.
#![expect(unsafe_code, reason = "ioctls that name memory; the four invariants above are this file's proof")]

use core::ffi::c_ulong;
use core::marker::PhantomData;
use core::ops::Range;
use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::FileType;
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};
use userfault_abi as abi;
use userfault_abi::{
    ContinueModes, CopyModes, Errno, Features, IoctlMask, Message, MessageEvent, MoveModes, OpenFlags, PoisonModes,
    RegisterModes, WriteprotectModes, ZeropageModes, request,
};
use userfault_memory::{Mapping, Window, page_size};

use crate::adopt::Adopted;
use crate::foreign::Forked;

/// Put into a result word before the call: no answer of the kernel looks like it.
pub(crate) const UNWRITTEN: i64 = i64::MIN;

/// How many messages one read takes at most.
pub(crate) const BATCH: usize = 32;

/// Makes a descriptor by the system call, with exactly these flags.
///
/// # Errors
///
/// The kernel's: `EPERM` without privilege, `EINVAL` for unknown flags, `EMFILE`, `ENOSYS`.
///
/// # Source
///
/// `userfaultfd(2)`.
/// Example: [`raw`](crate::raw).
pub fn create(flags: OpenFlags) -> Result<OwnedFd, Errno> {
    let flags = UserfaultfdFlags::from_bits_retain(flags.bits());
    // SAFETY: the call takes flags and touches no memory; the result is owned.
    unsafe { rustix::mm::userfaultfd(flags) }.map_err(errno)
}

/// Makes a descriptor by `USERFAULTFD_IOC_NEW` on an open `/dev/userfaultfd`.
///
/// # Errors
///
/// The kernel's: `EINVAL` for unknown flags, `EMFILE`; `ENOTTY` or `EINVAL` if `device` is not it.
///
/// # Source
///
/// `userfaultfd(2)`; observed on 6.18: the device's permission replaces every other.
/// Example: [`raw`](crate::raw).
pub fn create_from_device(device: BorrowedFd<'_>, flags: OpenFlags) -> Result<OwnedFd, Errno> {
    let by_value = usize::try_from(flags.bits()).map_err(|_| Errno::EINVAL)?;
    if !is_misc_device(device) {
        return Err(Errno::ENOTTY);
    }
    // SAFETY: NEW takes its argument by value, no memory is touched. The type byte 0xAA belongs to
    // userfaultfd; a driver that took this number for something else could take no structure by it.
    let number = unsafe { ioctl(device, request::NEW, ptr::without_provenance_mut(by_value)) }?;
    // SAFETY: the kernel just made this number for us (invariant 4).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Other files may answer any request with any number, which would be taken for a descriptor.
fn is_misc_device(device: BorrowedFd<'_>) -> bool {
    const MISC_MAJOR: u32 = 10;
    rustix::fs::fstat(device).is_ok_and(|status| {
        let is_character_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
        is_character_device && rustix::fs::major(status.st_rdev) == MISC_MAJOR
    })
}

/// Passes any request to any descriptor: the door for conformance tests.
///
/// # Errors
///
/// The kernel's answer, unchanged.
///
/// # Blocking
///
/// COPY may sleep in a fault of its own source.
///
/// # Safety
///
/// `argument` points to as many bytes as `request` reads and writes, or the request takes it by
/// value. If the structure names addresses of *this* process, then whatever the request does there
/// (a fill of missing memory, a move, a registration, after which absent pages fault instead of
/// reading as zeros) contradicts no Rust reference or promise about that memory.
///
/// # Source
///
/// `ioctl(2)`, `ioctl_userfaultfd(2)`.
/// Example: [`raw`](crate::raw).
pub unsafe fn ioctl(descriptor: BorrowedFd<'_>, request: u32, argument: *mut u8) -> Result<i32, Errno> {
    // Through `syscall`, because the type of libc's request parameter differs between C libraries.
    // SAFETY: the caller answers for `argument`.
    let answer = unsafe { libc::syscall(libc::SYS_ioctl, descriptor.as_raw_fd(), c_ulong::from(request), argument) };
    match i32::try_from(answer) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(last_errno()),
    }
}

/// Token of a context that belongs to the address space of another process.
#[derive(Debug)]
pub(crate) struct Elsewhere(());

/// Where the address space of a context is, as far as the kernel tells.
#[derive(Debug)]
pub(crate) enum Home {
    /// It is the caller's own.
    Here,
    /// It is another process's; or the kernel cannot tell (before 6.8, or while an event waits).
    NotProvenHere(Elsewhere),
}

/// Asks whether the context of an enabled descriptor belongs to the calling process.
///
/// # Source
///
/// `m/move/caller`, `m/fill/result`: MOVE refuses a foreign caller without writing the result word;
/// at home it looks for a mapping at address 0, finds none and writes `-ENOENT`.
pub(crate) fn home(descriptor: BorrowedFd<'_>) -> Home {
    let len = page_size() as u64;
    let argument = abi::Move { dst: 0, src: 0, len, mode: 0, moved: UNWRITTEN };
    let mut bytes = argument.encode();
    // SAFETY: source and destination are the same page. Page 0 is not mapped in a Rust program, whose
    // null pointers would be valid otherwise; if it were, a move onto itself answers EEXIST or ENOENT.
    let result = unsafe { call(descriptor, request::MOVE, &mut bytes) };
    let word = abi::Move::decode(&bytes).map_or(UNWRITTEN, |answer| answer.moved);
    let is_event_pending = word == -i64::from(Errno::EAGAIN.raw());
    if result.is_err() && word != UNWRITTEN && !is_event_pending {
        Home::Here
    } else {
        Home::NotProvenHere(Elsewhere(()))
    }
}

/// Whole pages that a request may name; see invariant 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    start: u64,
    len: u64,
    owner: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    /// These pages of `mapping`, counted from its start; `None` if empty or not inside.
    pub(crate) fn of(mapping: &'a Mapping, pages: &Range<usize>) -> Option<Self> {
        if pages.start >= pages.end || pages.end > mapping.pages() {
            return None;
        }
        // No overflow: both lie within the mapping.
        let start = mapping.base() + pages.start * page_size();
        let len = pages.len() * page_size();
        Some(Self { start: start as u64, len: len as u64, owner: PhantomData })
    }

    /// These pages of adopted memory, counted from its start; `None` if empty or not inside.
    pub(crate) fn of_adopted(adopted: &'a Adopted, pages: &Range<usize>) -> Option<Self> {
        if pages.start >= pages.end || pages.end > adopted.pages() {
            return None;
        }
        // No overflow: both lie within it.
        let start = adopted.base() + pages.start * page_size();
        let len = pages.len() * page_size();
        Some(Self { start: start as u64, len: len as u64, owner: PhantomData })
    }

    /// A range in bytes of another process's memory, unchecked: the kernel does that.
    pub(crate) fn elsewhere(_: &'a Elsewhere, range: &Range<u64>) -> Self {
        let len = range.end.wrapping_sub(range.start);
        Self { start: range.start, len, owner: PhantomData }
    }

    /// What is left after the first `done` bytes, if anything.
    pub(crate) fn after(self, done: u64) -> Option<Self> {
        let len = self.len.checked_sub(done).filter(|len| *len > 0)?;
        let start = self.start.checked_add(done)?;
        Some(Self { start, len, owner: PhantomData })
    }

    pub(crate) const fn start(self) -> u64 {
        self.start
    }

    /// In bytes.
    pub(crate) const fn len(self) -> u64 {
        self.len
    }

    const fn range(self) -> abi::Range {
        abi::Range { start: self.start, len: self.len }
    }
}

/// Pages of a window that nobody can look at while this lives, so that they may be emptied.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    start: u64,
    len: u64,
    window: PhantomData<&'a mut Window>,
}

impl<'a> Source<'a> {
    /// `bytes` counts from the start of the window; `None` if empty, unaligned or not inside.
    pub(crate) fn of(window: &'a mut Window, bytes: &Range<usize>) -> Option<Self> {
        let is_aligned = [bytes.start, bytes.end].iter().all(|edge| edge.is_multiple_of(page_size()));
        if bytes.start >= bytes.end || bytes.end > window.len() || !is_aligned {
            return None;
        }
        let start = window.address() + bytes.start;
        Some(Self { start: start as u64, len: bytes.len() as u64, window: PhantomData })
    }

    /// In bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }
}

/// What a fill answered, both halves unjudged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// The return value.
    pub(crate) result: Result<(), Errno>,
    /// The result word: bytes done, a negative error number, or [`UNWRITTEN`].
    pub(crate) word: i64,
}

/// `UFFDIO_API`: asks for `features`; the answer names all that the kernel has.
pub(crate) fn handshake(descriptor: BorrowedFd<'_>, features: Features) -> Result<Features, Errno> {
    let argument = abi::Api { api: request::UFFD_API, features: features.bits(), ioctls: 0 };
    let mut bytes = argument.encode();
    // SAFETY: the structure names no memory.
    unsafe { call(descriptor, request::API, &mut bytes) }?;
    let answer = abi::Api::decode(&bytes).unwrap_or_default();
    Ok(Features::from_bits(answer.features))
}

/// `UFFDIO_REGISTER`.
pub(crate) fn register(descriptor: BorrowedFd<'_>, span: Span<'_>, modes: RegisterModes) -> Result<IoctlMask, Errno> {
    let argument = abi::Register { range: span.range(), mode: modes.bits(), ioctls: 0 };
    let mut bytes = argument.encode();
    // SAFETY: the span may be named, and no bytes change (invariants 1, 2).
    unsafe { call(descriptor, request::REGISTER, &mut bytes) }?;
    let answer = abi::Register::decode(&bytes).unwrap_or_default();
    Ok(IoctlMask::from_bits(answer.ioctls))
}

/// `UFFDIO_UNREGISTER`.
pub(crate) fn unregister(descriptor: BorrowedFd<'_>, span: Span<'_>) -> Result<(), Errno> {
    let mut bytes = span.range().encode();
    // SAFETY: the span may be named, and no bytes that were seen change (invariants 1, 2).
    unsafe { call(descriptor, request::UNREGISTER, &mut bytes) }
}

/// `UFFDIO_WAKE` over any addresses: it needs no mapping and changes none.
pub(crate) fn wake(descriptor: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    let mut bytes = abi::Range { start, len }.encode();
    // SAFETY: waking makes threads repeat an access; no memory is changed, whatever the range.
    unsafe { call(descriptor, request::WAKE, &mut bytes) }
}

/// `UFFDIO_COPY` of the first `span.len()` bytes of `source`, which has at least as many.
pub(crate) fn copy(descriptor: BorrowedFd<'_>, span: Span<'_>, source: &[u8], modes: CopyModes) -> Answer {
    if (source.len() as u64) < span.len {
        return Answer { result: Err(Errno::EINVAL), word: UNWRITTEN };
    }
    let argument = abi::Copy {
        dst: span.start,
        src: source.as_ptr().expose_provenance() as u64,
        len: span.len,
        mode: modes.bits(),
        copy: UNWRITTEN,
    };
    let mut bytes = argument.encode();
    // SAFETY: the kernel reads `span.len` bytes of `source`, a slice that is longer and lives on, and
    // fills only missing pages of the span (invariants 1, 2).
    let result = unsafe { call(descriptor, request::COPY, &mut bytes) };
    let word = abi::Copy::decode(&bytes).map_or(UNWRITTEN, |answer| answer.copy);
    Answer { result, word }
}

/// `UFFDIO_ZEROPAGE`.
pub(crate) fn zeropage(descriptor: BorrowedFd<'_>, span: Span<'_>, modes: ZeropageModes) -> Answer {
    let argument = abi::Zeropage { range: span.range(), mode: modes.bits(), zeropage: UNWRITTEN };
    let mut bytes = argument.encode();
    // SAFETY: only missing pages of the span are filled (invariants 1, 2).
    let result = unsafe { call(descriptor, request::ZEROPAGE, &mut bytes) };
    let word = abi::Zeropage::decode(&bytes).map_or(UNWRITTEN, |answer| answer.zeropage);
    Answer { result, word }
}

/// `UFFDIO_CONTINUE`.
pub(crate) fn continue_pages(descriptor: BorrowedFd<'_>, span: Span<'_>, modes: ContinueModes) -> Answer {
    let argument = abi::Continue { range: span.range(), mode: modes.bits(), mapped: UNWRITTEN };
    let mut bytes = argument.encode();
    // SAFETY: only unmapped pages of the span are mapped (invariants 1, 2).
    let result = unsafe { call(descriptor, request::CONTINUE, &mut bytes) };
    let word = abi::Continue::decode(&bytes).map_or(UNWRITTEN, |answer| answer.mapped);
    Answer { result, word }
}

/// `UFFDIO_POISON`.
pub(crate) fn poison(descriptor: BorrowedFd<'_>, span: Span<'_>, modes: PoisonModes) -> Answer {
    let argument = abi::Poison { range: span.range(), mode: modes.bits(), updated: UNWRITTEN };
    let mut bytes = argument.encode();
    // SAFETY: only missing pages of the span are marked (invariants 1, 2).
    let result = unsafe { call(descriptor, request::POISON, &mut bytes) };
    let word = abi::Poison::decode(&bytes).map_or(UNWRITTEN, |answer| answer.updated);
    Answer { result, word }
}

/// `UFFDIO_MOVE` of what follows the first `done` bytes of both.
pub(crate) fn move_pages(
    descriptor: BorrowedFd<'_>,
    span: Span<'_>,
    source: &Source<'_>,
    done: u64,
    modes: MoveModes,
) -> Answer {
    let Some(rest) = span.after(done).filter(|_| source.len == span.len) else {
        return Answer { result: Err(Errno::EINVAL), word: UNWRITTEN };
    };
    let argument = abi::Move {
        dst: rest.start,
        // No overflow: `done` is less than the length of both.
        src: source.start + done,
        len: rest.len,
        mode: modes.bits(),
        moved: UNWRITTEN,
    };
    let mut bytes = argument.encode();
    // SAFETY: only missing pages of the span are filled, and what leaves is borrowed mutably by
    // `source`, so nobody can see it go (invariants 1, 2).
    let result = unsafe { call(descriptor, request::MOVE, &mut bytes) };
    let word = abi::Move::decode(&bytes).map_or(UNWRITTEN, |answer| answer.moved);
    Answer { result, word }
}

/// `UFFDIO_WRITEPROTECT`.
pub(crate) fn writeprotect(descriptor: BorrowedFd<'_>, span: Span<'_>, modes: WriteprotectModes) -> Result<(), Errno> {
    let mut bytes = abi::Writeprotect { range: span.range(), mode: modes.bits() }.encode();
    // SAFETY: the span may be named, and no bytes change (invariants 1, 2).
    unsafe { call(descriptor, request::WRITEPROTECT, &mut bytes) }
}

/// Messages taken by one read, the descriptors in them owned: dropped, they are closed.
#[derive(Debug)]
pub(crate) struct Batch {
    messages: [Option<(Message, Option<OwnedFd>)>; BATCH],
    len: usize,
}

impl Batch {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Oldest first.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = (Message, Option<OwnedFd>)> {
        self.messages.into_iter().flatten()
    }
}

/// Reads the messages that are there, at least one and at most `limit` and [`BATCH`].
///
/// Calls no allocator: malloc may be locked by the very fork whose message waits here.
pub(crate) fn read(descriptor: BorrowedFd<'_>, limit: usize) -> Result<Batch, Errno> {
    let mut buffer = [0; BATCH * Message::SIZE];
    let wanted = limit.clamp(1, BATCH) * Message::SIZE;
    let (target, _) = buffer.split_at_mut(wanted);
    let bytes = rustix::io::read(descriptor, &mut *target).map_err(errno)?;
    let (whole, _) = buffer.get(..bytes).unwrap_or(&[]).as_chunks::<{ Message::SIZE }>();
    let mut batch = Batch { messages: [const { None }; BATCH], len: 0 };
    for (slot, bytes) in batch.messages.iter_mut().zip(whole) {
        let message = Message::from_bytes(*bytes);
        *slot = Some((message, own_descriptor(&message)));
        batch.len += 1;
    }
    Ok(batch)
}

/// Called once for each message the kernel gave to [`read`].
fn own_descriptor(message: &Message) -> Option<OwnedFd> {
    let MessageEvent::Fork { descriptor } = message.event() else { return None };
    let number = i32::try_from(descriptor).ok()?;
    // SAFETY: the kernel made this descriptor for the reader of the message, who is us; each message
    // is delivered once (invariant 4).
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the pages of a mapping, which nobody has borrowed from yet, those of a file from its start.
///
/// The mapping keeps the addresses and unmaps them in the end, as before. Only `memory::Shared` may
/// be lent from the result (invariant 2).
pub(crate) fn place_file(mapping: Mapping, file: BorrowedFd<'_>) -> Result<Mapping, Errno> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the range belongs to `mapping`, which is not in an `Arc` yet, so that nothing was lent
    // from it; it stays mapped, readable and writable.
    let placed = unsafe { rustix::mm::mmap(mapping.as_ptr().cast(), mapping.len(), protection, flags, file, 0) };
    match placed {
        Ok(_) => Ok(mapping),
        Err(error) => {
            // The addresses may be free by now, and somebody else's when this would be unmapped.
            core::mem::forget(mapping);
            Err(errno(error))
        }
    }
}

/// A run of pages that `PAGEMAP_SCAN` found, in bytes; the kernel's `struct page_region`.
pub(crate) type PageRegion = linux_raw_sys::general::page_region;

/// `PAGEMAP_SCAN` for written pages; with `protect` they count as unwritten afterwards.
///
/// Returns how many elements of `found` were filled and the address at which the walk ended.
pub(crate) fn scan_written(
    pagemap: BorrowedFd<'_>,
    span: Span<'_>,
    protect: bool,
    found: &mut [PageRegion],
) -> Result<(usize, u64), Errno> {
    use linux_raw_sys::general as raw;
    let flags =
        if protect { raw::PM_SCAN_WP_MATCHING | raw::PM_SCAN_CHECK_WPASYNC } else { raw::PM_SCAN_CHECK_WPASYNC };
    let written = u64::from(raw::PAGE_IS_WRITTEN);
    let mut argument = raw::pm_scan_arg {
        size: size_of::<raw::pm_scan_arg>() as u64,
        flags: flags.into(),
        start: span.start,
        end: span.start + span.len,
        walk_end: 0,
        vec: found.as_mut_ptr().expose_provenance() as u64,
        vec_len: found.len() as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: written,
        category_anyof_mask: 0,
        return_mask: written,
    };
    // SAFETY: the structure is the kernel's own, `vec` is a slice of `vec_len` plain structures that
    // is borrowed mutably; protection changes no bytes (invariants 1, 2, 3).
    let count = unsafe { ioctl(pagemap, PAGEMAP_SCAN, ptr::from_mut(&mut argument).cast()) }?;
    Ok((usize::try_from(count).unwrap_or(0).min(found.len()), argument.walk_end))
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u32 = 0xC060_6610;

/// # Safety
///
/// The addresses in `argument` may be used as `request` does (invariants 1 and 2).
unsafe fn call<const LEN: usize>(
    descriptor: BorrowedFd<'_>,
    request: u32,
    argument: &mut [u8; LEN],
) -> Result<(), Errno> {
    debug_assert_eq!(request as usize >> 16 & 0x3FFF, LEN, "an argument is as long as its request says");
    // SAFETY: the array is as long as the request says (invariant 3); the caller answers for the rest.
    unsafe { ioctl(descriptor, request, argument.as_mut_ptr()) }.map(|_| ())
}

/// Of the calling thread's last system call. Async-signal-safe.
pub(crate) fn last_errno() -> Errno {
    Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// The kernel's number, in our type.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The token for the context of a forked child; only messages make such a value.
pub(crate) fn forked(_: &Forked) -> Elsewhere {
    Elsewhere(())
}
