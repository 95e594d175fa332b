//! The descriptor, as a client sees it.

use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use userfault_abi::errno::Errno;
use userfault_abi::original::Word;
use userfault_abi::request::UFFD_API;
use userfault_abi::{Features, IoctlMask, Message, MessageEvent, OpenFlags, PagefaultFlags, RegisterModes};
use userfault_client::{
    Capabilities, Event, Fault, KernelFaults, Options, Provider, Refusal, Sleeper, UffdError, Wait,
};
use userfault_engine::{AddressSpace, ContextId, Privilege, Protocol, ReadError, Rules, errno};
use userfault_memory::{Advice, Mapping, Protection};
use userfault_signal::{FutexWait, SignalsBlocked, futex_wait};

use crate::bell::Bell;
use crate::handle::Region;
use crate::host::{Host, Process};
use crate::layout::AddError;
use crate::states::PAGE_SIZE;

/// An open context of the engine in this process; a cheap handle.
///
/// The context ends when the last handle and the last region are gone: missing pages then read as
/// zeros, which is why regions keep it.
///
/// Example: [`crate`].
#[derive(Clone, Debug)]
pub struct Uffd {
    context: Arc<Context>,
}

/// One reference to a context: dropping it is the last close.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: ContextId,
    capabilities: Capabilities,
    pub(crate) protocol: Protocol,
    pub(crate) host: HostRef,
}

/// The host, which lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct HostRef(&'static Host);

impl std::fmt::Debug for HostRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

impl std::ops::Deref for HostRef {
    type Target = Host;
    fn deref(&self) -> &Host {
        self.0
    }
}

/// What the host has in use.
///
/// Example: [`statistics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Threads asleep in faults.
    pub asleep: usize,
    /// Slots for sleepers in use.
    pub slots: usize,
    /// Mappings that the host causes.
    pub mappings: usize,
    /// How many it may cause.
    pub mapping_budget: usize,
}

/// What the host has in use; `None` before the first open, and in a forked child.
///
/// # Examples
///
/// ```
/// use userfault_client::Options;
/// use userfault_process::{Uffd, statistics};
///
/// assert_eq!(statistics(), None, "nothing was opened yet");
/// let _uffd = Uffd::open(&Options::default())?;
/// assert_eq!(statistics().unwrap().asleep, 0);
/// # Ok::<(), userfault_client::UffdError>(())
/// ```
#[must_use]
pub fn statistics() -> Option<Statistics> {
    let host = Host::get()?;
    let blocked = SignalsBlocked::new();
    let engine = host.engine(&blocked);
    let (mappings, mapping_budget) = host.machine.mappings();
    Some(Statistics { asleep: engine.asleep(), slots: engine.slots_in_use(), mappings, mapping_budget })
}

impl Uffd {
    /// Opens a context of the modern protocol.
    ///
    /// # Errors
    ///
    /// [`UffdError::Refused`] where this process cannot host one, each step with its remedy, and for
    /// [`KernelFaults::Require`]; [`UffdError::FeaturesMissing`].
    ///
    /// # Examples
    ///
    /// ```
    /// use userfault_client::{Options, RegisterModes, Uffd as _, Region as _, Wait, Event};
    ///
    /// let uffd = userfault_process::Uffd::open(&Options::default())?;
    /// let region = uffd.map(1, RegisterModes::MISSING)?;
    /// let window = region.window(0..1)?;
    /// let reader = std::thread::spawn(move || window.as_slice()[7]);
    ///
    /// let mut events = Vec::new();
    /// uffd.read(Wait::Forever, &mut events)?;
    /// assert!(matches!(events[0], Event::Fault(fault) if region.page_at(fault.address) == Some(0)));
    /// let _all_done = region.copy(0, &[42; 4096])?;
    /// assert_eq!(reader.join().unwrap(), 42);
    /// # Ok::<(), userfault_client::UffdError>(())
    /// ```
    pub fn open(options: &Options) -> Result<Self, UffdError> {
        Self::open_with(options, Protocol::Modern)
    }

