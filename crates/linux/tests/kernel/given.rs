//! Descriptors of other processes, received over a Unix socket.

use core::mem::MaybeUninit;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use userfault_abi::{CopyModes, PoisonModes, ZeropageModes};
use userfault_client::{
    Errno, Event, Features, Options, Progress, Region as _, RegisterModes, Stopped, Uffd as _, UffdError, Wait,
    WriteProtect,
};
use userfault_linux::{Foreign, Handshake, Received, Uffd};

use crate::support::{Events, WATCHDOG, command, expect_success, is_alone, open, path_of, pattern, patterns};

const PAGES: usize = 5;

/// Sends all bytes, the descriptors with the first of them.
fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let mut sent = sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    while sent < bytes.len() {
        sent += rustix::net::send(&socket, &bytes[sent..], SendFlags::empty()).unwrap();
    }
}

/// A program whose memory is answered by somebody else, like a virtual machine that is resumed.
fn be_the_other_process() {
    let socket = std::io::stdin();
    let options = Options { require: Features::EVENT_REMOVE, ..Options::default() };
    let uffd = Uffd::open(&options).unwrap();
    let region = uffd.map(PAGES, RegisterModes::MISSING | RegisterModes::WP).unwrap();
    let padding = "x".repeat(300_000);
    let message = format!("{{\"pad\": \"{padding}\", \"base_host_virt_addr\": {}}}\n", region.base());
    let file = rustix::fs::memfd_create("beside", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    send(&socket, message.as_bytes(), &[file.as_fd(), uffd.as_fd()]);
    let mut window = region.window(0..PAGES).unwrap();
    let expected = [patterns(0..PAGES - 1, 0), vec![0; region.page_size()]].concat();
    assert!(window.as_ref() == expected, "every byte");
    window.as_mut()[0] = 0; // protected meanwhile: waits for the other side
    region.discard(&mut window, 1..2).unwrap(); // as does this
}

// spec: m/fork/received, m/fill/other-process, m/fdinfo/any, m/close/exit
#[test]
fn memory_of_another_process_is_answered_through_a_received_descriptor() {
    if is_alone() {
        return be_the_other_process();
    }
    drop(open!());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = command(&path_of(&memory_of_another_process_is_answered_through_a_received_descriptor))
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut received = Received::receive(&ours, |bytes| bytes.ends_with(b"}\n")).unwrap();
    assert!(received.bytes.len() > 300_000);
    assert_eq!(received.descriptors.len(), 2);
    let foreign = Foreign::from_fd(received.take_userfaultfd().unwrap(), &Handshake::Done).unwrap();
    assert_eq!(received.descriptors.len(), 1, "the file is left");
    assert!(received.take_userfaultfd().is_none());
    assert_eq!(foreign.features(), Features::EVENT_REMOVE);

    let text = String::from_utf8(received.bytes).unwrap();
    let base: u64 = text.trim_end().trim_end_matches('}').rsplit(' ').next().unwrap().parse().unwrap();
    let page = rustix::param::page_size() as u64;
    let of = |pages: core::ops::Range<u64>| base + pages.start * page..base + pages.end * page;
    let next = || {
        let mut events = Events::with_capacity(1);
        assert_eq!(foreign.read(Wait::AtMost(WATCHDOG), &mut events), Ok(1));
        events.pop().unwrap()
    };
    // Page by page, then the rest at once.
    for number in 0..2 {
        let Event::Fault(fault) = next() else { panic!("a fault") };
        assert_eq!(fault.address, base + number as u64 * page);
        assert_eq!(foreign.copy(fault.address, &pattern(number, 0), CopyModes::WP), Ok(Progress::all(1)));
    }
    assert!(matches!(next(), Event::Fault(fault) if fault.address == base + 2 * page));
    let zeros = of(4..5);
    assert_eq!(foreign.zeropage(&zeros, ZeropageModes::NONE), Progress::all(1));
    assert_eq!(foreign.zeropage(&zeros, ZeropageModes::NONE), Progress::stopped(0, Stopped::AlreadyPresent));
    assert_eq!(foreign.copy(base + 2 * page, &patterns(2..4, 0), CopyModes::NONE), Ok(Progress::all(2)));
    let Event::Fault(fault) = next() else { panic!("a fault") };
    assert_eq!((fault.address, fault.write), (base, true));
    foreign.writeprotect(&of(0..1), WriteProtect::Lift).unwrap();
    let Event::Remove { start, end } = next() else { panic!("a removal") };
    assert_eq!(start..end, of(1..2));
    expect_success(&child.wait_with_output().unwrap());

    // It has exited; nobody else keeps its memory.
    let gone = Progress::stopped(0, Stopped::Gone);
    assert_eq!(foreign.copy(base, &pattern(0, 0), CopyModes::NONE), Ok(gone));
    assert_eq!(foreign.poison(&of(0..1), PoisonModes::NONE), gone);
    assert_eq!(foreign.wake(&of(0..1)), Ok(()));
    let refused = UffdError::System { operation: "UFFDIO_REGISTER", errno: Errno::ENOMEM };
    assert_eq!(foreign.register(&of(0..1), RegisterModes::MISSING), Err(refused));
    foreign.wake_all();
}

// spec: m/move/caller, m/register/mm
#[test]
fn a_descriptor_of_this_process_is_not_taken_for_another_ones() {
    let uffd = open!();
    if !uffd.capabilities().available.contains(Features::MOVE) {
        return crate::support::skip("the kernel has no MOVE and cannot tell");
    }
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    send(&theirs, &[7; 100_000], &[uffd.as_fd()]);
    send(&theirs, &[8; 10], &[uffd.as_fd(), uffd.as_fd()]);
    // Messages are kept apart and whole.
    let mut first = Received::receive(&ours, |_| true).unwrap();
    assert_eq!(first.bytes, [7; 100_000]);
    let mut second = Received::receive(&ours, |_| true).unwrap();
    assert_eq!((second.bytes.len(), second.descriptors.len()), (10, 2));

    let refused = Foreign::from_fd(first.take_userfaultfd().unwrap(), &Handshake::Done);
    assert!(matches!(refused, Err(UffdError::System { errno: Errno::EINVAL, .. })));
    // Not even before its handshake.
    let fresh = userfault_linux::raw::create(userfault_abi::OpenFlags::USER_MODE_ONLY).unwrap();
    let refused = Foreign::from_fd(fresh, &Handshake::ToDo(Options::default()));
    assert!(matches!(refused, Err(UffdError::System { errno: Errno::EINVAL, .. })));
    assert!(Uffd::from_fd(second.take_userfaultfd().unwrap(), &Handshake::Done).is_ok());
}

#[test]
fn a_sender_who_leaves_early_ends_the_receipt() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    rustix::io::write(&theirs, b"half").unwrap();
    drop(theirs);
    let received = Received::receive(&ours, |_| false).unwrap();
    assert_eq!(received.bytes, b"half");
    assert!(received.descriptors.is_empty());
}
