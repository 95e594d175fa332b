//! The host: the engine and all that belongs to it, once per process.
//!
//! Made at the first open, never freed, outside the malloc heap. The signal handler finds it through
//! one static pointer. A forked child leaves its parent's host (`fork.rs`) and may make its own.
//!
//! # Locks, in order
//!
//! 1. the layout lock (fills share it, register and unregister hold it alone),
//! 2. a chunk's lock,
//! 3. the engine's lock.
//!
//! All are held with asynchronous signals blocked: [`Host::engine`] wants the proof. Nobody allocates
//! or touches registered memory while holding one (L1, L2 of ARCHITECTURE.md).
//!
//! Invariant:
//!
//! 1. `HOST` is null or points to a host that is never freed.
#![expect(unsafe_code, reason = "one static pointer, which a forked child may change; the invariant is its proof")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use userfault_abi::errno::Errno;
use userfault_client::{Provider, Refusal, UffdError};
use userfault_engine::{AddressSpace, Capacities, Embedder, Lock, WaiterId, Woken};
use userfault_memory::{Fixed, Zeroed};
use userfault_signal::{InstallError, Signal, SignalsBlocked, Turn, futex_wake, install};

use crate::adopt::OnceAdopted;
use crate::bell::Bell;
use crate::fault::Faults;
use crate::fork::{Leaving, Ranges, in_child};
use crate::inline::Places;
use crate::lock::{FutexLock, LayoutLock, LayoutWrite};
use crate::machine::{Machine, Room, Tuning};
use crate::regions::Regions;
use crate::sleepers::Notes;
use crate::states::{LIMITS, States};
use crate::threads::Threads;

/// What the engine may use: address space, taken as it is needed.
const CAPACITIES: Capacities = Capacities { waiters: 1 << 16, registrations: 1 << 20, contexts: 1 << 10 };

/// This process, as an embedder.
pub(crate) struct Process;

impl Embedder for Process {
    type Lock<T> = FutexLock<T>;
    type Pages = States;
    type Storage<T: Copy + Default> = Room<T>;

    fn storage<T: Copy + Default>(capacity: usize) -> Option<Room<T>> {
        Room::new(capacity)
    }
}

pub(crate) struct Host {
    engine: AddressSpace<Process>,
    pub(crate) layout: LayoutLock<Regions>,
    /// Counts changes of the layout.
    layout_changes: AtomicU64,
    pub(crate) machine: Machine,
    pub(crate) threads: Threads,
    /// One word per waiter slot; an unpark changes it.
    pub(crate) words: Zeroed<AtomicU32>,
    /// When which thread fell asleep in a waiter slot, for reports.
    pub(crate) notes: Notes,
    /// One per context slot.
    pub(crate) bells: Fixed<Bell>,
    /// One per context slot.
    pub(crate) inline: Places,
    /// Some context wants to know thread ids.
    pub(crate) wants_threads: AtomicBool,
    pub(crate) ranges: Ranges,
    pub(crate) leaving: Leaving,
    pub(crate) once_adopted: OnceAdopted,
    /// There is or was a region of shared memory, whose pages can appear by themselves.
    pub(crate) has_shared: AtomicBool,
    /// That of the process which this one was forked from.
    pub(crate) former: Option<&'static Self>,
}

static HOST: AtomicPtr<Host> = AtomicPtr::new(ptr::null_mut());
/// Who opens or tunes.
static OPENING: Turn = Turn::new();
static TUNING: Wishes = Wishes::new();
/// The hook for forked children is installed, and the handler; a child has its parent's.
static HAS_HOOK: AtomicBool = AtomicBool::new(false);
static HAS_HANDLER: AtomicBool = AtomicBool::new(false);

/// The [`Tuning`] that the next host will have, under `OPENING`.
struct Wishes {
    mapping_budget: AtomicUsize,
    without_guards: AtomicBool,
    without_forced_writes: AtomicBool,
}

impl Wishes {
    const fn new() -> Self {
        Self {
            mapping_budget: AtomicUsize::new(usize::MAX),
            without_guards: AtomicBool::new(false),
            without_forced_writes: AtomicBool::new(false),
        }
    }

