//! The byte door of a context in this process: addresses in, errno out.
//!
//! Arguments are copied in and out as a system call would copy them, so a bad address is `EFAULT` and
//! never a fault.
//!
//! Invariants:
//!
//! 1. Only memory that the caller names, and has promised may change, is written to: the argument of an
//!    ioctl, the buffer of a read.
#![expect(unsafe_code, reason = "writes to addresses that the caller names; invariant 1 is the contract")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use userfault_abi::errno::Errno;
use userfault_abi::{Features, OpenFlags, PollEvents, WriteprotectModes};
use userfault_engine::{
    Call, ContextId, FdInfo, Fill, Outcome, PageRange, Privilege, Protocol, ReadError, Reply, errno,
};
use userfault_memory::{Advice, Mapping, Protection};
use userfault_signal::{FutexWait, SignalsBlocked, futex_wait};

use crate::fill::Bytes;
use crate::host::Host;
use crate::layout::AddError;
use crate::states::{LIMITS, PAGE_SIZE};
use crate::uffd::open_context;

/// An open context, spoken to as one speaks to a descriptor. Dropping it is the last close.
///
/// # Examples
///
/// ```
/// use userfault_abi::{Api, OpenFlags, PollEvents, request};
/// use userfault_process::raw::{Descriptor, Privilege, Protocol};
///
/// let flags = OpenFlags::NONBLOCK | OpenFlags::USER_MODE_ONLY;
/// let descriptor = Descriptor::open(flags, Protocol::Modern, Privilege::UserModeOnly)?;
/// assert_eq!(descriptor.poll(), PollEvents::ERR, "before the handshake");
/// let mut api = Api { api: request::UFFD_API, ..Api::default() }.encode();
/// // SAFETY: the structure is `api`, which nobody else looks at.
/// unsafe { descriptor.ioctl(request::API, api.as_mut_ptr().expose_provenance())? };
/// assert_ne!(Api::decode(&api).unwrap().features, 0);
/// assert_eq!(descriptor.poll(), PollEvents::NONE);
/// # Ok::<(), userfault_abi::Errno>(())
/// ```
pub struct Descriptor {
    host: &'static Host,
    context: ContextId,
    protocol: Protocol,
    nonblocking: AtomicBool,
}

impl Descriptor {
    /// Opens a context; the flags' meaning is the protocol's.
    ///
    /// # Errors
    ///
    /// The errno of `userfaultfd(2)`; `ENOSYS` where this process cannot host one.
    pub fn open(flags: OpenFlags, protocol: Protocol, privilege: Privilege) -> Result<Self, Errno> {
        let host = Host::open().map_err(|_| Errno::ENOSYS)?;
        let context = open_context(host, flags, protocol, privilege)?;
        let nonblocking = AtomicBool::new(flags.contains(OpenFlags::NONBLOCK));
        Ok(Self { host, context, protocol, nonblocking })
    }

