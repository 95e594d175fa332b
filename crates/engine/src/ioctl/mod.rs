//! The byte door: a request and the bytes of its argument in, a typed call out; a typed result in,
//! the bytes of the answer out.
//!
//! For embedders that bring a foreign ABI: a kernel, an emulator, a conformance test. The door does
//! not do the work, because registering and filling need the embedder in the middle:
//!
//! ```text
//! ioctl(request, bytes)   -> Call                what is asked for, checked in the rules' order
//!   the embedder performs it with the typed operation of the same name
//! Call::answer(outcome)   -> Reply               result and the bytes to copy out
//!   the embedder copies them out
//! settle(reply, copied?)  -> Settled             what the caller gets, who is woken
//! ```
//!
//! Bytes that could not be read are simply not there: a short argument is EFAULT, but only once the
//! rules that come before reading it are satisfied.
//!
//! Kernel counterpart: the descriptor's ioctl entry.

mod modern;
mod original;

use userfault_abi::errno::Errno;
use userfault_abi::structs;
use userfault_abi::{RegisterModes, WriteprotectModes};

use crate::addr::{PageRange, RangeError};
use crate::context::handshake::{HandshakeError, Offer};
use crate::context::{ContextId, Protocol, Rules};
use crate::error::errno;
use crate::fill::Fill;
use crate::fill::claim::End;
use crate::host::{Embedder, Lock};
use crate::space::AddressSpace;
use crate::wait::wake::Woken;

/// What is asked for.
///
/// Example: [`crate`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// A handshake that was begun; answering it is all there is to do.
    Api(Offer),
    /// [`AddressSpace::register`].
    Register {
        /// Where.
        range: PageRange,
        /// For which faults.
        modes: RegisterModes,
    },
    /// [`AddressSpace::unregister`].
    Unregister {
        /// Where.
        range: PageRange,
    },
    /// [`AddressSpace::wake`].
    Wake {
        /// Where.
        range: PageRange,
    },
    /// [`AddressSpace::fill`].
    Fill {
        /// Where.
        range: PageRange,
        /// What.
        fill: Fill,
        /// Address of the source in the caller's memory; 0 without one.
        source: u64,
    },
    /// [`AddressSpace::writeprotect`].
    Writeprotect {
        /// Where.
        range: PageRange,
        /// Which way.
        modes: WriteprotectModes,
    },
}

/// How a call went.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; nothing more to say.
    Done,
    /// Registered: these ioctls work on the range.
    Registered(userfault_abi::IoctlMask),
    /// A fill or change of protection came to its end.
    Ended(End),
    /// Refused with this errno before anything was done.
    Refused(Errno),
}

/// Bytes to copy to the caller.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    offset: usize,
    bytes: [u8; 24],
    len: usize,
}

/// A result on its way to the caller: copy [`Reply::answer`] out, then [`AddressSpace::settle`] it.
///
/// Example: [`crate`].
#[must_use = "settle it: a handshake or a wake depends on it"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    result: Result<(), Errno>,
    answer: Answer,
    offer: Option<Offer>,
    wake: Option<(ContextId, PageRange)>,
}

/// The end of an ioctl.
///
/// Example: [`crate`].
#[must_use]
#[derive(Debug)]
pub struct Settled {
    /// What the caller gets: 0 or an errno.
    pub result: Result<(), Errno>,
    /// Whom to unpark.
    pub woken: Woken,
    /// Whose pollers to ring.
    pub ring: Option<ContextId>,
}

impl Answer {
    /// Where in the argument the bytes go.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The bytes; empty if nothing is written back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn new(offset: usize, from: &[u8]) -> Self {
        let mut answer = Self { offset, ..Self::default() };
        for (target, byte) in answer.bytes.iter_mut().zip(from) {
            *target = *byte;
            answer.len = answer.len.saturating_add(1);
        }
        answer
    }
}

impl Reply {
    pub(crate) fn refused(errno: Errno) -> Self {
        Self { result: Err(errno), answer: Answer::default(), offer: None, wake: None }
    }

    /// The handshake's refusal: the whole structure is zeroed.
    pub(crate) fn refused_zeroed(errno: Errno) -> Self {
        Self { answer: Answer::new(0, &[0; structs::Api::SIZE]), ..Self::refused(errno) }
    }

    /// What to copy out, if anything.
    #[must_use]
    pub const fn answer(&self) -> &Answer {
        &self.answer
    }
}

impl<E: Embedder> AddressSpace<E> {
    /// Parses an ioctl. `input` holds the bytes of the argument that could be read, at least
    /// [`input_len`](Self::input_len) of them unless the argument is bad.
    ///
    /// # Errors
    ///
    /// The reply that refuses it.
    pub fn ioctl(&self, context: ContextId, request: u32, input: &[u8]) -> Result<Call, Reply> {
        let Some((rules, running)) =
            self.state.with(|state| state.contexts.get(context.0).map(|context| (context.rules, context.is_running())))
        else {
            return Err(Reply::refused(Errno::EINVAL));
        };
        match rules.protocol {
            Protocol::Original { .. } => self.parse_original(context, rules, request, input),
            Protocol::Modern => self.parse_modern(context, rules, running, request, input),
        }
    }