    fn set(&self, tuning: Tuning) {
        let Tuning { mapping_budget, without_guards, without_forced_writes } = tuning;
        self.mapping_budget.store(mapping_budget.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.without_guards.store(without_guards, Ordering::Relaxed);
        self.without_forced_writes.store(without_forced_writes, Ordering::Relaxed);
    }

    fn get(&self) -> Tuning {
        Tuning {
            mapping_budget: Some(self.mapping_budget.load(Ordering::Relaxed)).filter(|budget| *budget != usize::MAX),
            without_guards: self.without_guards.load(Ordering::Relaxed),
            without_forced_writes: self.without_forced_writes.load(Ordering::Relaxed),
        }
    }
}

/// Sets up how the host will work.
///
/// # Errors
///
/// [`UffdError::System`] with `EBUSY` after the first open: the host works already.
///
/// # Examples
///
/// ```
/// use userfault_client::Options;
/// use userfault_process::{Tuning, Uffd, statistics, tune};
///
/// tune(Tuning { mapping_budget: Some(1000), ..Tuning::default() })?;
/// let _uffd = Uffd::open(&Options::default())?;
/// assert_eq!(statistics().unwrap().mapping_budget, 1000);
/// assert!(tune(Tuning::default()).is_err(), "too late");
/// # Ok::<(), userfault_client::UffdError>(())
/// ```
pub fn tune(tuning: Tuning) -> Result<(), UffdError> {
    let _turn = OPENING.take();
    if Host::get().is_some() {
        return Err(UffdError::System {
            operation: "tuning the process provider after its first open",
            errno: Errno::EBUSY,
        });
    }
    TUNING.set(tuning);
    Ok(())
}

impl Host {
    /// The host, if something was opened in this process.
    pub(crate) fn get() -> Option<&'static Self> {
        Self::newest().filter(|host| host.machine.is_opener())
    }

