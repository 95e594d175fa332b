//! Descriptors that somebody else made: taken over in whatever state they are, or received.
//!
//! Kernel counterpart: `SCM_RIGHTS` in `unix(7)`; the state of a descriptor in `poll(2)` and fdinfo.

use core::mem::MaybeUninit;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketType, recv, recvmsg, sockopt,
};
use userfault_client::{Errno, Features, Options, UffdError};

use crate::context::system;
use crate::fdinfo::FdInfo;
use crate::open;
use crate::read::set_nonblocking;
use crate::sys;

/// How far a given descriptor is.
///
/// Example: [`Received`].
#[derive(Clone, Debug)]
pub enum Handshake {
    /// Whoever made it did the handshake; which features are on is read from `/proc/self/fdinfo`.
    Done,
    /// It is fresh: the handshake is done here. Of the options, `kernel_faults` was decided already.
    ToDo(Options),
}

/// Makes the descriptor usable here; returns its features and those that it could have had.
pub(crate) fn take_over(descriptor: BorrowedFd<'_>, handshake: &Handshake) -> Result<(Features, Features), UffdError> {
    let info = FdInfo::of(descriptor)?;
    set_nonblocking(descriptor)?;
    rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)
        .map_err(|error| system("fcntl(F_SETFD)", sys::errno(error)))?;
    let known = open::available();
    match (handshake, is_enabled(descriptor)?) {
        (Handshake::Done, true) => {
            let available = known.unwrap_or(info.features);
            Ok((info.features, available))
        }
        (Handshake::ToDo(options), false) => {
            let available = known.unwrap_or(options.require | options.wish);
            Ok((open::negotiate(descriptor, options, available)?, available))
        }
        (Handshake::Done, false) => Err(system("taking over a descriptor before its handshake", Errno::EINVAL)),
        (Handshake::ToDo(_), true) => Err(system("repeating the handshake of a descriptor", Errno::EINVAL)),
    }
}

/// Before the handshake a poll answers POLLERR; after it, on a nonblocking descriptor, never.
fn is_enabled(descriptor: BorrowedFd<'_>) -> Result<bool, UffdError> {
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&at_once))).map_err(|error| system("poll", sys::errno(error)))?;
    let [descriptor] = fds;
    Ok(!descriptor.revents().contains(PollFlags::ERR))
}

/// What came over a socket.
///
/// # Examples
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use userfault_client::UffdError;
/// use userfault_linux::{Foreign, Handshake, Received};
///
/// /// Takes the descriptor that comes with a line of text.
/// fn receive(socket: &UnixStream) -> Result<Option<Foreign>, UffdError> {
///     let mut received = Received::receive(socket, |bytes| bytes.ends_with(b"\n"))?;
///     received.take_userfaultfd().map(|descriptor| Foreign::from_fd(descriptor, &Handshake::Done)).transpose()
/// }
///
/// // One end has a line to send, and no descriptor.
/// let (near, far) = UnixStream::pair()?;
/// std::io::Write::write_all(&mut &far, b"here it is\n")?;
/// assert!(receive(&near)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Received {
    /// The bytes, at least as many as the receiver wanted.
    pub bytes: Vec<u8>,
    /// The descriptors that came with them, in order, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

impl Received {
    /// Receives bytes and the descriptors among them from a Unix socket, until `is_enough(bytes)`.
    ///
    /// Streams have no end of message: only the reader of a protocol knows when it has all of it.
    /// Sockets that keep messages (`SOCK_SEQPACKET`, `SOCK_DGRAM`) are received one message at a time,
    /// whole, whatever its size. The end of a stream ends it too; whether that is too early is for the
    /// caller to judge.
    ///
    /// # Errors
    ///
    /// [`UffdError::System`]: the socket's error; `EMFILE` if descriptors came that this process has
    /// no room for, or more than 253 at once (those that came are closed).
    ///
    /// # Blocking
    ///
    /// Until enough has come, on nonblocking sockets too: half a message would be of no use.
    ///
    /// # Source
    ///
    /// `unix(7)`.
    pub fn receive(socket: impl AsFd, mut is_enough: impl FnMut(&[u8]) -> bool) -> Result<Self, UffdError> {
        let socket = socket.as_fd();
        let mut received = Self { bytes: Vec::new(), descriptors: Vec::new() };
        loop {
            let came = received.receive_once(socket)?;
            if came == 0 || is_enough(&received.bytes) {
                return Ok(received);
            }
        }
    }

    /// Takes the first userfaultfd among the descriptors, if there is one.
    pub fn take_userfaultfd(&mut self) -> Option<OwnedFd> {
        let is_userfaultfd = |descriptor: &OwnedFd| FdInfo::of(descriptor).is_ok();
        let index = self.descriptors.iter().position(is_userfaultfd)?;
        Some(self.descriptors.remove(index))
    }

    fn receive_once(&mut self, socket: BorrowedFd<'_>) -> Result<usize, UffdError> {
        let lost = |error| system("recvmsg", sys::errno(error));
        let mut readable = [PollFd::new(&socket, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut readable, None)).map_err(lost)?;
        let old = self.bytes.len();
        let room = next_size(socket).map_err(lost)?;
        self.bytes.resize(old + room, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let target = self.bytes.get_mut(old..).unwrap_or_default();
        let answer = rustix::io::retry_on_intr(|| {
            let mut vector = [IoSliceMut::new(&mut *target)];
            recvmsg(socket, &mut vector, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let came = answer.as_ref().map_or(0, |message| message.bytes.min(room));
        self.bytes.truncate(old + came);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if answer.map_err(lost)?.flags.contains(ReturnFlags::CTRUNC) {
            return Err(system("receiving descriptors", Errno::EMFILE));
        }
        Ok(came)
    }
}

/// As many as the kernel lets one message carry (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// A buffer that holds the next message, or a good part of a stream.
fn next_size(socket: BorrowedFd<'_>) -> Result<usize, rustix::io::Errno> {
    const PART: usize = 64 * 1024;
    if sockopt::socket_type(socket)? == SocketType::STREAM {
        return Ok(PART);
    }
    let mut nothing = [0; 1];
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, len) = rustix::io::retry_on_intr(|| recv(socket, &mut nothing, flags))?;
    Ok(len.max(1))
}
