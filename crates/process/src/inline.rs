//! Faults that the thread answers itself, in its handler.
//!
//! Where the engine says `Verdict::Inline` the page is missing, nobody works on it and nobody was told. The thread
//! fetches the bytes of the window around it under no lock and without a claim, so a source that takes its time
//! stalls nobody else; then it installs them, where none has come meanwhile, and wakes whoever had asked the
//! monitor meanwhile. Two threads may fetch the same page: the second finds it present and drops its bytes.
//!
//! Whatever does not go well is handed to the monitor, by faulting again as one that waits.
//!
//! Kernel counterpart: the SIGBUS feature with a handler that copies.

use core::fmt;
use std::sync::Arc;

use userfault_abi::errno::Errno;
use userfault_abi::{Features, RegisterModes};
use userfault_client::{Region as _, UffdError};
use userfault_engine::{ContextId, FillStop, Page, PageRange, Protocol};
use userfault_memory::{Fixed, MapError};
use userfault_signal::{Answers, AskMonitor, InlineCounts, InlineSource, Place, SignalsBlocked};

use crate::fill::Bytes;
use crate::handle::{Pages, Region};
use crate::host::Host;
use crate::states::PAGE_SIZE;

/// One for each context slot.
pub(crate) type Places = Fixed<Place<Here>>;

/// What a thread needs to answer a fault of a context.
#[derive(Debug)]
pub(crate) struct Here {
    context: ContextId,
    range: PageRange,
    tag: u32,
    answers: Answers,
}

/// Has faulting threads answer themselves, for as long as it lives: see [`Region::answer_inline`].
///
/// Example: [`Region::answer_inline`](crate::Region::answer_inline).
#[must_use = "dropped, it ends the inline answers"]
pub struct Inline {
    pages: Arc<Pages>,
    here: Arc<Here>,
}

pub(crate) fn places(len: usize) -> Result<Places, MapError> {
    let mut places = Fixed::with_capacity(len)?;
    while places.push(Place::new()).is_ok() {}
    Ok(places)
}

impl Region {
    /// From now on a thread that touches a missing page of this region brings it from `source` itself, in its
    /// signal handler, together with the other missing ones of an aligned group of `window` pages, at least 1.
    /// Nobody is told.
    ///
    /// Where it cannot, the fault is an event as any other: if the source says [`AskMonitor`], if the thread's
    /// alternate signal stack is smaller than [`LARGE_STACK_BYTES`](userfault_signal::LARGE_STACK_BYTES) (those
    /// that Rust gives its threads are: see [`AlternateStack`](userfault_signal::AlternateStack)), or if
    /// [`Answers::AT_ONCE`] others are at it. So there is to be a monitor, with a source of the same contents.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotInline`] in the original protocol, with the SIGBUS feature, for memory registered for
    /// write protection, and while a region of the descriptor is answered inline already;
    /// [`UffdError::System`] without memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use userfault_client::{Options, Region as _, RegisterModes, Uffd as _};
    /// use userfault_signal::{AlternateStack, Bytes};
    ///
    /// let uffd = userfault_process::Uffd::open(&Options::default())?;
    /// let region = uffd.map(2, RegisterModes::MISSING)?;
    /// let inline = region.answer_inline(Bytes::from(vec![42; 5000]), 1)?;
    /// let window = region.window(0..2)?;
    /// let _large = AlternateStack::ensure(0).unwrap();
    /// assert_eq!((window.as_slice()[4999], window.as_slice()[5000]), (42, 0));
    /// assert_eq!(inline.counts().faults, 1);
    /// # Ok::<(), userfault_client::UffdError>(())
    /// ```
    pub fn answer_inline(&self, source: impl InlineSource, window: usize) -> Result<Inline, UffdError> {
        let Pages { context, modes, .. } = &*self.pages;
        let range = self.pages.range(&(0..self.pages()))?;
        let refused = |reason| Err(UffdError::NotInline { reason });
        if matches!(context.protocol, Protocol::Original { .. }) {
            return refused("the original protocol knows no fills; open the modern one");
        }
        if context.capabilities().features.contains(Features::SIGBUS) {
            return refused("with the SIGBUS feature faults are signals for the program; open without it");
        }
        if *modes != RegisterModes::MISSING {
            return refused("the memory is registered for write protection, too; register it for missing pages only");
        }
        let answers = Answers::new(source, self.pages(), PAGE_SIZE, window)
            .map_err(|error| UffdError::System { operation: "mmap", errno: Errno::from_raw(error.errno) })?;
        let here = Arc::new(Here { context: context.id, range, tag: self.pages.tag, answers });
        let host = context.host;
        let free = host.inline_place(context.id).is_some_and(|place| place.publish(Arc::clone(&here)).is_ok());
        if !free {
            return refused("a region of this descriptor is answered inline already; open a descriptor for this one");
        }
        let _open = host.engine(&SignalsBlocked::new()).answer_inline(context.id, true);
        Ok(Inline { pages: Arc::clone(&self.pages), here })
    }
}

