//! Every number, length and offset of this crate, against the system's C header (`layout/header.rs`)
//! and the running kernel (here).
//!
//! Separate from the unit tables, which repeat what the specification says: here somebody else says
//! it. What cannot be asked is reported as "skipped", and fails under `USERFAULT_REQUIRE_KERNEL=1`.
//!
//! Unsafe code relies on these:
//!
//! 1. The kernel touches an argument only within the length in the request word, and `ask` hands it
//!    a buffer that is at least as long.
//! 2. The only memory ever named *inside* an argument is page 0, page 1 (never mapped) or a page that
//!    its test mapped itself and never reads or writes.

#![cfg(not(miri))]
#![expect(unsafe_code, reason = "raw system calls; the two invariants above are this file's proof")]
#![expect(clippy::expect_used, reason = "the helpers of a test may fail it")]

#[path = "layout/header.rs"]
mod header;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use userfault_abi::{
    Api, Continue, Copy, Errno, Features, IoctlMask, Move, MoveModes, OpenFlags, Poison, Range, Register,
    RegisterModes, Writeprotect, Zeropage,
};
use userfault_abi::{original, request};

/// Reports a test that cannot run here, or fails it if it must run.
fn skip(reason: &str) {
    let required = std::env::var_os("USERFAULT_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "required, but cannot run because {reason}");
    println!("skipped: because {reason}");
}

fn length(bytes: usize) -> u64 {
    bytes.try_into().expect("a length fits")
}

/// Opens a descriptor of the running kernel; reports a skipped test if that is impossible.
fn open() -> Option<OwnedFd> {
    #[cfg(target_arch = "x86_64")]
    assert_eq!(libc::SYS_userfaultfd, request::SYSCALL_X86_64);
    let flags = OpenFlags::USER_MODE_ONLY | OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
    // SAFETY: the call takes an integer and touches no memory of ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, flags.bits()) };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel just returned this descriptor, and nothing else knows it.
        Ok(descriptor @ 0..) => Some(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => {
            skip(&format!("userfaultfd: {}", io::Error::last_os_error()));
            None
        }
    }
}

/// What no kernel writes by accident.
const CANARY: u8 = 0xA5;

/// Asks the kernel with the first `input` bytes of `argument`, and canaries in all others; returns the
/// errno, or `None` for success, and the buffer afterwards.
fn ask(descriptor: &OwnedFd, request: u32, argument: &[u8], input: usize) -> (Option<Errno>, [u8; 64]) {
    let mut buffer = [CANARY; 64];
    buffer[..input].copy_from_slice(&argument[..input]);
    assert!(request >> 16 & 0x3FFF <= 64, "invariant 1");
    // SAFETY:
    // 1. The kernel stays within the length in the request word, which is at most the buffer's.
    // 2. What the argument names is never mapped, or a page nobody looks at (invariant 2).
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), request.into(), buffer.as_mut_ptr()) };
    let errno = (result < 0).then(|| Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    (errno, buffer)
}

/// A descriptor after the handshake, and the features that were answered.
fn shake_hands() -> Option<(OwnedFd, Features)> {
    let descriptor = open()?;
    let asked = Api { api: request::UFFD_API, ..Api::default() };
    let (errno, buffer) = ask(&descriptor, request::API, &asked.encode(), Api::INPUT);
    assert_eq!(errno, None, "the handshake");
    assert!(buffer[Api::SIZE..].iter().all(|byte| *byte == CANARY), "no longer than uffdio_api");
    let answer = Api::decode(&buffer).expect("the buffer is long enough");
    assert_eq!(answer.api, request::UFFD_API);
    assert_eq!(answer.ioctls, original::API_IOCTLS.bits());
    Some((descriptor, Features::from_bits(answer.features)))
}

/// Whether the kernel has all we name; reports a skipped test if not.
fn is_complete(features: Features) -> bool {
    let lacking = Features::ALL - features;
    if !lacking.is_empty() {
        skip(&format!("this kernel lacks {lacking}"));
    }
    lacking.is_empty()
}

// spec: m/api/answer
#[test]
fn the_kernel_answers_every_feature_that_has_a_name() {
    let Some((_descriptor, features)) = shake_hands() else {
        return;
    };
    println!("features {features}");
    if is_complete(features) {
        assert!(features.contains(Features::from_bits(0x1FFFF)));
    }
}

/// A request on page 0, which is never mapped; the bytes; what is read, and what is written.
type Unmapped = (u32, Vec<u8>, usize, std::ops::Range<usize>);

fn requests_on_unmapped_memory() -> [Unmapped; 6] {
    let page = page_size();
    let range = Range { start: 0, len: page };
    let copy = Copy { src: page, len: page, ..Copy::default() };
    let moving = Move { src: page, len: page, ..Move::default() };
    let zeropage = Zeropage { range, ..Zeropage::default() };
    let protect = Writeprotect { range, ..Writeprotect::default() };
    let proceed = Continue { range, ..Continue::default() };
    let poison = Poison { range, ..Poison::default() };
    [
        (request::COPY, copy.encode().to_vec(), Copy::INPUT, Copy::ANSWER),
        (request::MOVE, moving.encode().to_vec(), Move::INPUT, Move::ANSWER),
        (request::ZEROPAGE, zeropage.encode().to_vec(), Zeropage::INPUT, Zeropage::ANSWER),
        (request::WRITEPROTECT, protect.encode().to_vec(), Writeprotect::INPUT, Writeprotect::ANSWER),
        (request::CONTINUE, proceed.encode().to_vec(), Continue::INPUT, Continue::ANSWER),
        (request::POISON, poison.encode().to_vec(), Poison::INPUT, Poison::ANSWER),
    ]
}

