//! Regions and what is lent from them, as a client sees it.
//!
//! A window lends slices, so nothing here changes bytes that were seen: a fill meets `AlreadyPresent`,
//! and discarding takes the window by `&mut`.

use core::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use userfault_abi::{CopyModes, PoisonModes, RegisterModes, WriteprotectModes, ZeropageModes};
use userfault_client::{Progress, Provider, Stopped, UffdError, WriteProtect};
use userfault_engine::{End, Fill, FillError, Page, PageRange, Protocol, errno};
use userfault_memory::{self as memory, LendError, Mapping};
use userfault_signal::SignalsBlocked;

use crate::fill::Bytes;
use crate::lent::Lent;
use crate::regions::Regions;
use crate::states::PAGE_SIZE;
use crate::uffd::Context;

/// Memory that is registered with a [`Uffd`](crate::Uffd) of this process; a cheap handle.
///
/// It holds the context: as long as a region or a window lives, missing pages stay missing.
///
/// Example: [`crate`].
#[derive(Clone, Debug)]
pub struct Region {
    pub(crate) pages: Arc<Pages>,
}

/// A registered mapping. Dropped: the registration ends, then the mapping goes.
///
/// Of adopted memory only the registration ends.
#[derive(Debug)]
pub(crate) struct Pages {
    memory: Memory,
    pub(crate) tag: u32,
    pub(crate) context: Arc<Context>,
    pub(crate) modes: RegisterModes,
}

/// Whose memory it is.
#[derive(Debug)]
pub(crate) enum Memory {
    Own(Arc<Mapping>),
    Adopted {
        base: usize,
        pages: usize,
    },
    /// Plain shared memory again in the end.
    AdoptedShared {
        base: usize,
        pages: usize,
    },
}

impl Memory {
    fn base(&self) -> usize {
        match self {
            Self::Own(mapping) => mapping.base(),
            Self::Adopted { base, .. } | Self::AdoptedShared { base, .. } => *base,
        }
    }

    fn pages(&self) -> usize {
        match self {
            Self::Own(mapping) => mapping.pages(),
            Self::Adopted { pages, .. } | Self::AdoptedShared { pages, .. } => *pages,
        }
    }

    /// What windows are lent from.
    fn mapping(&self) -> Result<&Arc<Mapping>, UffdError> {
        match self {
            Self::Own(mapping) => Ok(mapping),
            Self::Adopted { .. } | Self::AdoptedShared { .. } => Err(UffdError::Adopted),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.context.check_process().is_ok() {
            match self.memory {
                Memory::Own(_) => self.context.host.remove(self.tag),
                Memory::Adopted { .. } => self.context.host.end_adoption(self.tag),
                Memory::AdoptedShared { .. } => self.context.host.give_back_shared(self.tag),
            }
        } else {
            self.context.host.remove_in_child(self.tag);
        }
    }
}

/// Lends slices of a region; exclusive.
///
/// Example: [`crate`].
#[derive(Debug)]
pub struct Window {
    // Dropped in this order: the mapping outlives its registration, never the other way round.
    window: Lent<memory::Window>,
    pages: Arc<Pages>,
}

/// Copies in and out of a region; any number.
///
/// Example: [`crate`].
#[derive(Clone, Debug)]
pub struct Shared {
    shared: Lent<memory::Shared>,
    pages: Arc<Pages>,
}

impl Region {
    pub(crate) fn new(mapping: Mapping, tag: u32, context: &Arc<Context>, modes: RegisterModes) -> Self {
        Self { pages: Arc::new(Pages::new(Memory::Own(Arc::new(mapping)), tag, context, modes)) }
    }

    /// Of memory that the program mapped itself.
    pub(crate) fn adopted(bytes: &Range<usize>, tag: u32, context: &Arc<Context>, modes: RegisterModes) -> Self {
        let memory = Memory::Adopted { base: bytes.start, pages: bytes.len() / PAGE_SIZE };
        Self { pages: Arc::new(Pages::new(memory, tag, context, modes)) }
    }

    pub(crate) fn inner(&self) -> &Pages {
        &self.pages
    }