impl Inline {
    /// What was answered inline.
    #[must_use]
    pub fn counts(&self) -> InlineCounts {
        self.here.answers.counts()
    }

    /// Ends it, as a drop does, and tells what was answered in all.
    ///
    /// # Blocking
    ///
    /// Until the source has returned to every thread that is in it.
    #[must_use]
    pub fn end(self) -> InlineCounts {
        let here = Arc::clone(&self.here);
        drop(self);
        here.answers.counts()
    }
}

impl Drop for Inline {
    /// # Blocking
    ///
    /// Until the source has returned to every thread that is in it.
    fn drop(&mut self) {
        let context = &self.pages.context;
        // In a forked child those that were inside are gone, and would be waited for in vain.
        if context.check_process().is_ok() {
            let _open = context.host.engine(&SignalsBlocked::new()).answer_inline(context.id, false);
            let _ours = context.host.inline_place(context.id).map(Place::withdraw);
        }
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Host {
    fn inline_place(&self, context: ContextId) -> Option<&Place<Here>> {
        self.inline.as_ref().get(context.index())
    }

    /// Brings a missing page and what else is missing in its window. Not inlined: on small stacks, where nobody
    /// comes here, its frame must not be part of the handler's.
    #[inline(never)]
    pub(crate) fn answer_inline(
        &self,
        blocked: &SignalsBlocked,
        context: ContextId,
        page: Page,
    ) -> Result<(), AskMonitor> {
        let here = self.inline_place(context).and_then(Place::enter).ok_or(AskMonitor)?;
        // The slot may have another context by now, and the context other regions.
        if here.context != context || !here.range.contains(page) {
            return Err(AskMonitor);
        }
        let start = here.range.start().number();
        let index = usize::try_from(page.number() - start).map_err(|_| AskMonitor)?;
        here.answers.answer(index, |first, bytes| {
            let first = Page::new(start + first as u64);
            let end = Page::new(first.number() + (bytes.len() / PAGE_SIZE) as u64);
            let range = PageRange::new(first, end).ok_or(AskMonitor)?;
            self.install_missing(blocked, &here, range, page, bytes)
        })
    }

    /// Fills those of `range` that are missing, and wakes their sleepers; how many it filled. What is no longer
    /// registered is left alone: it is plain memory. So is poison, which a monitor's fill would replace: nobody has
    /// asked for it by name.
    fn install_missing(
        &self,
        blocked: &SignalsBlocked,
        here: &Here,
        range: PageRange,
        asked: Page,
        bytes: &[u8],
    ) -> Result<usize, AskMonitor> {
        let layout = self.layout.read(blocked);
        let mut most = range.pages();
        let mut filled = 0;
        let mut at = range.start();
        while let Some(part) = range.from(at).and_then(|rest| rest.first(most)) {
            // Of adopted memory, parts leave the region; another one of this context may lie there.
            let has_all = layout.get(here.tag).is_some_and(|region| region.has_all(part));
            let filling = if has_all { self.install(blocked, part) } else { None };
            let Some(mut filling) = filling else {
                if most == 1 {
                    at = at.next();
                }
                most = 1;
                continue;
            };
            let offset = usize::try_from(at.number() - range.start().number()).map_err(|_| AskMonitor)? * PAGE_SIZE;
            let end = self.drive(blocked, &layout, &mut filling, Bytes::At(bytes.as_ptr().addr() + offset));
            if let Some(done) = part.first(end.pages_done) {
                let woken = self.engine(blocked).wake(here.context, done);
                self.unpark(blocked, woken);
            }
            filled += usize::try_from(end.pages_done).unwrap_or(0);
            at = Page::new(at.number() + end.pages_done);
            match end.stop {
                None => {}
                Some(FillStop::Exists) => at = at.next(),
                // Others of the window are wanted by nobody yet.
                Some(_) if asked < at => break,
                Some(_) => return Err(AskMonitor),
            }
        }
        Ok(filled)
    }
}