    /// Refuses to act for a forked child: the address space it means is not here.
    fn check_process(&self) -> Result<(), Errno> {
        if self.host.is_of_this_process() { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// Sets or clears the descriptor's `O_NONBLOCK`.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// What poll answers now.
    #[must_use]
    pub fn poll(&self) -> PollEvents {
        if self.check_process().is_err() {
            return PollEvents::ERR;
        }
        let blocked = SignalsBlocked::new();
        self.host.engine(&blocked).poll(self.context, self.nonblocking.load(Ordering::Relaxed))
    }

    /// What fdinfo says now.
    #[must_use]
    pub fn fdinfo(&self) -> Option<FdInfo> {
        self.check_process().ok()?;
        let blocked = SignalsBlocked::new();
        self.host.engine(&blocked).fdinfo(self.context)
    }

    /// An ioctl; `argument` is the address of its structure.
    ///
    /// # Errors
    ///
    /// The errno of `ioctl_userfaultfd(2)`; `ESRCH` in a forked child.
    ///
    /// # Safety
    ///
    /// The structure at `argument` may be written to, as far as the request writes back.
    pub unsafe fn ioctl(&self, request: u32, argument: usize) -> Result<(), Errno> {
        self.check_process()?;
        let len = userfault_engine::AddressSpace::<crate::host::Process>::input_len(self.protocol, request);
        let mut input = [0; 40];
        let input = input.get_mut(..len).unwrap_or_default();
        let readable = len == 0 || crate::sys::copy_in(argument, input).is_ok();
        let input = if readable { &*input } else { &[] };
        let call = {
            let blocked = SignalsBlocked::new();
            self.host.engine(&blocked).ioctl(self.context, request, input)
        };
        let reply = match call {
            Ok(call) => self.perform(call),
            Err(reply) => reply,
        };
        let answer = reply.answer();
        // SAFETY: the caller lets the structure change (invariant 1).
        let copied = answer.bytes().is_empty()
            || unsafe { crate::sys::copy_out(answer.bytes(), argument.wrapping_add(answer.offset())) }.is_ok();
        let blocked = SignalsBlocked::new();
        let settled = self.host.engine(&blocked).settle(reply, copied);
        self.host.unpark(&blocked, settled.woken);
        if let Some(ring) = settled.ring {
            self.host.ring(ring);
        }
        if self.host.engine(&blocked).features(self.context).contains(Features::THREAD_ID) {
            self.host.wants_threads.store(true, Ordering::Relaxed);
        }
        settled.result
    }

    fn perform(&self, call: Call) -> Reply {
        let outcome = match &call {
            Call::Api(_) => Outcome::Done,
            Call::Register { range, modes } => match self.host.register(self.context, *range, *modes) {
                Ok(ioctls) => Outcome::Registered(ioctls),
                Err(errno) => Outcome::Refused(errno),
            },
            Call::Unregister { range } => match self.host.unregister(self.context, *range) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Refused(errno(error)),
            },
            Call::Wake { range } => {
                let blocked = SignalsBlocked::new();
                let woken = self.host.engine(&blocked).wake(self.context, *range);
                self.host.unpark(&blocked, woken);
                Outcome::Done
            }
            Call::Fill { range, fill, source } => self.fill(*range, *fill, *source),
            Call::Writeprotect { range, modes } => self.writeprotect(*range, *modes),
        };
        let blocked = SignalsBlocked::new();
        self.host.engine(&blocked).answer(call, outcome)
    }

    fn writeprotect(&self, range: PageRange, modes: WriteprotectModes) -> Outcome {
        let mut mappings = match self.host.room_for_snapshot() {
            Ok(mappings) => mappings,
            Err(errno) => return Outcome::Refused(errno),
        };
        let blocked = SignalsBlocked::new();
        let layout = self.host.layout.read(&blocked);
        layout.snapshot(range, &mut mappings);
        match self.host.engine(&blocked).writeprotect(self.context, range, modes, mappings.as_ref()) {
            Ok(mut filling) => Outcome::Ended(self.host.drive(&blocked, &layout, &mut filling, Bytes::Zeros)),
            Err(error) => Outcome::Refused(errno(error)),
        }
    }

    fn fill(&self, range: PageRange, fill: Fill, source: u64) -> Outcome {
        let blocked = SignalsBlocked::new();
        let layout = self.host.layout.read(&blocked);
        if matches!(fill, Fill::Poison(_)) {
            let regions = layout.iter().filter(|region| region.range().intersect(range).is_some());
            regions.for_each(|region| region.may_be_poisoned.store(true, Ordering::Relaxed));
        }
        let bytes = match fill {
            Fill::Copy(_) => Bytes::At(usize::try_from(source).unwrap_or(usize::MAX)),
            Fill::Zeropage(_) | Fill::Poison(_) => Bytes::Zeros,
        };
        match self.host.engine(&blocked).fill(self.context, range, fill) {
            Ok(mut filling) => Outcome::Ended(self.host.drive(&blocked, &layout, &mut filling, bytes)),
            Err(error) => Outcome::Refused(errno(error)),
        }
    }

    /// Reads messages; `count` bytes from `buffer` on.
    ///
    /// # Errors
    ///
    /// The errno of `read(2)` on a userfaultfd; `ESRCH` in a forked child.
    ///
    /// # Blocking
    ///
    /// Until there is a message, unless the descriptor is non-blocking; ended by a signal handler with
    /// `EINTR`.
    ///
    /// # Safety
    ///
    /// The buffer may be written to.
    pub unsafe fn read(&self, buffer: usize, count: usize) -> Result<usize, Errno> {
        let Some(bell) = self.host.bells.as_ref().get(self.context.index()) else { return Err(Errno::EINVAL) };
        let nonblocking = self.nonblocking.load(Ordering::Relaxed);
        let mut done = 0;
        loop {
            let seen = bell.count.load(Ordering::Acquire);
            let taken = {
                let blocked = SignalsBlocked::new();
                // Only now: a handler that interrupted a read may have forked.
                self.check_process()?;
                bell.drain();
                self.host.engine(&blocked).take(self.context, count - done)
            };
            match taken {
                Ok(taken) => {
                    // SAFETY: the caller lets the buffer change (invariant 1).
                    let (bytes, whole) = unsafe { self.copy_messages(taken, buffer.wrapping_add(done)) };
                    done += bytes;
                    if !whole {
                        self.show_if_unread(bell);
                        return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
                    }
                }
                Err(_) if done > 0 => {
                    self.show_if_unread(bell);
                    return Ok(done);
                }
                // The end of the stream, which no kernel has: see `shut_down`.
                Err(ReadError::ShutDown) => return Ok(0),
                Err(ReadError::Empty) if !nonblocking => {
                    let interrupted = futex_wait(&bell.count, seen, None) == FutexWait::Interrupted;
                    self.check_process()?;
                    if interrupted {
                        // Whoever was woken for a word that it leaves hands the wake on (W9).
                        bell.ring(1);
                        return Err(Errno::EINTR);
                    }
                }
                Err(error) => return Err(errno(error)),
            }
        }
    }

    /// R5: the eventfd was drained.
    fn show_if_unread(&self, bell: &crate::bell::Bell) {
        let blocked = SignalsBlocked::new();
        if self.host.engine(&blocked).unread(self.context) > 0 {
            bell.show();
        }
    }

    /// # Safety
    ///
    /// As [`read`](Self::read).
    unsafe fn copy_messages(&self, taken: userfault_engine::Taken, buffer: usize) -> (usize, bool) {
        let mut done = 0;
        let mut arrived = 0;
        for message in taken.messages() {
            // SAFETY: the caller lets the buffer change (invariant 1).
            if unsafe { crate::sys::copy_out(message, buffer.wrapping_add(done)) }.is_err() {
                break;
            }
            done += message.len();
            arrived += 1;
        }
        let blocked = SignalsBlocked::new();
        let engine = self.host.engine(&blocked);
        if arrived == taken.len() {
            engine.delivered(taken);
            return (done, true);
        }
        if let Some(ring) = engine.give_back(taken, arrived) {
            self.host.ring(ring);
        }
        (done, false)
    }

    /// Brings bytes to missing pages of the range without waking anybody: the host's own installation.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a bad range, `ENOENT` unless one registration holds it, `EEXIST` at a page that has contents, `EFAULT` for a bad source.
    pub fn install(&self, target: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.check_process()?;
        let range = LIMITS.parse(target as u64, bytes.len() as u64, false).map_err(errno)?;
        let blocked = SignalsBlocked::new();
        let layout = self.host.layout.read(&blocked);
        let mut filling = self.host.install(&blocked, range).ok_or(Errno::ENOENT)?;
        let end = self.host.drive(&blocked, &layout, &mut filling, Bytes::At(bytes.as_ptr().addr()));
        end.stop.map_or(Ok(()), |stop| Err(errno(stop)))
    }

    /// Ends every blocked read with 0 bytes, now and later (W17).
    pub fn shut_down(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.host.shut_down(self.context);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.host.machine.is_opener() {
            self.host.release(self.context);
        }
    }
}

/// Plain private memory that contexts of this process can register; unmapped on drop.
///
/// The caller reaches it by address, with what that implies.
///
/// # Examples
///
/// ```
/// use userfault_process::raw::Memory;
///
/// let memory = Memory::map(4)?;
/// assert_eq!(memory.len(), 4 * 4096);
/// # Ok::<(), userfault_abi::Errno>(())
/// ```
pub struct Memory {
    host: &'static Host,
    tag: u32,
    mapping: Arc<Mapping>,
}

impl Memory {
    /// Maps `pages` pages, readable and writable.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSYS` where this process cannot host a context.
    pub fn map(pages: usize) -> Result<Self, Errno> {
        let host = Host::open().map_err(|_| Errno::ENOSYS)?;
        let len = pages.checked_mul(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let mapping = Mapping::reserve(len, Protection::ReadWrite).map_err(|_| Errno::ENOMEM)?;
        let _without_huge_pages = mapping.advise(mapping.range(), Advice::NoHugePage);
        let tag = host.add_plain(mapping.base(), pages).map_err(|error| match error {
            AddError::Host(errno) | AddError::LeftClosed(_, errno) => errno,
            AddError::Register(error) => errno(error),
        })?;
        host.ranges.set_plain(tag, true);
        Ok(Self { host, tag, mapping: Arc::new(mapping) })
    }

    /// Address of the first byte.
    #[must_use]
    pub fn base(&self) -> usize {
        self.mapping.base()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Gives the contents of `pages` back, as `MADV_DONTNEED` does.
    ///
    /// # Errors
    ///
    /// `EINVAL` for pages outside the mapping, `ESRCH` in a forked child, or the host's error.
    ///
    /// # Safety
    ///
    /// Nobody holds a reference to these bytes.
    pub unsafe fn discard(&self, pages: std::ops::Range<usize>) -> Result<(), Errno> {
        // Before any arithmetic: a backwards range may wrap it.
        if pages.start >= pages.end || pages.end > self.mapping.pages() {
            return Err(Errno::EINVAL);
        }
        if !self.host.is_of_this_process() {
            return Err(Errno::ESRCH);
        }
        let start = self.base() + pages.start * PAGE_SIZE;
        let len = pages.len() * PAGE_SIZE;
        let range = LIMITS.parse(start as u64, len as u64, false).map_err(errno)?;
        self.host.discard(range)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.host.machine.is_opener() {
            self.host.remove(self.tag);
        } else {
            self.host.remove_in_child(self.tag);
        }
    }
}
