//! The embedder under loom: lock, page states, storage, futex, eventfd, and memory whose protection is a flag.
//!
//! Memory stands for what the hardware does: an access to a protected page faults; an access to an accessible
//! one sees whatever is there, half a page included.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Instant;

use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU8, AtomicU32};
use loom::sync::{Condvar, Mutex};
use loom::thread::JoinHandle;
use userfault_abi::{CopyModes, Features, OpenFlags, RegisterModes, request};
use userfault_engine::{
    Access, AddressSpace, AtomicByte, Capacities, Cause, Claim, ContextId, Embedder, End, Fill, Filling, Left, Limits,
    Lock, Mapping, MappingKind, Origin, Page, PageRange, PageState, Pages, Patience, Privilege, Protocol, StateTable,
    Step, Storage, Verdict, WaiterId, Why, Woken,
};

pub(crate) struct Loom;

pub(crate) struct LoomLock<T>(Mutex<T>);

impl<T> Lock<T> for LoomLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
        critical(&mut self.0.lock().unwrap())
    }
}

/// A page's state, with the orderings that [`AtomicByte`] asks for and no stronger ones.
pub(crate) struct Byte(AtomicU8);

impl AtomicByte for Byte {
    fn load_acquire(&self) -> u8 {
        self.0.load(Acquire)
    }

    fn exchange(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(from, to, AcqRel, Acquire)
    }
}

pub(crate) struct States(StateTable<Vec<Byte>>);

impl Pages for States {
    fn get(&self, page: Page) -> PageState {
        self.0.load::<Byte>(page)
    }

    fn swap(&self, page: Page, from: PageState, to: PageState) -> Result<(), PageState> {
        self.0.exchange::<Byte>(page, from, to)
    }
}

pub(crate) struct Room<T> {
    items: Vec<T>,
    most: usize,
}

impl<T> Storage<T> for Room<T> {
    fn as_slice(&self) -> &[T] {
        &self.items
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items
    }

    fn capacity(&self) -> usize {
        self.most
    }

    fn push(&mut self, value: T) -> Result<(), T> {
        if self.items.len() == self.most {
            return Err(value);
        }
        self.items.push(value);
        Ok(())
    }
}

impl Embedder for Loom {
    type Lock<T> = LoomLock<T>;
    type Pages = States;
    type Storage<T: Copy + Default> = Room<T>;

    fn storage<T: Copy + Default>(capacity: usize) -> Option<Room<T>> {
        Some(Room { items: Vec::with_capacity(capacity), most: capacity })
    }
}

/// A futex: sleeps only if the word still has the value that was read. Its word orders nothing.
#[derive(Default)]
pub(crate) struct Futex {
    word: AtomicU32,
    bucket: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    pub(crate) fn word(&self) -> u32 {
        self.word.load(Relaxed)
    }

    /// May return for no reason, as a futex may.
    pub(crate) fn park(&self, seen: u32) {
        let bucket = self.bucket.lock().unwrap();
        if self.word() == seen {
            drop(self.sleepers.wait(bucket));
        }
    }

    pub(crate) fn unpark(&self) {
        self.word.fetch_add(1, Relaxed);
        drop(self.bucket.lock().unwrap());
        self.sleepers.notify_all();
    }
}

/// A nonblocking eventfd, and the wait until it is readable.
#[derive(Default)]
pub(crate) struct EventFd {
    count: Mutex<u64>,
    pollers: Condvar,
}

impl EventFd {
    pub(crate) fn write(&self) {
        *self.count.lock().unwrap() += 1;
        self.pollers.notify_all();
    }

    pub(crate) fn drain(&self) {
        *self.count.lock().unwrap() = 0;
    }

    pub(crate) fn wait_until_readable(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.pollers.wait(count).unwrap();
        }
    }
}

/// A page as the hardware sees it: contents and protection, looked at by one access. Changing the
/// protection and faulting go through the kernel's page table, so they are ordered with each other.
#[derive(Default)]
pub(crate) struct Memory(AtomicU8);

const EMPTY: u8 = 0;
const WHOLE: u8 = 1;
const ACCESSIBLE: u8 = 2;

impl Memory {
    /// Writes the bytes; the caller has claimed the page.
    pub(crate) fn write(&self) {
        let before = self.0.fetch_add(WHOLE, Relaxed);
        assert_eq!(before & WHOLE, EMPTY, "a page that was claimed as missing has contents");
    }

    pub(crate) fn lift(&self) {
        self.0.fetch_or(ACCESSIBLE, Release);
    }

    pub(crate) fn protect(&self) {
        self.0.fetch_and(!ACCESSIBLE, Release);
    }

    pub(crate) fn empty(&self) {
        self.0.store(EMPTY, Release);
    }

    /// Becomes plain memory, which reads as zeros.
    pub(crate) fn make_plain(&self) {
        self.0.store(WHOLE | ACCESSIBLE, Release);
    }

    /// An access by the program: whether it could be made. It never sees an incomplete page.
    pub(crate) fn touch(&self) -> bool {
        let found = self.0.load(Acquire);
        assert_ne!(found, EMPTY | ACCESSIBLE, "an incomplete page was seen");
        found & ACCESSIBLE != 0
    }
}