    /// Brings `bytes` to missing pages from `first` on without waking anybody: the host's own
    /// installation, for the original protocol, whose monitor wakes for each word it has read.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`], [`UffdError::OutsideRegion`].
    pub fn install(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        let range = self.pages.range_of_bytes(first, bytes)?;
        let host = self.pages.context.host;
        let blocked = SignalsBlocked::new();
        let layout = host.layout.read(&blocked);
        let has_all = self.pages.has_all(&layout, range);
        let Some(mut filling) = host.install(&blocked, range).filter(|_| has_all) else {
            return Ok(Progress::stopped(0, Stopped::NotRegistered));
        };
        let end = host.drive(&blocked, &layout, &mut filling, Bytes::At(bytes.as_ptr().addr()));
        Ok(progress(&end))
    }
}

impl Pages {
    pub(crate) fn new(memory: Memory, tag: u32, context: &Arc<Context>, modes: RegisterModes) -> Self {
        Self { memory, tag, context: Arc::clone(context), modes }
    }

    pub(crate) fn base(&self) -> usize {
        self.memory.base()
    }

    pub(crate) fn count(&self) -> usize {
        self.memory.pages()
    }

    /// Page numbers of the region, checked, as pages of the address space.
    pub(crate) fn range(&self, pages: &Range<usize>) -> Result<PageRange, UffdError> {
        self.context.check_process()?;
        let outside = || UffdError::OutsideRegion { asked: pages.clone(), pages: self.memory.pages() };
        // Before any arithmetic: a backwards range may wrap it.
        if pages.start >= pages.end || pages.end > self.memory.pages() {
            return Err(outside());
        }
        let base = (self.memory.base() / PAGE_SIZE) as u64;
        PageRange::new(Page::new(base + pages.start as u64), Page::new(base + pages.end as u64)).ok_or_else(outside)
    }

    pub(crate) fn range_of_bytes(&self, first: usize, bytes: &[u8]) -> Result<PageRange, UffdError> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(PAGE_SIZE) {
            return Err(UffdError::NotWholePages { len_bytes: bytes.len(), page_size: PAGE_SIZE });
        }
        self.range(&(first..first.saturating_add(bytes.len() / PAGE_SIZE)))
    }

    /// In bytes from the start of the mapping.
    fn bytes(&self, pages: &Range<usize>) -> Result<Range<usize>, UffdError> {
        self.range(pages)?;
        Ok(pages.start * PAGE_SIZE..pages.end * PAGE_SIZE)
    }

    /// Whether these pages are in the region still: of adopted memory, parts leave it.
    pub(crate) fn has_all(&self, layout: &Regions, range: PageRange) -> bool {
        layout.get(self.tag).is_some_and(|region| region.has_all(range))
    }

    pub(crate) const fn is_adopted(&self) -> bool {
        matches!(self.memory, Memory::Adopted { .. })
    }

    pub(crate) fn fill(&self, range: PageRange, fill: Fill, bytes: Bytes) -> Result<Progress, UffdError> {
        let host = self.context.host;
        let blocked = SignalsBlocked::new();
        let layout = host.layout.read(&blocked);
        if !self.has_all(&layout, range) {
            return Ok(Progress::stopped(0, Stopped::NotRegistered));
        }
        if matches!(fill, Fill::Poison(_))
            && let Some(region) = layout.get(self.tag)
        {
            region.may_be_poisoned.store(true, Ordering::Relaxed);
        }
        if let Some(stop) = self.let_appear(&blocked, &layout, range) {
            return Ok(Progress::stopped(0, Stopped::from_errno(stop)));
        }
        let mut filling = match host.engine(&blocked).fill(self.context.id, range, fill) {
            Ok(filling) => filling,
            Err(FillError::NotOneMapping) => return Ok(Progress::stopped(0, Stopped::NotRegistered)),
            Err(FillError::NotWriteProtectable) => {
                return Err(UffdError::ModesUnsupported { modes: RegisterModes::WP });
            }
            Err(FillError::NotEnabled) => {
                return Err(UffdError::Unsupported { operation: "fill of this kind", provider: Provider::Process });
            }
            Err(error) => return Err(UffdError::System { operation: "filling", errno: errno(error) }),
        };
        let end = host.drive(&blocked, &layout, &mut filling, bytes);
        if let Some((context, range)) = end.wake {
            let woken = host.engine(&blocked).wake(context, range);
            host.unpark(&blocked, woken);
        }
        Ok(progress(&end))
    }

