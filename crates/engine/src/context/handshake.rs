//! The handshake, once per context.
//!
//! Begun and finished in two steps, because the state changes only after the answer has reached the
//! caller; the step in between belongs to one caller, so of two at a time exactly one wins (W16).
//!
//! Kernel counterpart: `UFFDIO_API`.

use userfault_abi::request::UFFD_API;
use userfault_abi::{Features, IoctlMask, original};

use crate::context::{Api, ContextId, FEATURES, Life, Protocol};
use crate::host::{Embedder, Lock};
use crate::space::{AddressSpace, State};

/// Why a handshake is refused; the context stays as it was.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No such context.
    Gone,
    /// It was done before, or is being done. The original tests this before it reads its argument.
    AlreadyDone,
    /// Another protocol version than 0xAA.
    WrongVersion,
    /// A feature that the engine does not have.
    UnknownFeature,
}

/// An answer on its way to the caller; [`AddressSpace::finish_handshake`] ends it.
///
/// Example: [`crate`].
#[must_use = "until it is finished nobody else can begin a handshake"]
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    pub(crate) context: ContextId,
    wanted: Features,
    /// Everything that could have been asked for (modern), the meaning of the low bits (original).
    pub features: u64,
    /// The ioctls that exist on a context.
    pub ioctls: IoctlMask,
}

impl<E: Embedder> AddressSpace<E> {
    /// Checks a handshake and reserves it for the caller.
    ///
    /// `features` is ignored by the original protocol.
    ///
    /// # Errors
    ///
    /// A [`HandshakeError`]; which rule wins is the protocol's (`o/api/state-first`, `m/api/order`).
    pub fn begin_handshake(
        &self,
        context: ContextId,
        version: u64,
        features: Features,
    ) -> Result<Offer, HandshakeError> {
        self.state.with(|state| state.begin_handshake(context, version, features))
    }

    /// Ends a handshake: `delivered` says whether the answer reached the caller.
    ///
    /// Returns the context to ring if words were waiting already (W15: an edge-triggered poller that
    /// came early would not hear of them otherwise).
    pub fn finish_handshake(&self, offer: Offer, delivered: bool) -> Option<ContextId> {
        self.state.with(|state| {
            let context = state.contexts.get_mut(offer.context.0)?;
            context.api = if delivered { Api::Running } else { Api::Waiting };
            if !delivered {
                return None;
            }
            context.features = offer.wanted;
            (context.unread.len > 0).then_some(offer.context)
        })
    }

    /// The features in force.
    pub fn features(&self, context: ContextId) -> Features {
        self.state.with(|state| state.contexts.get(context.0).map_or(Features::NONE, |context| context.features))
    }
}

impl<E: Embedder> State<E> {
    fn begin_handshake(&mut self, id: ContextId, version: u64, wanted: Features) -> Result<Offer, HandshakeError> {
        let context = self.contexts.get_mut(id.0).ok_or(HandshakeError::Gone)?;
        if context.life != Life::Open {
            return Err(HandshakeError::Gone);
        }
        let is_waiting = context.api == Api::Waiting;
        let original = matches!(context.rules.protocol, Protocol::Original { .. });
        if original && !is_waiting {
            return Err(HandshakeError::AlreadyDone);
        }
        if version != UFFD_API {
            return Err(HandshakeError::WrongVersion);
        }
        if !original && !wanted.difference(FEATURES).is_empty() {
            return Err(HandshakeError::UnknownFeature);
        }
        if !is_waiting {
            return Err(HandshakeError::AlreadyDone);
        }
        context.api = Api::Answering;
        let (features, wanted) =
            if original { (original::API_BITS, Features::NONE) } else { (FEATURES.bits(), wanted) };
        Ok(Offer { context: id, wanted, features, ioctls: original::API_IOCTLS })
    }
}