    /// Opens a context of the protocol asked for.
    ///
    /// With [`Protocol::Original`] features cannot be asked for.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(options: &Options, protocol: Protocol) -> Result<Self, UffdError> {
        if options.kernel_faults == KernelFaults::Require {
            return Err(UffdError::Refused {
                provider: Provider::Process,
                tried: vec![Refusal {
                    way: "faults taken by the kernel",
                    errno: Errno::ENOSYS,
                    remedy: "use the linux provider, or populate pages before system calls on them",
                }],
            });
        }
        let host = Host::open()?;
        let available = match protocol {
            Protocol::Original { .. } => Features::NONE,
            Protocol::Modern => AddressSpace::<Process>::available_features(),
        };
        let missing = options.require - available;
        if !missing.is_empty() {
            return Err(UffdError::FeaturesMissing { missing });
        }
        let features = options.require | (options.wish & available);
        let flags = match protocol {
            // It knows no such flag: it serves what faults there are, and here they are the user's.
            Protocol::Original { .. } => OpenFlags::ALL - OpenFlags::USER_MODE_ONLY,
            Protocol::Modern => OpenFlags::ALL,
        };
        let id = open_context(host, flags, protocol, Privilege::UserModeOnly)
            .map_err(|errno| UffdError::System { operation: "opening a context", errno })?;
        let rules = Rules::of(protocol);
        let capabilities = Capabilities {
            features,
            available,
            modes: rules.modes,
            ioctls: rules.range_ioctls(rules.modes) | IoctlMask::REGISTER | IoctlMask::UNREGISTER,
            kernel_faults: false,
            page_size: PAGE_SIZE,
        };
        let context = Context { id, capabilities, protocol, host: HostRef(host) };
        handshake(host, id, features)?;
        Ok(Self { context: Arc::new(context) })
    }

    /// Who else the regions of this descriptor belong to.
    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

/// Opens a context and gives it its slot's bell.
pub(crate) fn open_context(
    host: &'static Host,
    flags: OpenFlags,
    protocol: Protocol,
    privilege: Privilege,
) -> Result<ContextId, Errno> {
    let blocked = SignalsBlocked::new();
    let opening = host.engine(&blocked).open(flags, protocol, privilege).map_err(errno)?;
    let id = opening.publish();
    if let Some(bell) = host.bells.as_ref().get(id.index()) {
        bell.begin();
    }
    Ok(id)
}

fn handshake(host: &Host, id: ContextId, features: Features) -> Result<(), UffdError> {
    let blocked = SignalsBlocked::new();
    let refused = |error| UffdError::System { operation: "the handshake", errno: errno(error) };
    let offer = host.engine(&blocked).begin_handshake(id, UFFD_API, features).map_err(refused)?;
    let _nobody_waits = host.engine(&blocked).finish_handshake(offer, true);
    if features.contains(Features::THREAD_ID) {
        host.wants_threads.store(true, Ordering::Relaxed);
    }
    Ok(())
}

impl Context {
    fn bell(&self) -> &Bell {
        // A context's index is below the capacity for contexts, which is the table's length.
        self.host.bells.as_ref().get(self.id.index()).unwrap_or_else(|| unreachable_bell())
    }

    pub(crate) const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(crate) fn check_process(&self) -> Result<(), UffdError> {
        if self.host.is_of_this_process() { Ok(()) } else { Err(UffdError::Forked) }
    }

    /// One try: moves what is there now to `events`, and shows pollers what is left.
    fn take(&self, events: &mut Vec<Event<core::convert::Infallible>>) -> Result<Option<usize>, UffdError> {
        let bell = self.bell();
        let blocked = SignalsBlocked::new();
        // Only now: a handler that interrupted a read may have forked.
        self.check_process()?;
        bell.drain();
        let engine = self.host.engine(&blocked);
        let taken = match engine.take(self.id, usize::MAX) {
            Ok(taken) => taken,
            Err(ReadError::Empty) => return Ok(None),
            Err(ReadError::ShutDown) => {
                // Drained a moment ago: other pollers are to see it, too.
                bell.show();
                return Err(UffdError::ShutDown);
            }
            Err(error) => return Err(UffdError::System { operation: "reading events", errno: errno(error) }),
        };
        if engine.unread(self.id) > 0 {
            bell.show();
        }
        let count = taken.len();
        // No lock is held here: this may allocate.
        events.extend(taken.messages().map(|bytes| decode(self.protocol, bytes)));
        engine.delivered(taken);
        Ok(Some(count))
    }

    fn read(&self, wait: Wait, events: &mut Vec<Event<core::convert::Infallible>>) -> Result<usize, UffdError> {
        let until = match wait {
            Wait::AtMost(duration) => Instant::now().checked_add(duration),
            Wait::Forever | Wait::Never => None,
        };
        let bell = self.bell();
        loop {
            let seen = bell.count.load(Ordering::Acquire);
            if let Some(count) = self.take(events)? {
                return Ok(count);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if wait == Wait::Never || left == Some(Duration::ZERO) {
                return Ok(0);
            }
            match futex_wait(&bell.count, seen, left) {
                // Even a timeout looks once more: it may have met a wake that nobody else got.
                FutexWait::Woken | FutexWait::Changed | FutexWait::Interrupted | FutexWait::TimedOut => {}
            }
        }
    }
}

#[cold]
fn unreachable_bell() -> &'static Bell {
    crate::sys::die("userfault: a context without a bell; this is a bug in userfault-process\n")
}

