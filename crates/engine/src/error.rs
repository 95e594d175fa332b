//! From broken rules to errno: one table.
//!
//! Read it against the ERRORS sections of `userfaultfd(2)` and `ioctl_userfaultfd(2)`.

use userfault_abi::errno::Errno;

use crate::addr::RangeError;
use crate::context::handshake::HandshakeError;
use crate::context::open::OpenError;
use crate::fill::{FillError, FillStop};
use crate::read::ReadError;
use crate::registration::register::RegisterError;
use crate::registration::unregister::UnregisterError;

/// Any error of the engine's.
///
/// Example: [`errno`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// Of a range argument.
    Range(RangeError),
    /// Of opening.
    Open(OpenError),
    /// Of the handshake.
    Handshake(HandshakeError),
    /// Of registering.
    Register(RegisterError),
    /// Of unregistering.
    Unregister(UnregisterError),
    /// Of beginning a fill or a change of protection.
    Fill(FillError),
    /// Of the first page that was not done.
    Stop(FillStop),
    /// Of reading.
    Read(ReadError),
}

macro_rules! from {
    ($($variant:ident($error:ty)),*) => { $(
        impl From<$error> for EngineError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )* };
}

from!(
    Range(RangeError),
    Open(OpenError),
    Handshake(HandshakeError),
    Register(RegisterError),
    Unregister(UnregisterError),
    Fill(FillError),
    Stop(FillStop),
    Read(ReadError)
);

/// What the descriptor answers for an error.
///
/// # Examples
///
/// ```
/// use userfault_abi::Errno;
/// use userfault_engine::{FillStop, OpenError, ReadError, errno};
///
/// assert_eq!(errno(OpenError::NotPermitted), Errno::EPERM);
/// assert_eq!(errno(FillStop::Exists), Errno::EEXIST);
/// assert_eq!(errno(ReadError::Empty), Errno::EAGAIN);
/// ```
#[must_use]
pub fn errno(error: impl Into<EngineError>) -> Errno {
    match error.into() {
        EngineError::Range(_) => Errno::EINVAL,
        EngineError::Open(error) => match error {
            OpenError::NotPermitted => Errno::EPERM,
            OpenError::UnknownFlag => Errno::EINVAL,
            OpenError::NoMemory => Errno::ENOMEM,
        },
        EngineError::Handshake(_) => Errno::EINVAL,
        EngineError::Register(error) => match error {
            RegisterError::NotEnabled | RegisterError::BadModes => Errno::EINVAL,
            RegisterError::Gone | RegisterError::NothingAbove => Errno::ENOMEM,
            RegisterError::NothingMapped | RegisterError::WrongKind => Errno::EINVAL,
            RegisterError::Busy(_) => Errno::EBUSY,
            RegisterError::NoMemory => Errno::ENOMEM,
        },
        EngineError::Unregister(error) => match error {
            UnregisterError::NotEnabled => Errno::EINVAL,
            UnregisterError::Gone | UnregisterError::NothingAbove => Errno::ENOMEM,
            UnregisterError::NothingMapped | UnregisterError::WrongKind | UnregisterError::Foreign(_) => Errno::EINVAL,
            UnregisterError::NoMemory => Errno::ENOMEM,
        },
        EngineError::Fill(error) => match error {
            FillError::NotEnabled | FillError::BadModes => Errno::EINVAL,
            FillError::Gone => Errno::ESRCH,
            FillError::NotOneMapping => Errno::ENOENT,
            FillError::NotWriteProtectable => Errno::EINVAL,
        },
        EngineError::Stop(stop) => match stop {
            FillStop::Exists => Errno::EEXIST,
            FillStop::SourceUnreadable => Errno::EFAULT,
            FillStop::NotProtectable => Errno::ENOENT,
            FillStop::NoMemory => Errno::ENOMEM,
        },
        EngineError::Read(error) => match error {
            ReadError::NotEnabled | ReadError::TooSmall => Errno::EINVAL,
            ReadError::Empty => Errno::EAGAIN,
            // ESHUTDOWN, which no kernel answers here: only who can shut a context down sees it.
            ReadError::ShutDown => Errno::from_raw(108),
        },
    }
}
