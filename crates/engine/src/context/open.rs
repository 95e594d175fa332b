//! Opening, in two phases.
//!
//! The embedder reserves a descriptor number, opens, makes its file, and publishes the number last.
//! Until [`Opening::publish`] nothing is visible, and dropping the value undoes everything (W30).
//!
//! Kernel counterpart: `userfaultfd(2)`.

use userfault_abi::OpenFlags;

use crate::context::{Context, ContextId, Life, Protocol, Rules};
use crate::host::{Embedder, Lock};
use crate::space::AddressSpace;

/// What the opener may do; the policy is the embedder's.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// May handle faults that the kernel takes on a thread's behalf.
    Full,
    /// Only with `USER_MODE_ONLY`.
    UserModeOnly,
}

/// Why a context could not be opened; nothing happened.
///
/// Example: [`errno`](crate::errno()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// `USER_MODE_ONLY` is needed. Modern protocol only; tested first.
    NotPermitted,
    /// A flag that the protocol does not know.
    UnknownFlag,
    /// No room for another context.
    NoMemory,
}

/// A context that nobody knows yet; dropped, it never existed.
///
/// Example: [`crate`].
#[must_use = "dropping it closes the context"]
pub struct Opening<'a, E: Embedder> {
    space: &'a AddressSpace<E>,
    context: Option<ContextId>,
}

impl<E: Embedder> AddressSpace<E> {
    /// Begins to open a context.
    ///
    /// # Errors
    ///
    /// One [`OpenError`] per broken rule, tested in declaration order.
    pub fn open(
        &self,
        flags: OpenFlags,
        protocol: Protocol,
        privilege: Privilege,
    ) -> Result<Opening<'_, E>, OpenError> {
        let known = match protocol {
            Protocol::Original { .. } => OpenFlags::CLOEXEC | OpenFlags::NONBLOCK,
            Protocol::Modern => OpenFlags::ALL,
        };
        if protocol == Protocol::Modern
            && privilege == Privilege::UserModeOnly
            && !flags.contains(OpenFlags::USER_MODE_ONLY)
        {
            return Err(OpenError::NotPermitted);
        }
        if !flags.difference(known).is_empty() {
            return Err(OpenError::UnknownFlag);
        }
        let context = Context { rules: Rules::of(protocol), flags, ..Context::default() };
        let id = self.state.with(|state| state.contexts.add(context)).map_err(|_| OpenError::NoMemory)?;
        Ok(Opening { space: self, context: Some(ContextId(id)) })
    }
}

impl<E: Embedder> Opening<'_, E> {
    /// Makes the context usable; the last step of opening.
    pub fn publish(mut self) -> ContextId {
        let id = self.context.take().unwrap_or_default();
        self.space.state.with(|state| {
            if let Some(context) = state.contexts.get_mut(id.0) {
                context.life = Life::Open;
            }
        });
        id
    }
}

impl<E: Embedder> Drop for Opening<'_, E> {
    fn drop(&mut self) {
        if let Some(id) = self.context {
            let _context = self.space.state.with(|state| state.contexts.remove(id.0));
        }
    }
}