impl Drop for Context {
    fn drop(&mut self) {
        // In a forked child the engine's copy is nobody's, and its locks may be held for ever.
        if self.host.machine.is_opener() {
            self.host.release(self.id);
        }
    }
}

fn decode(protocol: Protocol, bytes: &[u8]) -> Event<core::convert::Infallible> {
    match protocol {
        Protocol::Original { .. } => {
            let word = Word::from_bytes(bytes.first_chunk().copied().unwrap_or_default());
            let write = if word.is_write() { PagefaultFlags::WRITE } else { PagefaultFlags::NONE };
            let protect = if word.is_write_protect() { PagefaultFlags::WP } else { PagefaultFlags::NONE };
            Event::Fault(Fault::from_message(write | protect, word.address(PAGE_SIZE as u64), 0))
        }
        Protocol::Modern => {
            let bytes = bytes.first_chunk().copied().unwrap_or([0; Message::SIZE]);
            match Message::from_bytes(bytes).event() {
                MessageEvent::Pagefault { flags, address, thread } => {
                    Event::Fault(Fault::from_message(flags, address, thread))
                }
                // The engine has no other events yet.
                MessageEvent::Fork { .. }
                | MessageEvent::Remap { .. }
                | MessageEvent::Remove { .. }
                | MessageEvent::Unmap { .. }
                | MessageEvent::Unknown { .. }
                | _ => Event::Unknown(bytes),
            }
        }
    }
}

impl userfault_client::Uffd for Uffd {
    type Region = Region;
    type Forked = core::convert::Infallible;

    fn provider(&self) -> Provider {
        Provider::Process
    }

    fn capabilities(&self) -> &Capabilities {
        &self.context.capabilities
    }

    fn map(&self, pages: usize, modes: RegisterModes) -> Result<Region, UffdError> {
        self.context.check_process()?;
        crate::etiquette::check_signals()?;
        if pages == 0 {
            return Err(UffdError::OutsideRegion { asked: 0..0, pages: 0 });
        }
        let system = |operation, errno| UffdError::System { operation, errno };
        let len = pages.checked_mul(PAGE_SIZE).ok_or(system("mmap", Errno::ENOMEM))?;
        let mapping = Mapping::reserve(len, Protection::None).map_err(|_| system("mmap", Errno::ENOMEM))?;
        // One filled page must not take 2 MiB (H8). A kernel without huge pages refuses the advice.
        let _without_huge_pages = mapping.advise(mapping.range(), Advice::NoHugePage);
        let host = self.context.host;
        let tag = host.add_registered(mapping.base(), pages, self.context.id, modes).map_err(|error| match error {
            AddError::Register(userfault_engine::RegisterError::BadModes) => UffdError::ModesUnsupported { modes },
            AddError::Register(error) => system("registering", errno(error)),
            AddError::Host(errno) | AddError::LeftClosed(_, errno) => system("mapping", errno),
        })?;
        Ok(Region::new(mapping, tag, self.context(), modes))
    }

    fn read(&self, wait: Wait, events: &mut Vec<Event<Self::Forked>>) -> Result<usize, UffdError> {
        self.context.read(wait, events)
    }

    fn descriptor(&self) -> Result<BorrowedFd<'_>, UffdError> {
        self.context.check_process()?;
        let bell = self.context.bell();
        let descriptor =
            bell.descriptor().map_err(|errno| UffdError::System { operation: "making an eventfd", errno })?;
        // A fault that was queued before anybody asked has rung no eventfd (H31).
        let blocked = SignalsBlocked::new();
        if self.context.host.engine(&blocked).unread(self.context.id) > 0 {
            bell.show();
        }
        Ok(descriptor)
    }

    fn shut_down(&self) {
        if self.context.check_process().is_ok() {
            self.context.host.shut_down(self.context.id);
        }
    }

    fn wake_all(&self) {
        if self.context.check_process().is_ok() {
            let blocked = SignalsBlocked::new();
            let woken = self.context.host.engine(&blocked).wake_all(self.context.id);
            self.context.host.unpark(&blocked, woken);
        }
    }

    fn sleepers(&self) -> Result<Vec<Sleeper>, UffdError> {
        self.context.check_process()?;
        let mut found = Vec::new();
        self.context.host.for_each_sleeper(|context, sleeper| {
            if context == Some(self.context.id) {
                found.push(*sleeper);
            }
        });
        Ok(found)
    }

    fn enter_monitor(&self) {
        if let Some(thread) = self.context.host.threads.mine() {
            thread.monitors(Some(self.context.id));
        }
    }

    fn leave_monitor(&self) {
        if let Some(thread) = self.context.host.threads.mine() {
            thread.monitors(None);
        }
    }
}