/// One address space with one context, registered on all its pages.
pub(crate) struct World {
    pub(crate) space: AddressSpace<Loom>,
    pub(crate) context: ContextId,
    pub(crate) range: PageRange,
    pub(crate) memory: Vec<Memory>,
    pub(crate) bell: EventFd,
    /// Held while registrations change, except by a release, whose faults retry.
    pub(crate) layout: Mutex<()>,
    parks: Vec<Futex>,
}

const FIRST: u64 = 16;

impl World {
    /// `slots` threads can sleep at a time.
    pub(crate) fn new(protocol: Protocol, pages: usize, slots: usize) -> Self {
        let world = Self::before_handshake(protocol, pages, slots);
        let offer = world.space.begin_handshake(world.context, request::UFFD_API, Features::NONE).unwrap();
        assert_eq!(world.space.finish_handshake(offer, true), None);
        let mapping = Mapping { range: world.range, kind: MappingKind::PrivateAnonymous, tag: 0 };
        let modes = match protocol {
            Protocol::Modern => RegisterModes::MISSING | RegisterModes::WP,
            Protocol::Original { .. } => RegisterModes::MISSING,
        };
        let _ioctls = world.space.register(world.context, world.range, modes, &[mapping]).unwrap();
        world
    }

    pub(crate) fn before_handshake(protocol: Protocol, pages: usize, slots: usize) -> Self {
        let bytes = (0..pages).map(|_| Byte(AtomicU8::new(PageState::Missing.to_byte()))).collect();
        let states = States(StateTable::new(Page::new(FIRST), bytes));
        let capacities = Capacities { waiters: slots, registrations: 2, contexts: 1 };
        let space = AddressSpace::new(Limits::X86_64, states, capacities).unwrap();
        let context = space.open(OpenFlags::NONBLOCK, protocol, Privilege::Full).unwrap().publish();
        let range = PageRange::new(page(0), page(pages)).unwrap();
        let memory = (0..pages).map(|_| Memory::default()).collect();
        let parks = (0..slots).map(|_| Futex::default()).collect();
        Self { space, context, range, memory, bell: EventFd::default(), layout: Mutex::new(()), parks }
    }

    /// What the handler of a fault does, and the access that follows.
    ///
    /// While nobody takes the page away, a thread that is told to go on can do so (C0 before C1).
    pub(crate) fn access(&self, index: usize) {
        let _verdict = self.wait_for(index);
        assert!(self.memory[index].touch(), "told to go on, but the page is not accessible");
    }

    /// As [`access`](Self::access), where pages also go away, or change in other ways.
    pub(crate) fn access_patiently(&self, index: usize) {
        loop {
            let verdict = self.wait_for(index);
            if self.memory[index].touch() {
                return;
            }
            if matches!(verdict, Verdict::Retry | Verdict::Present(_)) {
                loom::thread::yield_now();
            }
        }
    }

    /// Until the access may be repeated.
    pub(crate) fn wait_for(&self, index: usize) -> Verdict {
        let verdict = self.fault(index);
        if let Verdict::Sleep { waiter, ring } = verdict {
            if ring.is_some() {
                self.bell.write();
            }
            let left = self.sleep(waiter);
            assert!(matches!(left, Left::Woken | Left::Released), "{left:?}");
        } else if !matches!(verdict, Verdict::Present(_) | Verdict::Retry) {
            // As a host does: a change of the layout may be under way, and ends in plain memory.
            drop(self.layout.lock().unwrap());
            assert!(self.memory[index].touch(), "a bus error: {verdict:?}");
        }
        verdict
    }

    pub(crate) fn fault(&self, index: usize) -> Verdict {
        self.fault_on(index, false)
    }

    pub(crate) fn fault_to_write(&self, index: usize) -> Verdict {
        self.fault_on(index, true)
    }

    fn fault_on(&self, index: usize, write: bool) -> Verdict {
        let address = Limits::X86_64.address_of(page(index));
        self.space.fault(&Access { address, write, patience: Patience::Wait, origin: Origin::User, thread: 1 })
    }

    /// What the handler of a thread does that can bring the page itself, until the access can be made; how
    /// many pages it brought. `seen`: 0 brought, 1 somebody else was faster, 2 waited for who was at it.
    pub(crate) fn access_inline(&self, index: usize, seen: &Seen) -> u64 {
        let mut brought = 0;
        let address = Limits::X86_64.address_of(page(index));
        let patience = Patience::Answer;
        let access = Access { address, write: false, patience, origin: Origin::User, thread: 1 };
        loop {
            match self.space.fault(&access) {
                Verdict::Inline { context, page: found } => {
                    assert_eq!((context, found), (self.context, page(index)));
                    let done = self.fill(index).pages_done;
                    seen.add(usize::from(done == 0));
                    brought += done;
                }
                Verdict::Sleep { waiter, ring: None } => {
                    seen.add(2);
                    assert_eq!(self.sleep(waiter), Left::Woken);
                }
                Verdict::Present(_) | Verdict::Retry => loom::thread::yield_now(),
                other => panic!("{other:?}"),
            }
            if self.memory[index].touch() {
                return brought;
            }
        }
    }