    pub(crate) fn copy(&self, first: usize, bytes: &[u8], modes: CopyModes) -> Result<Progress, UffdError> {
        let range = self.range_of_bytes(first, bytes)?;
        self.fill(range, Fill::Copy(modes), Bytes::At(bytes.as_ptr().addr()))
    }

    fn writeprotect(&self, pages: &Range<usize>, modes: WriteprotectModes) -> Result<(), UffdError> {
        let range = self.range(pages)?;
        if !self.modes.contains(RegisterModes::WP) {
            return Err(UffdError::ModesUnsupported { modes: RegisterModes::WP });
        }
        let host = self.context.host;
        let blocked = SignalsBlocked::new();
        let layout = host.layout.read(&blocked);
        let mapping = layout.get(self.tag).filter(|region| region.has_all(range)).map(crate::region::Region::mapping);
        let system = |errno| UffdError::System { operation: "write protection", errno };
        let mut filling = host
            .engine(&blocked)
            .writeprotect(self.context.id, range, modes, mapping.as_slice())
            .map_err(|error| system(errno(error)))?;
        let end = host.drive(&blocked, &layout, &mut filling, Bytes::Zeros);
        if let Some((context, range)) = end.wake {
            let woken = host.engine(&blocked).wake(context, range);
            host.unpark(&blocked, woken);
        }
        end.stop.map_or(Ok(()), |stop| Err(system(errno(stop))))
    }

    pub(crate) fn wake(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        let range = self.range(pages)?;
        let host = self.context.host;
        let blocked = SignalsBlocked::new();
        let woken = host.engine(&blocked).wake(self.context.id, range);
        host.unpark(&blocked, woken);
        drop(blocked);
        // Whoever was woken touches its page again.
        crate::etiquette::check_handler()
    }

    pub(crate) fn unregister(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        let range = self.range(pages)?;
        if self.is_adopted() {
            return self.context.host.give_back(self.tag, range);
        }
        let system = |error| UffdError::System { operation: "unregistering", errno: errno(error) };
        self.context.host.unregister(self.context.id, range).map_err(system)
    }

    fn lent(&self, asked: Range<usize>, error: &LendError) -> UffdError {
        match error {
            LendError::HeldByWindow { .. } | LendError::HeldByShared { .. } => UffdError::Lent { asked },
            LendError::Range(_) | _ => UffdError::OutsideRegion { asked, pages: self.memory.pages() },
        }
    }

    /// Ends contents of `pages`, which lie in `lent`, a part of this mapping in bytes.
    fn discard(&self, mapping: &Arc<Mapping>, lent: &Range<usize>, pages: &Range<usize>) -> Result<(), UffdError> {
        if !Arc::ptr_eq(mapping, self.memory.mapping()?) {
            return Err(UffdError::ForeignWindow);
        }
        let range = self.range(pages)?;
        let bytes = self.bytes(pages)?;
        if bytes.start < lent.start || lent.end < bytes.end {
            return Err(UffdError::OutsideRegion { asked: pages.clone(), pages: lent.len() / PAGE_SIZE });
        }
        let system = |errno| UffdError::System { operation: "discarding", errno };
        self.context.host.discard(range).map_err(system)
    }
}

pub(crate) fn lend_shared(pages: &Arc<Pages>, lent: Range<usize>) -> Result<Shared, UffdError> {
    let bytes = pages.bytes(&lent)?;
    let shared = pages.memory.mapping()?.shared(bytes).map_err(|error| pages.lent(lent, &error))?;
    Ok(Shared { shared: Lent::new(shared), pages: Arc::clone(pages) })
}

fn progress(end: &End) -> Progress {
    let pages_done = usize::try_from(end.pages_done).unwrap_or(usize::MAX);
    match end.stop {
        None => Progress::all(pages_done),
        Some(stop) => Progress::stopped(pages_done, Stopped::from_errno(errno(stop))),
    }
}

impl userfault_client::Region for Region {
    type Window = Window;
    type Shared = Shared;

    fn base(&self) -> usize {
        self.pages.base()
    }

    fn pages(&self) -> usize {
        self.pages.count()
    }

    fn page_size(&self) -> usize {
        PAGE_SIZE
    }

