//! Contexts: the object behind a descriptor.
//!
//! A context lives from `open` to `release`. It knows its protocol, as data ([`Rules`]) rather than
//! as branches scattered over the operations, the features that were negotiated, and its two queues
//! of sleepers. It does not keep its address space alive: that is the embedder's (W29).
//!
//! Kernel counterpart: `struct userfaultfd_ctx`.

pub(crate) mod fdinfo;
pub(crate) mod handshake;
pub(crate) mod open;
pub(crate) mod release;

use userfault_abi::{Features, IoctlMask, OpenFlags, RegisterModes, original};

use crate::wait::queue::Queue;
use crate::wait::slots::SlotId;

/// Names a context.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContextId(pub(crate) SlotId);

impl ContextId {
    /// Position in an embedder's table of per-context data: below the capacity for contexts.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0.index as usize
    }

    /// The name as a number, for an embedder that keeps it in an atomic; never 0.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.0.generation as u64) << 32) | self.0.index as u64
    }
}

/// Which protocol a descriptor speaks; chosen when it is opened.
///
/// Example: [`Rules`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The patch of May 2015: 8-byte words, `spec/original.md`.
    Original {
        /// Adds COPY and ZEROPAGE, as later patches of the series did.
        fills: bool,
    },
    /// Linux today: 32-byte messages, `spec/modern.md`.
    #[default]
    Modern,
}

/// How the protocols differ, as data.
///
/// # Examples
///
/// ```
/// use userfault_engine::{Protocol, Rules};
///
/// let (original, modern) = (Rules::of(Protocol::Original { fills: false }), Rules::of(Protocol::Modern));
/// assert_eq!((original.message_size, modern.message_size), (8, 32));
/// assert!(modern.wake_takes_unread && !original.wake_takes_unread);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which one it is.
    pub protocol: Protocol,
    /// WAKE takes unread sleepers too, and their messages vanish (W2).
    pub wake_takes_unread: bool,
    /// No ioctl but API works before the handshake (W15).
    pub handshake_first: bool,
    /// Registering again adds modes instead of replacing them.
    pub modes_accumulate: bool,
    /// A message that could not be delivered is unread again (W14); otherwise it is lost.
    pub undelivered_is_unread: bool,
    /// Poll answers an error on a blocking descriptor.
    pub poll_needs_nonblocking: bool,
    /// A range that starts below the lowest mappable address is refused.
    pub lowest_applies: bool,
    /// Nothing mapped at or above the range is "no memory" instead of "invalid".
    pub nothing_above_is_no_memory: bool,
    /// Bytes of one message.
    pub message_size: usize,
    /// Registration modes that exist.
    pub modes: RegisterModes,
    /// Fills that exist, as ioctl bits.
    pub fills: IoctlMask,
    /// Shared memory can be registered, for missing pages only.
    pub shared_memory: bool,
}

impl Rules {
    /// The rules of a protocol.
    #[must_use]
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Original { fills } => Self {
                protocol,
                wake_takes_unread: false,
                handshake_first: false,
                modes_accumulate: true,
                undelivered_is_unread: true,
                poll_needs_nonblocking: false,
                lowest_applies: true,
                nothing_above_is_no_memory: true,
                message_size: original::Word::SIZE,
                modes: RegisterModes::MISSING,
                fills: if fills { IoctlMask::COPY.union(IoctlMask::ZEROPAGE) } else { IoctlMask::NONE },
                shared_memory: false,
            },
            Protocol::Modern => Self {
                protocol,
                wake_takes_unread: true,
                handshake_first: true,
                modes_accumulate: false,
                undelivered_is_unread: false,
                poll_needs_nonblocking: true,
                lowest_applies: false,
                nothing_above_is_no_memory: false,
                message_size: userfault_abi::Message::SIZE,
                modes: RegisterModes::MISSING.union(RegisterModes::WP),
                fills: IoctlMask::COPY.union(IoctlMask::ZEROPAGE).union(IoctlMask::POISON),
                shared_memory: true,
            },
        }
    }

    /// The mask that REGISTER answers for `modes`.
    #[must_use]
    pub fn range_ioctls(self, modes: RegisterModes) -> IoctlMask {
        let protect = if modes.contains(RegisterModes::WP) { IoctlMask::WRITEPROTECT } else { IoctlMask::NONE };
        IoctlMask::WAKE | self.fills | protect
    }
}

/// What a modern descriptor of this engine can negotiate.
pub(crate) const FEATURES: Features = Features::PAGEFAULT_FLAG_WP
    .union(Features::MISSING_SHMEM)
    .union(Features::SIGBUS)
    .union(Features::THREAD_ID)
    .union(Features::EXACT_ADDRESS)
    .union(Features::WP_UNPOPULATED)
    .union(Features::POISON);

/// Where the handshake stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Api {
    #[default]
    Waiting,
    /// The answer is on its way to the caller; nobody else may begin (W16).
    Answering,
    Running,
}

/// Where a context is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// Opened, not published: nobody else knows its name.
    #[default]
    Opening,
    Open,
    /// Its registrations are being removed; faults on them retry (W31).
    Releasing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) rules: Rules,
    pub(crate) life: Life,
    pub(crate) api: Api,
    pub(crate) features: Features,
    pub(crate) flags: OpenFlags,
    /// Readers are not to wait any more (W17).
    pub(crate) is_shut_down: bool,
    /// Faulting threads may bring missing pages themselves.
    pub(crate) answers_inline: bool,
    pub(crate) unread: Queue,
    pub(crate) read: Queue,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            rules: Rules::of(Protocol::Modern),
            life: Life::Opening,
            api: Api::Waiting,
            features: Features::NONE,
            flags: OpenFlags::NONE,
            is_shut_down: false,
            answers_inline: false,
            unread: Queue::default(),
            read: Queue::default(),
        }
    }
}

impl Context {
    /// Announced sleepers, read or not.
    pub(crate) const fn sleepers(&self) -> u64 {
        self.unread.len.saturating_add(self.read.len)
    }

    /// Whether ioctls other than API work, and words can be read.
    pub(crate) fn is_running(&self) -> bool {
        self.api == Api::Running
    }
}
