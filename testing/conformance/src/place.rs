//! What a scenario may do and see, wherever it runs.
//!
//! A place is a world with memory, threads and descriptors. Addresses, thread ids and descriptor
//! numbers are its own; `world` makes them comparable.
//!
//! Kernel counterpart: the system calls that a program with a userfaultfd makes.

/// A descriptor, by the place's own numbering.
pub type Fd = usize;

/// A result as system calls give it: a value, or an errno.
pub type Result<T> = std::result::Result<T, i32>;

/// Where an argument or a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In ordinary memory.
    Good,
    /// Nowhere.
    Nowhere,
    /// In memory that can only be read.
    ReadOnly,
    /// So many bytes in ordinary memory, the rest nowhere.
    Cut(usize),
}

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It may be registered: private anonymous memory.
    Registrable,
    /// It holds what is copied from.
    Source,
    /// It is of a kind that can never be registered.
    Unregistrable,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Loads eight bytes.
    Load {
        /// Of the first byte.
        address: u64,
    },
    /// Stores eight bytes.
    Store {
        /// Of the first byte.
        address: u64,
        /// The bytes.
        value: u64,
    },
    /// Adds to eight bytes at once; the old value is the result.
    Add {
        /// Of the first byte.
        address: u64,
        /// What is added.
        value: u64,
    },
    /// Reads messages, blocking if the descriptor does.
    Read {
        /// From where.
        fd: Fd,
        /// Length of the buffer in bytes.
        count: usize,
    },
}

/// What can be seen of a thread once it does not move any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thread {
    /// It has nothing to do.
    Idle,
    /// Asleep in a fault.
    Asleep,
    /// Asleep in a read.
    Reading,
    /// The access is over, with this value (loads and adds).
    Done(u64),
    /// The read is over.
    Read(Result<Vec<u8>>),
    /// The access ended in a bus error at this address.
    Bus(u64),
    /// The access ended in a segmentation fault at this address.
    Segv(u64),
    /// Killed.
    Killed,
}

/// What is tried out where calls one after the other do not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// How many of two simultaneous handshakes succeed.
    RacingHandshakes,
    /// How many descriptors there can be, twice.
    OpenUntilFull,
    /// Faults while their context is being closed.
    FaultWhileClosing,
    /// What of registered memory is left once it is unmapped but its context is open.
    MemoryBehindContext,
}

/// What can be seen of a page from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing is there.
    Missing,
    /// Contents: the byte that fills the page, or `None` if they differ.
    Present(Option<u8>),
    /// Contents, write-protected.
    Protected(Option<u8>),
    /// Nothing, but protected once there is something.
    Marked,
    /// Poison.
    Poisoned,
    /// Inaccessible; more cannot be seen at this place.
    Absent,
    /// Accessible, and nobody has touched it: zeros, or nothing; more cannot be seen at this place.
    Untouched,
}

/// An address above everything that the places of the engine count as mapped.
pub const ABOVE: u64 = 0x7FFF_FFFF_0000;

/// A world to run a scenario in.
pub trait Place {
    /// Its name.
    fn name(&self) -> String;
    /// Its name in `deviations.txt`.
    fn kind(&self) -> Kind;
    /// Opens a descriptor.
    ///
    /// # Errors
    ///
    /// As `userfaultfd(2)`.
    fn open(&mut self, flags: u32) -> Result<Fd>;
    /// Closes it.
    fn close(&mut self, fd: Fd);
    /// `ioctl(2)`; what is written back is in `argument`.
    ///
    /// # Errors
    ///
    /// As `ioctl_userfaultfd(2)`.
    fn ioctl(&mut self, fd: Fd, request: u32, argument: &mut [u8], at: At) -> Result<()>;
    /// `read(2)`, where it does not block.
    ///
    /// # Errors
    ///
    /// As `read(2)`.
    fn read(&mut self, fd: Fd, count: usize, at: At) -> Result<Vec<u8>>;
    /// `poll(2)` for everything.
    fn poll(&mut self, fd: Fd) -> u16;
    /// Sets or clears `O_NONBLOCK`.
    fn set_nonblocking(&mut self, fd: Fd, nonblocking: bool);
    /// The `pending`, `total` and `API` lines of fdinfo.
    fn fdinfo(&mut self, fd: Fd) -> String;
    /// Maps pages at `address`, or where the place wants them; answers where. Around a mapping there
    /// is nothing, unless the scenario maps something there.
    fn map(&mut self, address: u64, pages: u64, purpose: Use) -> u64;
    /// Unmaps pages.
    fn unmap(&mut self, address: u64, pages: u64);
    /// Changes what a mapping allows.
    fn protect(&mut self, address: u64, pages: u64, protection: Protection);
    /// Gives contents back (`MADV_DONTNEED`).
    fn discard(&mut self, address: u64, pages: u64);
    /// Moves a mapping of so many pages.
    fn remap(&mut self, from: u64, to: u64, pages: u64);
    /// Stores into memory whose faults nobody handles.
    fn populate(&mut self, address: u64, bytes: &[u8]);
    /// Brings contents to missing pages by the place's own means, which wakes nobody.
    fn install(&mut self, address: u64, bytes: &[u8]);
    /// Ends waiting on a descriptor for good (W17).
    fn shut_down(&mut self, fd: Fd);
    /// Something that only this place knows how to try; answers what came of it.
    fn try_out(&mut self, what: Trial) -> String;
    /// Reads memory without ever waiting (`/proc/PID/mem`).
    ///
    /// # Errors
    ///
    /// `EIO`.
    fn peek(&mut self, address: u64) -> Result<u8>;
    /// What is at a page.
    fn seen(&mut self, address: u64) -> Seen;
    /// Lets a thread begin something.
    fn start(&mut self, thread: usize, activity: Activity);
    /// What a thread does, once it does not move any more.
    fn observe(&mut self, thread: usize) -> Thread;
    /// A signal with a handler, which does nothing.
    fn signal(&mut self, thread: usize);
    /// The thread with this id in messages.
    fn thread_of(&mut self, id: u32) -> Option<usize>;
}

/// Kinds of places, as the specification names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The engine in the simulator.
    Simulator,
    /// The engine hosted in this process.
    Process,
    /// Linux.
    Kernel,
}

impl Kind {
    /// As in `spec/`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
            Self::Process => "process",
            Self::Kernel => "kernel",
        }
    }
}
