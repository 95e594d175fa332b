//! Which context wants the faults of which pages.
//!
//! The engine owns registrations, the embedder owns mappings (D3): for each change of registration
//! it hands in a snapshot of its mappings that it holds stable, and it calls the hooks when mappings
//! go, move or are forked. So there is no second map of the address space that could drift.
//!
//! Kernel counterpart: the userfaultfd fields of a mapping.

pub(crate) mod hooks;
pub(crate) mod interval;
pub(crate) mod register;
pub(crate) mod unregister;

use userfault_abi::RegisterModes;

use crate::addr::{Page, PageRange};
use crate::context::{ContextId, Rules};
use crate::host::{Embedder, Lock};
use crate::space::AddressSpace;

/// What kind of memory a mapping is; the embedder says, unknown is refused (W26).
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MappingKind {
    /// Private anonymous memory: what can be registered.
    PrivateAnonymous,
    /// Shared memory, named or not: it can be registered for missing pages, in the modern protocol. The
    /// embedder settles a page that appears without a fill, because somebody else has written it.
    Shared,
    /// Huge pages.
    HugePages,
    /// A file with operations of its own, private or shared.
    File,
    /// Device memory, `vdso` and the like, and anything the embedder cannot name.
    #[default]
    Unknown,
}

impl MappingKind {
    /// Whether it can be registered so.
    pub(crate) const fn takes(self, modes: RegisterModes, rules: &Rules) -> bool {
        match self {
            Self::PrivateAnonymous => true,
            Self::Shared => rules.shared_memory && modes.difference(RegisterModes::MISSING).is_empty(),
            Self::HugePages | Self::File | Self::Unknown => false,
        }
    }
}

/// One mapping of the embedder's.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its pages, whole: also what lies outside the range of a call.
    pub range: PageRange,
    /// What it is.
    pub kind: MappingKind,
    /// The embedder's name for it. Registrations of mappings with different tags never merge, and a
    /// fill never crosses from one to the other.
    pub tag: u32,
}

/// What a page's registration says.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Whose it is.
    pub context: ContextId,
    /// Which faults it wants.
    pub modes: RegisterModes,
    /// The mapping's tag.
    pub tag: u32,
}

impl<E: Embedder> AddressSpace<E> {
    /// The registration that holds `page`, with all the pages it covers.
    pub fn registration(&self, page: Page) -> Option<(PageRange, Registration)> {
        self.state.with(|state| state.registrations.get(page))
    }
}