    /// How many bytes of the argument `request` reads.
    #[must_use]
    pub const fn input_len(protocol: Protocol, request: u32) -> usize {
        use userfault_abi::request;
        match (request, protocol) {
            (request::API, Protocol::Original { .. }) => userfault_abi::original::API_INPUT,
            (request::API, Protocol::Modern) => structs::Api::INPUT,
            (request::REGISTER, _) => structs::Register::INPUT,
            (request::UNREGISTER | request::WAKE, _) => structs::Range::INPUT,
            (request::COPY, _) => structs::Copy::INPUT,
            (request::ZEROPAGE, _) => structs::Zeropage::INPUT,
            (request::WRITEPROTECT, _) => structs::Writeprotect::INPUT,
            (request::POISON, _) => structs::Poison::INPUT,
            _ => 0,
        }
    }

    /// Ends an ioctl: `copied` says whether all bytes of the answer reached the caller.
    pub fn settle(&self, reply: Reply, copied: bool) -> Settled {
        let ring = reply.offer.and_then(|offer| self.finish_handshake(offer, copied));
        let unwritten = !copied && reply.answer.len > 0;
        let result = if unwritten { Err(Errno::EFAULT) } else { reply.result };
        // A fill whose result could not be written wakes nobody (`m/fill/word-efault`).
        let woken = match reply.wake {
            Some((context, range)) if !unwritten => self.wake(context, range),
            Some(_) | None => Woken::default(),
        };
        Settled { result, woken, ring }
    }

    pub(crate) fn parse_range(&self, rules: Rules, start: u64, len: u64) -> Result<PageRange, RangeError> {
        self.limits.parse(start, len, rules.lowest_applies)
    }

    /// Turns the outcome of a call into the bytes and the result of its ioctl.
    pub fn answer(&self, call: Call, outcome: Outcome) -> Reply {
        let ok = Reply { result: Ok(()), answer: Answer::default(), offer: None, wake: None };
        match (call, outcome) {
            (Call::Api(offer), _) => {
                let answer = structs::Api {
                    api: userfault_abi::request::UFFD_API,
                    features: offer.features,
                    ioctls: offer.ioctls.bits(),
                };
                Reply { answer: Answer::new(0, &answer.encode()), offer: Some(offer), ..ok }
            }
            (Call::Register { .. }, Outcome::Registered(ioctls)) => {
                let word = ioctls.bits().to_ne_bytes();
                Reply { answer: Answer::new(structs::Register::ANSWER.start, &word), ..ok }
            }
            (Call::Fill { fill, .. }, Outcome::Ended(end)) => self.answer_fill(fill, &end),
            // The address space is gone: the word is not written either (`m/fill/order`).
            (Call::Fill { .. }, Outcome::Refused(Errno::ESRCH)) => Reply::refused(Errno::ESRCH),
            (Call::Fill { fill, .. }, Outcome::Refused(errno)) => {
                Reply { answer: fill_word(fill, i64::from(errno.raw()).wrapping_neg()), ..Reply::refused(errno) }
            }
            (Call::Writeprotect { .. }, Outcome::Ended(end)) => {
                let result = end.stop.map_or(Ok(()), |stop| Err(errno(stop)));
                Reply { result, wake: end.wake, ..ok }
            }
            (_, Outcome::Refused(errno)) => Reply::refused(errno),
            (_, Outcome::Done | Outcome::Registered(_) | Outcome::Ended(_)) => ok,
        }
    }

    fn answer_fill(&self, fill: Fill, end: &End) -> Reply {
        let done = end.pages_done.wrapping_shl(self.limits.page_shift).cast_signed();
        let (result, word) = match end.stop {
            None => (Ok(()), done),
            Some(_) if done > 0 => (Err(Errno::EAGAIN), done),
            Some(stop) => {
                let errno = errno(stop);
                (Err(errno), i64::from(errno.raw()).wrapping_neg())
            }
        };
        Reply { result, answer: fill_word(fill, word), offer: None, wake: end.wake }
    }
}

/// The result word of a fill, at its place in the argument.
fn fill_word(fill: Fill, word: i64) -> Answer {
    let offset = match fill {
        Fill::Copy(_) => structs::Copy::ANSWER.start,
        Fill::Zeropage(_) => structs::Zeropage::ANSWER.start,
        Fill::Poison(_) => structs::Poison::ANSWER.start,
    };
    Answer::new(offset, &word.to_ne_bytes())
}

/// How a refused handshake is answered.
fn refuse_handshake(error: HandshakeError, state_first: bool) -> Reply {
    match error {
        // The original has not looked at its argument yet, so it does not write it either.
        HandshakeError::AlreadyDone if state_first => Reply::refused(Errno::EINVAL),
        HandshakeError::Gone
        | HandshakeError::AlreadyDone
        | HandshakeError::WrongVersion
        | HandshakeError::UnknownFeature => Reply::refused_zeroed(errno(error)),
    }
}
