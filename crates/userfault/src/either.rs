//! One type for what either provider has.
//!
//! The traits of `client` have associated types, so a provider that is chosen at run time is an enum that
//! implements them. It hands each call on and adds nothing.
//!
//! Kernel counterpart: none.

use core::ops::Range;

use userfault_client::{self as client, Progress, UffdError, WriteProtect};
use userfault_linux as linux;
use userfault_process as process;

/// What the linux provider has, or what the process provider has.
///
/// # Examples
///
/// ```
/// use userfault::Either;
///
/// let uffd = userfault::open()?;
/// match uffd.as_either() {
///     Either::Linux(uffd) => println!("opened by {}", uffd.way()),
///     Either::Process(_) => println!("in this process: {:?}", userfault::process::statistics()),
/// }
/// # Ok::<(), userfault::OpenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Either<L, P> {
    /// Of the kernel's own userfaultfd.
    Linux(L),
    /// Of the engine hosted in this process.
    Process(P),
}

/// Memory registered with a [`Uffd`](crate::Uffd); a cheap handle, see [`client::Region`].
///
/// Example: [`crate`].
pub type Region = Either<linux::Region, process::Region>;

/// Pages of a [`Region`], lent exclusively as slices.
///
/// Example: [`crate`].
pub type Window = Either<linux::Window, process::Window>;

/// Pages of a [`Region`], lent for copying in and out.
///
/// Example: [`crate`].
pub type Shared = Either<linux::Shared, process::Shared>;

/// Hands a call on to whichever there is.
macro_rules! either {
    ($value:expr, $inner:ident => $call:expr) => {
        match $value {
            $crate::Either::Linux($inner) => $call,
            $crate::Either::Process($inner) => $call,
        }
    };
}
pub(crate) use either;

impl Window {
    /// Where it lies, in pages from the start of the region.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        either!(self, window => window.pages())
    }

    /// Cuts the window in two, before the region's page `page`.
    ///
    /// # Errors
    ///
    /// The window itself if `page` is not inside it or is its first.
    pub fn split_before(self, page: usize) -> Result<(Self, Self), Self> {
        match self {
            Self::Linux(window) => match window.split_before(page) {
                Ok((first, second)) => Ok((Self::Linux(first), Self::Linux(second))),
                Err(whole) => Err(Self::Linux(whole)),
            },
            Self::Process(window) => match window.split_before(page) {
                Ok((first, second)) => Ok((Self::Process(first), Self::Process(second))),
                Err(whole) => Err(Self::Process(whole)),
            },
        }
    }
}

impl Shared {
    /// Where it lies, in pages from the start of the region.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        either!(self, shared => shared.pages())
    }
}

impl<L: AsRef<[u8]>, P: AsRef<[u8]>> AsRef<[u8]> for Either<L, P> {
    fn as_ref(&self) -> &[u8] {
        either!(self, lent => lent.as_ref())
    }
}

impl<L: AsMut<[u8]>, P: AsMut<[u8]>> AsMut<[u8]> for Either<L, P> {
    fn as_mut(&mut self) -> &mut [u8] {
        either!(self, lent => lent.as_mut())
    }
}

impl<L: client::Shared, P: client::Shared> client::Shared for Either<L, P> {
    fn len_bytes(&self) -> usize {
        either!(self, lent => lent.len_bytes())
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        either!(self, lent => lent.read(offset, into));
    }

    fn write(&self, offset: usize, from: &[u8]) {
        either!(self, lent => lent.write(offset, from));
    }

    fn compare(&self, offset: usize, expected: &[u8]) -> Option<usize> {
        either!(self, lent => lent.compare(offset, expected))
    }
}

impl<L: client::Region, P: client::Region> client::Region for Either<L, P> {
    type Window = Either<L::Window, P::Window>;
    type Shared = Either<L::Shared, P::Shared>;

    fn base(&self) -> usize {
        either!(self, region => region.base())
    }

    fn pages(&self) -> usize {
        either!(self, region => region.pages())
    }

    fn page_size(&self) -> usize {
        either!(self, region => region.page_size())
    }

    fn copy(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        either!(self, region => region.copy(first, bytes))
    }

    fn copy_without_wake(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        either!(self, region => region.copy_without_wake(first, bytes))
    }

    fn copy_missing(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        either!(self, region => region.copy_missing(first, bytes))
    }

    fn copy_protected(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        either!(self, region => region.copy_protected(first, bytes))
    }

    fn zeropage(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        either!(self, region => region.zeropage(pages))
    }

    fn poison(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        either!(self, region => region.poison(pages))
    }

    fn writeprotect(&self, pages: Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        either!(self, region => region.writeprotect(pages, how))
    }

    fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.wake(pages))
    }

    fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.unregister(pages))
    }

    fn populate(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.populate(pages))
    }

    fn window(&self, pages: Range<usize>) -> Result<Self::Window, UffdError> {
        match self {
            Self::Linux(region) => region.window(pages).map(Either::Linux),
            Self::Process(region) => region.window(pages).map(Either::Process),
        }
    }

    fn shared(&self, pages: Range<usize>) -> Result<Self::Shared, UffdError> {
        match self {
            Self::Linux(region) => region.shared(pages).map(Either::Linux),
            Self::Process(region) => region.shared(pages).map(Either::Process),
        }
    }

    fn discard(&self, window: &mut Self::Window, pages: Range<usize>) -> Result<(), UffdError> {
        match (self, window) {
            (Self::Linux(region), Either::Linux(window)) => region.discard(window, pages),
            (Self::Process(region), Either::Process(window)) => region.discard(window, pages),
            (Self::Linux(_), Either::Process(_)) | (Self::Process(_), Either::Linux(_)) => {
                Err(UffdError::ForeignWindow)
            }
        }
    }

    fn discard_shared(&self, shared: &Self::Shared, pages: Range<usize>) -> Result<(), UffdError> {
        match (self, shared) {
            (Self::Linux(region), Either::Linux(shared)) => region.discard_shared(shared, pages),
            (Self::Process(region), Either::Process(shared)) => region.discard_shared(shared, pages),
            (Self::Linux(_), Either::Process(_)) | (Self::Process(_), Either::Linux(_)) => {
                Err(UffdError::ForeignWindow)
            }
        }
    }
}