    /// A fault that nothing has answered yet; of its thread the test needs the name only.
    pub(crate) fn asleep(&self, index: usize) -> WaiterId {
        let Verdict::Sleep { waiter, ring: Some(_) } = self.fault(index) else { panic!("nothing to wait for") };
        waiter
    }

    /// Parks until the engine lets the sleeper go.
    pub(crate) fn sleep(&self, waiter: WaiterId) -> Left {
        let park = &self.parks[waiter.index()];
        loop {
            let seen = park.word();
            let left = self.space.leave(waiter, Why::Check);
            if left != Left::Asleep {
                return left;
            }
            park.park(seen);
        }
    }

    pub(crate) fn unpark(&self, mut woken: Woken) {
        loop {
            woken.iter().for_each(|id| self.parks[id.index()].unpark());
            let Some(rest) = woken.rest else { return };
            woken = self.space.wake_rest(rest);
        }
    }

    pub(crate) fn copy(&self, range: PageRange) -> Filling {
        self.space.fill(self.context, range, Fill::Copy(CopyModes::NONE)).unwrap()
    }

    /// Fills a page and wakes its sleepers.
    pub(crate) fn fill(&self, index: usize) -> End {
        self.drive(self.copy(PageRange::one(page(index))), Self::bring)
    }

    pub(crate) fn wake(&self, range: PageRange) {
        self.unpark(self.space.wake(self.context, range));
    }

    /// Carries a fill through; `work` does what the claim asks for.
    pub(crate) fn drive(&self, mut filling: Filling, work: impl Fn(&Self, &Claim) -> Result<(), Cause>) -> End {
        loop {
            match self.space.next(&mut filling, 1) {
                Step::Write(claim) => {
                    let woken = match work(self, &claim) {
                        Ok(()) => self.space.commit(&mut filling, claim), // C1
                        Err(cause) => self.space.abort(&mut filling, claim, cause),
                    };
                    self.unpark(woken);
                }
                Step::CheckSource(_) => self.space.source_checked(&mut filling, true),
                Step::Busy(page) => {
                    if let Verdict::Sleep { waiter, ring: None } = self.space.await_page(page, 2) {
                        assert_eq!(self.sleep(waiter), Left::Woken);
                    }
                }
                Step::End(end) => {
                    if let Some((_, range)) = end.wake {
                        self.wake(range); // C2
                    }
                    return end;
                }
            }
        }
    }

    fn at(&self, claim: &Claim) -> &Memory {
        let offset = claim.range().start().number() - FIRST;
        &self.memory[usize::try_from(offset).unwrap()]
    }

    /// The work of a fill.
    pub(crate) fn bring(&self, claim: &Claim) -> Result<(), Cause> {
        self.at(claim).write();
        self.at(claim).lift(); // C0
        Ok(())
    }

    /// The work of a fill whose source cannot be read.
    pub(crate) fn bring_nothing(&self, claim: &Claim) -> Result<(), Cause> {
        let _untouched = self.at(claim);
        Err(Cause::SourceUnreadable)
    }

    /// The work of a discard.
    pub(crate) fn discard(&self, claim: &Claim) -> Result<(), Cause> {
        self.at(claim).empty();
        Ok(())
    }

    /// The work of a discard that does not succeed: the page is accessible again.
    pub(crate) fn discard_in_vain(&self, claim: &Claim) -> Result<(), Cause> {
        self.at(claim).protect();
        self.at(claim).lift();
        Err(Cause::NoMemory)
    }

    /// Nobody sleeps and no slot leaks.
    pub(crate) fn assert_nobody_is_left(&self) {
        assert_eq!((self.space.asleep(), self.space.slots_in_use(), self.space.unread(self.context)), (0, 0, 0));
    }
}

/// The page with this index.
pub(crate) fn page(index: usize) -> Page {
    Page::new(FIRST + u64::try_from(index).unwrap())
}

/// A thread that shares the world.
pub(crate) fn spawn<T: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> T + Send + Sync + 'static,
) -> JoinHandle<T> {
    let world = Arc::clone(world);
    loom::thread::spawn(move || work(&world))
}

/// Outcomes that were seen in at least one interleaving: a test that never meets its case proves nothing.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<AtomicUsize>);

impl Seen {
    pub(crate) fn add(&self, outcome: usize) {
        self.0.fetch_or(1 << outcome, StdOrdering::Relaxed);
    }

    #[track_caller]
    pub(crate) fn assert_all(&self, outcomes: usize) {
        assert_eq!(self.0.load(StdOrdering::Relaxed), (1 << outcomes) - 1, "not every outcome was seen");
    }
}

/// Runs `model` in every interleaving, or in all with at most `preemptions` of them.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    // Loom panics beyond so many branches; the limits that would end it silently are off.
    builder.max_branches = 100_000;
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.checkpoint_file = None;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let begun = Instant::now();
    builder.check(move || {
        counted.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} interleavings in {:.1?}", runs.load(StdOrdering::Relaxed), begun.elapsed());
}
