//! One read by io_uring.
//!
//! Invariants:
//!
//! 1. The rings are mapped for as long as they are looked at, and the kernel writes nothing while nothing is
//!    submitted: this is the only thread that does.
//! 2. As in `kernel_access.rs`.
#![expect(unsafe_code, reason = "rings shared with the kernel; the two invariants above are the proof")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_long, c_void};

use super::{LEN, Seen, Spot, answer, fate, owned, piped};

/// What a row says where there is no io_uring.
pub(super) const ABSENT: &str = "absent";

const READ: u8 = 22;
const GET_EVENTS: u32 = 1;
/// Where `mmap` finds the three parts.
const SUBMISSIONS: i64 = 0;
const COMPLETIONS: i64 = 0x800_0000;
const ENTRIES: i64 = 0x1000_0000;

/// `struct io_uring_params`: the fields that are used here.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    asked: [u32; 10],
    submissions: Offsets,
    completions: Offsets,
}

#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// Flags and dropped, or overflow and where the entries are.
    others: [u32; 2],
    /// Where the indices of the entries are.
    array: u32,
    rest: [u32; 3],
}

/// A page that is shared with the kernel.
struct Shared(*mut c_void);

impl Shared {
    fn map(ring: &File, offset: i64) -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a fresh mapping.
        let base = unsafe { libc::mmap(ptr::null_mut(), 4096, access, flags, ring.as_raw_fd(), offset) };
        assert_ne!(base, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(base)
    }

    fn word(&self, offset: u32) -> *mut u32 {
        assert!(offset < 4096);
        self.0.wrapping_byte_add(offset as usize).cast()
    }

    fn store(&self, offset: u32, value: u32) {
        // SAFETY: inside the page (invariant 1).
        unsafe { self.word(offset).write_volatile(value) };
    }

    fn load(&self, offset: u32) -> u32 {
        // SAFETY: inside the page (invariant 1).
        unsafe { self.word(offset).read_volatile() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody looks any more (invariant 1).
        unsafe { libc::munmap(self.0, 4096) };
    }
}

/// Reads from a pipe to the missing page.
pub(super) fn read(spot: Spot) -> Seen {
    let mut parameters = Parameters::default();
    assert_eq!(size_of::<Parameters>(), 120);
    // SAFETY: a live value of the kernel's layout.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
    if ring < 0 {
        return Seen::new(answer(ring), ABSENT);
    }
    let ring = owned(c_int::try_from(ring).unwrap());
    let pipe = piped(&[7; LEN]);
    let number = pipe.as_raw_fd().cast_unsigned();
    let [submissions, completions, entries] = [SUBMISSIONS, COMPLETIONS, ENTRIES].map(|at| Shared::map(&ring, at));
    let address = spot.missing.addr() as u64;
    // Operation, descriptor, no offset (2 words), address (2), length.
    let all_ones = u32::MAX;
    let halves = [address & u64::from(u32::MAX), address >> 32].map(|half| u32::try_from(half).unwrap());
    let words = [u32::from(READ), number, all_ones, all_ones, halves[0], halves[1], u32::try_from(LEN).unwrap()];
    (0..).step_by(4).zip(words).for_each(|(offset, word)| entries.store(offset, word));
    submissions.store(parameters.submissions.array, 0);
    submissions.store(parameters.submissions.tail, 1);
    // SAFETY: memory of the row (invariant 2) is all that is named.
    let entered =
        unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, GET_EVENTS, ptr::null::<u8>(), 0) };
    assert_eq!((entered, completions.load(parameters.completions.tail)), (1, 1));
    let [_, first] = parameters.completions.others;
    let result = completions.load(first + 8).cast_signed();
    match usize::try_from(result) {
        Ok(done) => Seen::new(Ok(done), if done == LEN { "" } else { fate(pipe.as_raw_fd(), LEN) }),
        Err(_) => Seen::new(Err(-result), fate(pipe.as_raw_fd(), LEN)),
    }
}

const _: () = assert!(size_of::<c_long>() == 8, "the layouts above are of 64-bit machines");
