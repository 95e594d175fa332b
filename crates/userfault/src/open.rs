//! Choosing a provider, with the reason why another was refused.
//!
//! Kernel counterpart: `userfaultfd(2)`, `/dev/userfaultfd`.

use core::fmt;
use core::str::FromStr;

use userfault_client::{Errno, Features, KernelFaults, Options, Provider, Refusal, UffdError};
use userfault_linux as linux;
use userfault_process::{self as process, Protocol};

use crate::either::Either;
use crate::uffd::Uffd;

/// Which provider to open.
///
/// Example: [`Builder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The kernel's (the system call, then the device); where it is refused, the engine in this process.
    #[default]
    Auto,
    /// The kernel's own userfaultfd, or an error.
    Linux,
    /// The engine hosted in this process, or an error.
    Process,
}

impl Choice {
    /// The providers to try, in order.
    const fn providers(self) -> &'static [Provider] {
        match self {
            Self::Auto => &[Provider::Linux, Provider::Process],
            Self::Linux => &[Provider::Linux],
            Self::Process => &[Provider::Process],
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    /// `auto`, `linux` or `process`.
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "linux" => Ok(Self::Linux),
            "process" => Ok(Self::Process),
            _ => Err(format!("`{word}` is no provider: write auto, linux or process")),
        }
    }
}

/// Opens a userfaultfd at whichever provider this machine permits.
///
/// System calls on missing pages fail with `EFAULT`; see [`Builder::kernel_faults`].
///
/// # Errors
///
/// [`OpenError`], which prints why each provider was refused and what to do about it.
///
/// Example: [`crate`].
pub fn open() -> Result<Uffd, OpenError> {
    Builder::new().open()
}

/// What to open.
///
/// # Examples
///
/// ```
/// use userfault::{Builder, Choice, Features, Provider, prelude::*};
///
/// let uffd = Builder::new().provider(Choice::Process).wish(Features::THREAD_ID).open()?;
/// assert_eq!(uffd.provider(), Provider::Process);
/// # Ok::<(), userfault::OpenError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    choice: Choice,
    options: Options,
    protocol: Protocol,
    inline: bool,
}

impl Builder {
    /// The modern protocol, at any provider, for faults of user mode only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Which provider.
    #[must_use]
    pub fn provider(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Features that must be enabled, besides those required before.
    #[must_use]
    pub fn require(mut self, features: Features) -> Self {
        self.options.require |= features;
        self
    }

    /// Features that are enabled where they are there, besides those wished for before.
    #[must_use]
    pub fn wish(mut self, features: Features) -> Self {
        self.options.wish |= features;
        self
    }

    /// Whether system calls on missing pages are to wait for the monitor. Only the linux provider can.
    #[must_use]
    pub fn kernel_faults(mut self, kernel_faults: KernelFaults) -> Self {
        self.options.kernel_faults = kernel_faults;
        self
    }

    /// Which protocol the descriptor speaks. Only the process provider has the original one.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// For regions whose faults the faulting threads answer themselves:
    /// [`serve_inline`](crate::MonitorBuilder::serve_inline).
    ///
    /// At the linux provider this is the SIGBUS feature; until such a region is served, a touch of a missing page
    /// is SIGBUS there. Nothing else is needed at the process provider.
    #[must_use]
    pub fn answer_inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// Opens at the first provider that works.
    ///
    /// # Errors
    ///
    /// [`OpenError`] with what each provider answered. Nothing stays open.
    pub fn open(&self) -> Result<Uffd, OpenError> {
        let mut refused = Vec::new();
        for provider in self.choice.providers() {
            match self.open_at(*provider) {
                Ok(descriptor) => return Ok(Uffd::new(descriptor, refused, self.protocol)),
                Err(error) => refused.push(Refused { provider: *provider, error }),
            }
        }
        Err(OpenError { refused })
    }

    fn open_at(&self, provider: Provider) -> Result<Either<linux::Uffd, process::Uffd>, UffdError> {
        let options = self.options_of(provider)?;
        match (provider, self.protocol) {
            (Provider::Linux, Protocol::Original { .. }) => {
                let remedy = "no released kernel speaks it: use the process provider";
                let refusal = Refusal { way: "original protocol", errno: Errno::ENOSYS, remedy };
                Err(UffdError::Refused { provider, tried: vec![refusal] })
            }
            (Provider::Linux, Protocol::Modern) => linux::Uffd::open(&options).map(Either::Linux),
            (Provider::Process, protocol) => process::Uffd::open_with(&options, protocol).map(Either::Process),
            (provider, _) => Err(UffdError::Unsupported { operation: "way to be opened here", provider }),
        }
    }
}

impl Builder {
    fn options_of(&self, provider: Provider) -> Result<Options, UffdError> {
        let mut options = self.options.clone();
        if !self.inline {
            return Ok(options);
        }
        if matches!(self.protocol, Protocol::Original { .. }) {
            return Err(UffdError::NotInline {
                reason: "the original protocol knows no fills; use the modern one, or a monitor",
            });
        }
        if options.kernel_faults == KernelFaults::Require {
            return Err(UffdError::NotInline {
                reason: "nobody is told of faults that the kernel takes, they are EFAULT; use a monitor for those",
            });
        }
        options.kernel_faults = KernelFaults::No;
        if provider == Provider::Linux {
            options.require |= Features::SIGBUS;
        }
        Ok(options)
    }
}

/// A provider that was tried and not opened, and why.
///
/// Prints one line for each way that was tried, with what to do about it.
///
/// Example: [`OpenError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who was asked.
    pub provider: Provider,
    /// The answer.
    pub error: UffdError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.provider;
        let UffdError::Refused { tried, .. } = &self.error else {
            return write!(f, "{provider}: {}", self.error);
        };
        let mut separator = "";
        for refusal in tried {
            write!(f, "{separator}{provider}: {refusal}")?;
            separator = "\n";
        }
        Ok(())
    }
}

/// Why no provider was opened.
///
/// # Examples
///
/// ```
/// use userfault::{Builder, Choice, KernelFaults, Provider};
///
/// let builder = Builder::new().provider(Choice::Process).kernel_faults(KernelFaults::Require);
/// let error = builder.open().unwrap_err();
/// assert_eq!(error.refused()[0].provider, Provider::Process);
/// assert!(error.to_string().contains("process: faults taken by the kernel: ENOSYS (38); use the linux provider"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    refused: Vec<Refused>,
}

impl OpenError {
    /// The providers that were tried, in order.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no userfaultfd can be opened here:")?;
        self.refused.iter().try_for_each(|refused| {
            let lines = refused.to_string();
            lines.lines().try_for_each(|line| write!(f, "\n  {line}"))
        })
    }
}

impl core::error::Error for OpenError {}
