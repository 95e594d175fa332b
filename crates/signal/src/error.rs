//! What can go wrong, one enum per operation; variants name the cause.

use std::error::Error;
use std::fmt::{Display, Formatter, Result as Written};
use std::io;

use crate::handler::Signal;

/// Why a handler was not installed. The disposition is unchanged after it.
///
/// Example: [`crate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallError {
    /// All places for handlers of this signal are taken.
    Full {
        /// How many places there are.
        places: usize,
    },
    /// The kernel refused.
    Os {
        /// The error number of `sigaction`.
        errno: i32,
    },
}

impl Display for InstallError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::Full { places } => write!(f, "all {places} places for handlers of this signal are taken"),
            Self::Os { errno } => write!(f, "sigaction failed: {}", io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Error for InstallError {}

/// Why our handler does not get its signal.
///
/// Example: [`crate`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replaced {
    /// It was never installed.
    NeverInstalled(Signal),
    /// Someone set the default action.
    ByDefault(Signal),
    /// Someone set the signal to be ignored.
    ByIgnore(Signal),
    /// Someone installed another handler. It may or may not chain to ours.
    ByHandler {
        /// The signal.
        signal: Signal,
        /// The address of the other handler.
        address: usize,
        /// The file the handler was loaded from and its symbol, where the loader knows.
        origin: Option<String>,
    },
    /// The kernel did not say.
    Os {
        /// The error number of `sigaction`.
        errno: i32,
    },
}

impl Display for Replaced {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match self {
            Self::NeverInstalled(signal) => write!(f, "no handler for {signal} was installed"),
            Self::ByDefault(signal) => {
                write!(f, "the program set {signal} to its default action: the next fault ends the process")
            }
            Self::ByIgnore(signal) => {
                write!(f, "the program ignores {signal}: the next fault ends the process")
            }
            Self::ByHandler { signal, address, origin } => {
                write!(f, "the program installed its own handler for {signal} at {address:#x}")?;
                if let Some(origin) = origin {
                    write!(f, " ({origin})")?;
                }
                f.write_str("; unless it calls the handler it replaced, page faults look like crashes")
            }
            Self::Os { errno } => write!(f, "sigaction failed: {}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl Error for Replaced {}

/// Why nothing waits for a signal. Nothing was installed.
///
/// Example: [`on_signal`](crate::on_signal()).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// There is one already: drop it first.
    Taken,
    /// The program handles this signal itself.
    Handled {
        /// Its number.
        signal: i32,
        /// The file the handler was loaded from and its symbol, where the loader knows.
        by: Option<String>,
    },
    /// Signals of faults are not for requests.
    OfFaults {
        /// Its number.
        signal: i32,
    },
    /// The kernel refused.
    Os {
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

impl Display for RequestError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match self {
            Self::Taken => f.write_str("reports are made on a signal already; drop that request first"),
            Self::Handled { signal, by } => {
                write!(f, "the program handles signal {signal} itself")?;
                if let Some(by) = by {
                    write!(f, " ({by})")?;
                }
                f.write_str("; choose one that it does not use")
            }
            Self::OfFaults { signal } => write!(f, "signal {signal} is for faults; choose another"),
            Self::Os { call, errno } => write!(f, "{call} failed: {}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl Error for RequestError {}

/// Why a thread got no alternate stack. The old one stays.
///
/// Example: [`AlternateStack`](crate::AlternateStack).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackError {
    /// More bytes were asked for than can be mapped.
    TooLarge {
        /// What was asked for.
        min_bytes: usize,
    },
    /// The kernel refused.
    Os {
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

impl Display for StackError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match *self {
            Self::TooLarge { min_bytes } => write!(f, "an alternate stack of {min_bytes} bytes cannot be mapped"),
            Self::Os { call, errno } => {
                write!(f, "{call} failed: {}", io::Error::from_raw_os_error(errno))?;
                if call == "sigaltstack" && errno == libc::EPERM {
                    f.write_str("; the thread is running on its alternate stack, inside a signal handler")?;
                }
                Ok(())
            }
        }
    }
}

impl Error for StackError {}
