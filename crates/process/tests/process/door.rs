//! The raw door, with the arguments that these tests give it.
//!
//! 1. Arguments and buffers are live locals of this file; pages are of a [`Memory`] that the test keeps, and
//!    reached only through `access`.
#![expect(unsafe_code, reason = "calls by address; the invariant above is this file's proof")]

use userfault_abi::errno::Errno;
use userfault_abi::request;
use userfault_abi::{Api, Copy, Features, Message, OpenFlags, Poison, Range, Register, Writeprotect, Zeropage};
use userfault_process::raw::{Descriptor, Memory, Privilege, Protocol};

use crate::support::PAGE;

pub(crate) struct Door(pub(crate) Descriptor);

impl Door {
    pub(crate) fn open(features: Features) -> Self {
        let flags = OpenFlags::USER_MODE_ONLY | OpenFlags::NONBLOCK;
        let door = Self(Descriptor::open(flags, Protocol::Modern, Privilege::UserModeOnly).unwrap());
        let api = Api { api: request::UFFD_API, features: features.bits(), ioctls: 0 };
        assert_eq!(door.call(request::API, &mut api.encode()), Ok(()));
        door
    }

    fn call(&self, request: u32, argument: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: a live buffer (invariant 1).
        unsafe { self.0.ioctl(request, argument.as_mut_ptr().expose_provenance()) }
    }

    pub(crate) fn register(&self, range: Range, mode: u64) -> Result<(), Errno> {
        self.call(request::REGISTER, &mut Register { range, mode, ioctls: 0 }.encode())
    }

    pub(crate) fn unregister(&self, range: Range) -> Result<(), Errno> {
        self.call(request::UNREGISTER, &mut range.encode())
    }

    pub(crate) fn wake(&self, range: Range) -> Result<(), Errno> {
        self.call(request::WAKE, &mut range.encode())
    }

    pub(crate) fn copy(&self, range: Range, bytes: &[u8], mode: u64) -> Result<(), Errno> {
        assert_eq!(bytes.len() as u64, range.len);
        self.copy_from(range, bytes.as_ptr().expose_provenance(), mode)
    }

    pub(crate) fn copy_from(&self, range: Range, source: usize, mode: u64) -> Result<(), Errno> {
        let copy = Copy { dst: range.start, src: source as u64, len: range.len, mode, copy: 0 };
        self.call(request::COPY, &mut copy.encode())
    }

    pub(crate) fn zeropage(&self, range: Range) -> Result<(), Errno> {
        self.call(request::ZEROPAGE, &mut Zeropage { range, mode: 0, zeropage: 0 }.encode())
    }

    pub(crate) fn poison(&self, range: Range) -> Result<(), Errno> {
        self.call(request::POISON, &mut Poison { range, mode: 0, updated: 0 }.encode())
    }

    pub(crate) fn writeprotect(&self, range: Range, protect: bool) -> Result<(), Errno> {
        self.call(request::WRITEPROTECT, &mut Writeprotect { range, mode: u64::from(protect) }.encode())
    }

    /// At most `most` messages.
    pub(crate) fn read(&self, most: usize) -> Vec<Message> {
        let mut buffer = vec![0_u8; most * Message::SIZE];
        // SAFETY: a live buffer (invariant 1).
        let read = unsafe { self.0.read(buffer.as_mut_ptr().expose_provenance(), buffer.len()) };
        let bytes = read.unwrap_or(0);
        let (messages, _) = buffer[..bytes].as_chunks::<{ Message::SIZE }>();
        messages.iter().map(|bytes| Message::from_bytes(*bytes)).collect()
    }
}

/// Pages of `memory` as an argument.
pub(crate) fn pages(memory: &Memory, pages: std::ops::Range<usize>) -> Range {
    Range { start: (memory.base() + pages.start * PAGE) as u64, len: (pages.len() * PAGE) as u64 }
}

/// Gives pages back.
pub(crate) fn discard(memory: &Memory, pages: std::ops::Range<usize>) -> Result<(), Errno> {
    // SAFETY: no references (invariant 1).
    unsafe { memory.discard(pages) }
}