    /// The host, if something was opened in this process; else, in a forked child, its parent's.
    pub(crate) fn newest() -> Option<&'static Self> {
        // SAFETY: invariant 1.
        unsafe { HOST.load(Ordering::Acquire).as_ref() }
    }

    /// The host; made, and the handler installed, at the first call.
    ///
    /// # Errors
    ///
    /// What this machine refuses, with the remedy.
    pub(crate) fn open() -> Result<&'static Self, UffdError> {
        let _turn = OPENING.take();
        if let Some(host) = Self::get() {
            return Ok(host);
        }
        let former = Self::newest();
        if let Some(former) = former {
            former.leave(&SignalsBlocked::new());
        }
        let tuning = TUNING.get();
        let refused = |tried| UffdError::Refused { provider: Provider::Process, tried };
        let refused_once = |refusal| refused(vec![refusal]);
        crate::probe::platform().map_err(refused_once)?;
        let writer = crate::probe::writer(tuning).map_err(refused)?;
        let machine = Machine::open(tuning, writer).map_err(refused_once)?;
        // Before the tables: they are never unmapped, and whoever is refused may ask again and again.
        Self::install_hooks()?;
        let host = Self::make(machine, former).map_err(refused_once)?;
        let mut place = Fixed::with_capacity(1).map_err(|_| no_memory("the host's own mapping"))?;
        if place.push(host).is_err() {
            return Err(no_memory("the host's own mapping"));
        }
        let place: &'static Fixed<Self> = Box::leak(Box::new(place));
        let host = place.as_ref().first().ok_or_else(|| no_memory("the host's own mapping"))?;
        HOST.store(ptr::from_ref(host).cast_mut(), Ordering::Release);
        Ok(host)
    }

    /// Each once in the life of the process and its children. Without a host neither does anything.
    fn install_hooks() -> Result<(), UffdError> {
        let refused = |way, errno, remedy| UffdError::Refused {
            provider: Provider::Process,
            tried: vec![Refusal { way, errno, remedy }],
        };
        if !HAS_HOOK.load(Ordering::Relaxed) {
            // SAFETY: the hook is async-signal-safe, as what runs in a forked child must be.
            let answer = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            if answer != 0 {
                return Err(refused("hook for forked children", Errno::from_raw(answer), "free some memory"));
            }
            HAS_HOOK.store(true, Ordering::Relaxed);
        }
        if HAS_HANDLER.load(Ordering::Relaxed) {
            return Ok(());
        }
        install::<Faults>(Signal::Segv).map_err(|error| {
            let errno = match error {
                InstallError::Os { errno } => Errno::from_raw(errno),
                InstallError::Full { .. } | _ => Errno::EBUSY,
            };
            refused("SIGSEGV handler", errno, "allow rt_sigaction for SIGSEGV")
        })?;
        HAS_HANDLER.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn make(machine: Machine, former: Option<&'static Self>) -> Result<Self, Refusal> {
        let states = States::reserve().map_err(|_| short("reserve the table of page states"))?;
        let engine =
            AddressSpace::new(LIMITS, states, CAPACITIES).ok_or_else(|| short("reserve the engine's storage"))?;
        Ok(Self {
            engine,
            layout: LayoutLock::new(Regions::new().map_err(|_| short("reserve the table of regions"))?),
            layout_changes: AtomicU64::new(1),
            machine,
            threads: Threads::new().map_err(|_| short("reserve the table of threads"))?,
            words: Zeroed::new(CAPACITIES.waiters).map_err(|_| short("reserve the table of sleepers"))?,
            notes: Notes::new(CAPACITIES.waiters).map_err(|_| short("reserve the table of sleepers"))?,
            bells: Bell::table(CAPACITIES.contexts).map_err(|_| short("reserve the table of contexts"))?,
            inline: crate::inline::places(CAPACITIES.contexts).map_err(|_| short("reserve the table of contexts"))?,
            wants_threads: AtomicBool::new(false),
            ranges: Ranges::new().map_err(|_| short("reserve the table of ranges"))?,
            leaving: Leaving::default(),
            once_adopted: OnceAdopted::new(),
            has_shared: AtomicBool::new(false),
            former,
        })
    }

    /// The engine, for who has asynchronous signals blocked (L1).
    pub(crate) const fn engine<'a>(&'a self, _blocked: &'a SignalsBlocked) -> &'a AddressSpace<Process> {
        &self.engine
    }

    pub(crate) const fn states(&self) -> &States {
        self.engine.pages()
    }

    /// The layout, to change it.
    pub(crate) fn change_layout<'a>(&'a self, blocked: &'a SignalsBlocked) -> LayoutWrite<'a, Regions> {
        let layout = self.layout.write(blocked);
        self.layout_changes.fetch_add(1, Ordering::Relaxed);
        layout
    }

    /// Different after each change of the layout, for who holds it.
    pub(crate) fn layout_changes(&self) -> u64 {
        self.layout_changes.load(Ordering::Relaxed)
    }

    /// Unparks everybody a wake named, batch by batch.
    pub(crate) fn unpark(&self, blocked: &SignalsBlocked, woken: Woken) {
        let mut next = Some(woken);
        while let Some(woken) = next {
            for waiter in woken.iter() {
                self.unpark_one(waiter);
            }
            next = woken.rest.map(|rest| self.engine(blocked).wake_rest(rest));
        }
    }

    pub(crate) fn unpark_one(&self, waiter: WaiterId) {
        let Some(word) = self.words.get(waiter.index()) else { return };
        // The mark is set; who reads the word as it is now will find it (ordering argument, 1).
        word.fetch_add(1, Ordering::Release);
        futex_wake(word, 1);
    }
}

fn short(way: &'static str) -> Refusal {
    Refusal { way, errno: Errno::ENOMEM, remedy: "raise the limit of address space (ulimit -v)" }
}

fn no_memory(operation: &'static str) -> UffdError {
    UffdError::System { operation, errno: Errno::ENOMEM }
}

/// The engine's lock is made through the engine's trait only.
const _: fn() = || {
    fn is_lock<L: Lock<()>>() {}
    is_lock::<FutexLock<()>>();
};