    fn copy(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::NONE)
    }

    fn copy_without_wake(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::DONTWAKE)
    }

    fn copy_protected(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::WP)
    }

    fn zeropage(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        self.pages.fill(self.pages.range(&pages)?, Fill::Zeropage(ZeropageModes::NONE), Bytes::Zeros)
    }

    fn poison(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        let range = self.pages.range(&pages)?;
        if matches!(self.pages.context.protocol, Protocol::Original { .. }) {
            return Err(UffdError::Unsupported {
                operation: "poison in the original protocol",
                provider: Provider::Process,
            });
        }
        self.pages.fill(range, Fill::Poison(PoisonModes::NONE), Bytes::Zeros)
    }

    fn writeprotect(&self, pages: Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        let modes = match how {
            WriteProtect::Protect => WriteprotectModes::WP,
            WriteProtect::Lift => WriteprotectModes::NONE,
            WriteProtect::LiftWithoutWake => WriteprotectModes::DONTWAKE,
        };
        self.pages.writeprotect(&pages, modes)
    }

    fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.wake(&pages)
    }

    fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.unregister(&pages)
    }

    fn populate(&self, pages: Range<usize>) -> Result<(), UffdError> {
        let bytes = self.pages.bytes(&pages)?;
        let outside = |_| UffdError::OutsideRegion { asked: pages, pages: self.pages.count() };
        self.pages.memory.mapping()?.populate(bytes).map_err(outside)
    }

    fn window(&self, pages: Range<usize>) -> Result<Window, UffdError> {
        let bytes = self.pages.bytes(&pages)?;
        let window = self.pages.memory.mapping()?.window(bytes).map_err(|error| self.pages.lent(pages, &error))?;
        Ok(Window { window: Lent::new(window), pages: Arc::clone(&self.pages) })
    }

    fn shared(&self, pages: Range<usize>) -> Result<Shared, UffdError> {
        lend_shared(&self.pages, pages)
    }

    fn discard(&self, window: &mut Window, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.discard(window.window.mapping(), &window.window.range(), &pages)
    }

    fn discard_shared(&self, shared: &Shared, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.discard(shared.shared.mapping(), &shared.shared.range(), &pages)
    }
}

impl Window {
    /// The contents; missing pages are answered as they are touched.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.window.as_slice()
    }

    /// The contents, to change them.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.window.as_mut_slice()
    }

    /// Where it lies, in pages from the start of the region.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        let bytes = self.window.range();
        bytes.start / PAGE_SIZE..bytes.end / PAGE_SIZE
    }

    /// Cuts the window in two, before the region's page `page`.
    ///
    /// # Errors
    ///
    /// The window itself if `page` is not inside it or is its first, and in a forked child.
    pub fn split_before(self, page: usize) -> Result<(Self, Self), Self> {
        let own = self.pages();
        if page <= own.start || page >= own.end || self.pages.context.check_process().is_err() {
            return Err(self);
        }
        let middle = (page - own.start) * PAGE_SIZE;
        let (first, second) = self.window.split(|window| window.split_at(middle));
        let pages = Arc::clone(&self.pages);
        Ok((Self { window: first, pages: self.pages }, Self { window: second, pages }))
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsMut<[u8]> for Window {
    fn as_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl Shared {
    /// Where it lies, in pages from the start of the region.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        let start = (self.shared.address() - self.pages.base()) / PAGE_SIZE;
        start..start + self.shared.len() / PAGE_SIZE
    }
}

impl userfault_client::Shared for Shared {
    fn len_bytes(&self) -> usize {
        self.shared.len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let copied = self.shared.read(offset, into);
        assert!(copied.is_ok(), "{} bytes at {offset} leave the {} that were lent", into.len(), self.shared.len());
    }

    fn write(&self, offset: usize, from: &[u8]) {
        let copied = self.shared.write(offset, from);
        assert!(copied.is_ok(), "{} bytes at {offset} leave the {} that were lent", from.len(), self.shared.len());
    }

    fn compare(&self, offset: usize, expected: &[u8]) -> Option<usize> {
        assert!(
            offset.checked_add(expected.len()).is_some_and(|end| end <= self.shared.len()),
            "{} bytes at {offset} leave the {} that were lent",
            expected.len(),
            self.shared.len()
        );
        self.shared.compare(offset, expected)
    }
}
