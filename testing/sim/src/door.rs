//! Descriptors: what a program can do with them, with arguments that may be bad.
//!
//! Kernel counterpart: the file operations of a userfaultfd.

use userfault_abi::{Errno, IoctlMask, OpenFlags, PollEvents, RegisterModes};
use userfault_engine::{
    AddressSpace, Call, ContextId, FdInfo, Outcome, Page, PageRange, Privilege, Protocol, RegisterError, Reply, errno,
};

use crate::fill::Bytes;
use crate::thread::State;
use crate::{Simulated, Simulator};

/// A descriptor's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor(pub usize);

/// Where an argument or a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In ordinary memory.
    Good,
    /// Nowhere.
    Nowhere,
    /// In memory that can only be read.
    ReadOnly,
    /// So many bytes in ordinary memory, the rest nowhere.
    Cut(usize),
}

impl Place {
    pub(crate) fn readable(self, len: usize) -> usize {
        match self {
            Self::Good | Self::ReadOnly => len,
            Self::Nowhere => 0,
            Self::Cut(at) => len.min(at),
        }
    }

    pub(crate) fn writable(self, len: usize) -> usize {
        if self == Self::ReadOnly { 0 } else { self.readable(len) }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) context: ContextId,
    protocol: Protocol,
    nonblocking: bool,
    references: u32,
    pub(crate) rings: u32,
}

impl Simulator {
    /// Opens a descriptor; `flags` as of `userfaultfd(2)`.
    ///
    /// # Errors
    ///
    /// What the system call says.
    pub fn open(&mut self, flags: u32, protocol: Protocol, privilege: Privilege) -> Result<Descriptor, Errno> {
        let flags = OpenFlags::from_bits(flags);
        let context = match self.space.open(flags, protocol, privilege) {
            Ok(opening) => opening.publish(),
            Err(error) => return Err(errno(error)),
        };
        let nonblocking = flags.contains(OpenFlags::NONBLOCK);
        self.descriptors.push(Some(Open { context, protocol, nonblocking, references: 1, rings: 0 }));
        Ok(Descriptor(self.descriptors.len() - 1))
    }

    /// Another reference to the same open file.
    pub fn duplicate(&mut self, descriptor: Descriptor) {
        self.open_mut(descriptor).references += 1;
    }

    /// Drops a reference; the last one ends the context.
    pub fn close(&mut self, descriptor: Descriptor) {
        let open = self.open_mut(descriptor);
        open.references -= 1;
        if open.references > 0 {
            return;
        }
        let context = open.context;
        self.descriptors[descriptor.0] = None;
        let _known = self.space.begin_release(context);
        self.finish_close(context);
    }

    /// The second half of a close; for tests that stop in between.
    pub fn finish_close(&mut self, context: ContextId) {
        let mut from = Page::new(0);
        while let Some(released) = self.space.release_range(context, from) {
            self.lift(released.range);
            from = released.range.end();
        }
        loop {
            let mut woken = self.space.finish_release(context);
            let more = woken.rest.take().is_some();
            self.unpark(woken);
            if !more {
                return;
            }
        }
    }

    /// The context behind a descriptor.
    #[must_use]
    pub fn context(&self, descriptor: Descriptor) -> Option<ContextId> {
        self.descriptors.get(descriptor.0).copied().flatten().map(|open| open.context)
    }

    /// Sets or clears `O_NONBLOCK`.
    pub fn set_nonblocking(&mut self, descriptor: Descriptor, nonblocking: bool) {
        self.open_mut(descriptor).nonblocking = nonblocking;
    }

    pub(crate) fn is_nonblocking(&self, descriptor: Descriptor) -> bool {
        self.descriptors.get(descriptor.0).copied().flatten().is_some_and(|open| open.nonblocking)
    }

    /// How often pollers of the descriptor were told to look.
    #[must_use]
    pub fn rings(&self, descriptor: Descriptor) -> u32 {
        self.descriptors.get(descriptor.0).copied().flatten().map_or(0, |open| open.rings)
    }

    /// `poll(2)`.
    #[must_use]
    pub fn poll(&self, descriptor: Descriptor) -> PollEvents {
        self.context(descriptor)
            .map_or(PollEvents::HUP, |context| self.space.poll(context, self.is_nonblocking(descriptor)))
    }

    /// The three lines of fdinfo.
    #[must_use]
    pub fn fdinfo(&self, descriptor: Descriptor) -> Option<FdInfo> {
        self.space.fdinfo(self.context(descriptor)?)
    }