fn page_size() -> u64 {
    // SAFETY: the call takes an integer and touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.try_into().expect("a page size is positive")
}

// spec: m/fill/one-mapping, m/fill/result
#[test]
fn every_fill_is_recognised_and_writes_its_answer_and_nothing_else() {
    let Some((descriptor, features)) = shake_hands() else {
        return;
    };
    if !is_complete(features) {
        return;
    }
    let result = (-i64::from(Errno::ENOENT.raw())).to_ne_bytes();
    for (request, argument, input, answer) in requests_on_unmapped_memory() {
        let name = request::name(request).expect("all have names");
        let (errno, buffer) = ask(&descriptor, request, &argument, input);
        assert_eq!(errno, Some(Errno::ENOENT), "{name}");
        let mut expected = [CANARY; 64];
        expected[..input].copy_from_slice(&argument[..input]);
        if !answer.is_empty() {
            expected[answer].copy_from_slice(&result);
        }
        assert_eq!(buffer, expected, "{name}");
    }
}

// spec: m/api/unknown-ioctl
#[test]
fn a_fill_with_another_length_direction_or_number_is_not_recognised() {
    let Some((descriptor, _)) = shake_hands() else {
        return;
    };
    for (request, argument, input, _) in requests_on_unmapped_memory() {
        for wrong in [request + (8 << 16), request - (8 << 16), request ^ (1 << 30), request | 0x80] {
            assert_eq!(request::name(wrong), None, "{wrong:#x}");
            let (errno, buffer) = ask(&descriptor, wrong, &argument, input);
            assert_eq!(errno, Some(Errno::EINVAL), "{wrong:#x}");
            assert!(buffer[input..].iter().all(|byte| *byte == CANARY), "{wrong:#x}");
        }
    }
}

/// Maps pages that nothing looks at, for the rest of the test's life; returns their address.
fn map(pages: u64) -> u64 {
    let bytes = usize::try_from(pages * page_size()).expect("a length fits");
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    length(start.addr())
}

/// Registers a range and returns the answered ioctls, after a look at what else was written.
fn register(descriptor: &OwnedFd, range: Range, modes: RegisterModes) -> IoctlMask {
    let argument = Register { range, mode: modes.bits(), ioctls: 0 }.encode();
    let (errno, buffer) = ask(descriptor, request::REGISTER, &argument, Register::INPUT);
    assert_eq!(errno, None);
    let mut expected = [CANARY; 64];
    expected[..Register::INPUT].copy_from_slice(&argument[..Register::INPUT]);
    expected[Register::ANSWER].copy_from_slice(&buffer[Register::ANSWER]);
    assert_eq!(buffer, expected);
    IoctlMask::from_bits(Register::decode(&buffer).expect("the buffer is long enough").ioctls)
}

// spec: m/register/answer
#[test]
fn a_registration_answers_the_ioctls_that_have_names() {
    let Some((descriptor, features)) = shake_hands() else {
        return;
    };
    if !is_complete(features) {
        return;
    }
    let range = Range { start: map(1), len: page_size() };
    let fills = IoctlMask::COPY | IoctlMask::ZEROPAGE | IoctlMask::MOVE | IoctlMask::POISON;
    for (modes, ioctls) in [
        (RegisterModes::MISSING, IoctlMask::WAKE | fills),
        (RegisterModes::WP, IoctlMask::WAKE | fills | IoctlMask::WRITEPROTECT),
    ] {
        assert_eq!(register(&descriptor, range, modes), ioctls, "{modes}");
    }
    for request in [request::WAKE, request::UNREGISTER] {
        let (errno, buffer) = ask(&descriptor, request, &range.encode(), Range::INPUT);
        assert_eq!(errno, None);
        assert_eq!(buffer[..Range::SIZE], range.encode());
        assert!(buffer[Range::SIZE..].iter().all(|byte| *byte == CANARY), "nothing is written");
    }
}

// spec: m/move/fit, m/move/page-order, m/move/holes
#[test]
fn a_move_tells_destination_from_source_and_knows_the_mode_for_holes() {
    let Some((descriptor, features)) = shake_hands() else {
        return;
    };
    if !is_complete(features) {
        return;
    }
    let page = page_size();
    let registered = map(2);
    let free = registered + page;
    register(&descriptor, Range { start: registered, len: page }, RegisterModes::MISSING);
    let holes = MoveModes::ALLOW_SRC_HOLES;
    for (dst, src, mode, errno, moved) in [
        (registered, free, MoveModes::NONE, Some(Errno::ENOENT), -2),
        (registered, free, holes, None, page.cast_signed()),
        (free, registered, holes, Some(Errno::EINVAL), -22), // the destination is not registered
    ] {
        let argument = Move { dst, src, len: page, mode: mode.bits(), moved: 0 };
        let (answer, buffer) = ask(&descriptor, request::MOVE, &argument.encode(), Move::INPUT);
        assert_eq!(answer, errno, "{mode}");
        assert_eq!(Move::decode(&buffer), Some(Move { moved, ..argument }), "{mode}");
    }
}