    /// `ioctl(2)` with the bytes of the argument, which lies at `at`; what is written back is in it.
    ///
    /// # Errors
    ///
    /// What the system call says.
    pub fn ioctl(&mut self, descriptor: Descriptor, request: u32, argument: &mut [u8], at: Place) -> Result<(), Errno> {
        let open = *self.open_mut(descriptor);
        let wanted = AddressSpace::<Simulated>::input_len(open.protocol, request).min(argument.len());
        let input = argument[..at.readable(wanted)].to_vec();
        let reply = match self.space.ioctl(open.context, request, &input) {
            Err(reply) => reply,
            Ok(call) => {
                let outcome = self.perform(open.context, &call);
                self.space.answer(call, outcome)
            }
        };
        let copied = copy_out(&reply, argument, at);
        let settled = self.space.settle(reply, copied);
        self.unpark(settled.woken);
        self.ring(settled.ring);
        settled.result
    }

    fn perform(&mut self, context: ContextId, call: &Call) -> Outcome {
        match *call {
            Call::Api(_) => Outcome::Done,
            Call::Register { range, modes } => {
                let mappings = self.memory.snapshot(range);
                match self.space.register(context, range, modes, &mappings) {
                    Ok(ioctls) => Outcome::Registered(ioctls),
                    Err(error) => Outcome::Refused(errno(error)),
                }
            }
            Call::Unregister { range } => {
                let mappings = self.memory.snapshot(range);
                match self.space.unregister(context, range, &mappings) {
                    Ok(woken) => {
                        self.lift(range);
                        self.unpark(woken);
                        Outcome::Done
                    }
                    Err(error) => Outcome::Refused(errno(error)),
                }
            }
            Call::Wake { range } => {
                let woken = self.space.wake(context, range);
                self.unpark(woken);
                Outcome::Done
            }
            Call::Fill { range, fill, source } => match self.space.fill(context, range, fill) {
                Ok(filling) => {
                    let is_copy = matches!(fill, userfault_engine::Fill::Copy(_));
                    let bytes = if is_copy { Bytes::Source(source) } else { Bytes::Zeros };
                    Outcome::Ended(self.drive(filling, bytes))
                }
                Err(error) => Outcome::Refused(errno(error)),
            },
            Call::Writeprotect { range, modes } => {
                let mappings = self.memory.snapshot(range);
                match self.space.writeprotect(context, range, modes, &mappings) {
                    Ok(filling) => Outcome::Ended(self.drive(filling, Bytes::Kept)),
                    Err(error) => Outcome::Refused(errno(error)),
                }
            }
        }
    }

    /// `read(2)` that does not block; the buffer of `count` bytes lies at `at`.
    ///
    /// # Errors
    ///
    /// What the system call says, `EAGAIN` also where it would block.
    pub fn read(&mut self, descriptor: Descriptor, count: usize, at: Place) -> Result<Vec<u8>, Errno> {
        let context = self.open_mut(descriptor).context;
        let mut read = Vec::new();
        loop {
            let taken = match self.space.take(context, count - read.len()) {
                Ok(taken) => taken,
                Err(_) if !read.is_empty() => return Ok(read),
                Err(error) => return Err(errno(error)),
            };
            let messages: Vec<Vec<u8>> = taken.messages().map(<[u8]>::to_vec).collect();
            for (arrived, message) in messages.iter().enumerate() {
                if at.writable(count) < read.len() + message.len() {
                    let ring = self.space.give_back(taken, arrived);
                    self.ring(ring);
                    return if read.is_empty() { Err(Errno::EFAULT) } else { Ok(read) };
                }
                read.extend_from_slice(message);
            }
            self.space.delivered(taken);
        }
    }

    /// Ends waiting on the descriptor for good: its blocked readers return.
    pub fn shut_down(&mut self, descriptor: Descriptor) {
        let Some(context) = self.context(descriptor) else { return };
        self.space.shut_down(context);
        for _ in 0..self.threads.len() {
            self.wake_reader(context);
        }
    }

    /// REGISTER without the byte door.
    ///
    /// # Errors
    ///
    /// As the engine's.
    pub fn register(
        &mut self,
        descriptor: Descriptor,
        range: PageRange,
        modes: RegisterModes,
    ) -> Result<IoctlMask, RegisterError> {
        let mappings = self.memory.snapshot(range);
        let context = self.open_mut(descriptor).context;
        self.space.register(context, range, modes, &mappings)
    }

    /// Whether a thread is asleep in a read or a fault.
    #[must_use]
    pub fn is_asleep(&self, thread: usize) -> bool {
        matches!(self.observe(thread), State::Asleep(_) | State::Reading)
    }

    fn open_mut(&mut self, descriptor: Descriptor) -> &mut Open {
        let open = self.descriptors.get_mut(descriptor.0).and_then(Option::as_mut);
        open.unwrap_or_else(|| panic!("{descriptor:?} is closed"))
    }
}

/// Writes back as much as can be written; whether that was all.
fn copy_out(reply: &Reply, argument: &mut [u8], at: Place) -> bool {
    let answer = reply.answer();
    let start = answer.offset();
    let end = start + answer.bytes().len();
    let until = at.writable(argument.len()).min(end).max(start);
    argument[start..until].copy_from_slice(&answer.bytes()[..until - start]);
    until == end
}
