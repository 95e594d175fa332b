//! The engine on bare metal, to prove that it cannot panic.
//!
//! Linked for `x86_64-unknown-none` with full optimisation, every public operation reachable from the
//! entry point with arguments the compiler cannot know. The panic handler calls a symbol that nobody
//! defines, so one reachable panic anywhere in the engine and the linker fails. The binary is never run.
//!
//! It is also the smallest embedder there is: static storage, a lock that is a cell.
//!
//! Invariants:
//!
//! 1. Nothing here is executed; the unsafe items exist for the linker.
#![expect(unsafe_code, reason = "an entry point and an undefined symbol; invariant 1")]

use core::cell::RefCell;
use core::hint::black_box;
use core::panic::PanicInfo;
use core::sync::atomic::AtomicU8;

use userfault_engine::{
    Access, AddressSpace, Capacities, Cause, Embedder, Fill, Limits, Lock, Mapping, MappingKind, Origin, Outcome, Page,
    PageRange, Patience, Privilege, Protocol, StateTable, Step, Storage, Verdict, Why,
};

unsafe extern "C" {
    /// Defined nowhere.
    fn the_engine_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: invariant 1.
    unsafe { the_engine_can_panic() }
}

const ROOM: usize = 64;

/// `ROOM` places in line; everything beyond is full.
struct Static<T> {
    items: [T; ROOM],
    len: usize,
}

impl<T: Copy + Default> Storage<T> for Static<T> {
    fn as_slice(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self.items.get_mut(..self.len).unwrap_or_default()
    }

    fn capacity(&self) -> usize {
        ROOM
    }

    fn push(&mut self, value: T) -> Result<(), T> {
        match self.items.get_mut(self.len) {
            Some(place) => {
                *place = value;
                self.len = self.len.saturating_add(1);
                Ok(())
            }
            None => Err(value),
        }
    }
}

/// For one processor with interrupts off.
struct Cell<T>(RefCell<T>);

impl<T> Lock<T> for Cell<T> {
    fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    fn with<R>(&self, critical: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Ok(mut value) = self.0.try_borrow_mut() {
                return critical(&mut value);
            }
        }
    }
}

struct Bare;

impl Embedder for Bare {
    type Lock<T> = Cell<T>;
    type Pages = StateTable<&'static [AtomicU8]>;
    type Storage<T: Copy + Default> = Static<T>;

    fn storage<T: Copy + Default>(_capacity: usize) -> Option<Static<T>> {
        Some(Static { items: [T::default(); ROOM], len: 0 })
    }
}

static STATES: [AtomicU8; 256] = [const { AtomicU8::new(0) }; 256];

/// The entry point.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let capacities = Capacities { waiters: ROOM, registrations: ROOM, contexts: ROOM };
    let table = StateTable::new(Page::new(0), STATES.as_slice());
    if let Some(space) = AddressSpace::<Bare>::new(black_box(Limits::X86_64), table, capacities) {
        loop {
            drive(&space, black_box(0), black_box([0_u8; 40]));
        }
    }
    loop {
        core::hint::spin_loop();
    }
}

fn drive(space: &AddressSpace<Bare>, number: u64, bytes: [u8; 40]) {
    let protocol = if black_box(true) { Protocol::Modern } else { Protocol::Original { fills: black_box(true) } };
    let flags = userfault_abi::OpenFlags::from_bits(black_box(0));
    let Ok(opening) = space.open(flags, protocol, black_box(Privilege::Full)) else { return };
    let context = opening.publish();
    let mappings = black_box([Mapping {
        range: black_box(PageRange::one(Page::new(1))),
        kind: MappingKind::PrivateAnonymous,
        tag: 0,
    }]);
    let access = Access {
        address: number,
        write: black_box(false),
        patience: black_box(Patience::Wait),
        origin: black_box(Origin::User),
        thread: black_box(0),
    };
    black_box(space.answer_inline(context, black_box(true)));
    if let Verdict::Sleep { waiter, .. } = black_box(space.fault(&access)) {
        let _ = black_box(space.leave(waiter, black_box(Why::Check)));
    }
    let _ = black_box(space.await_page(Page::new(number), 0));
    let reply = match space.ioctl(context, black_box(0), black_box(&bytes)) {
        Ok(call) => space.answer(call, black_box(Outcome::Done)),
        Err(reply) => reply,
    };
    black_box(reply.answer().bytes());
    let _ = black_box(space.settle(reply, black_box(true)));
    let mut buffer = black_box([0_u8; 96]);
    let _ = black_box(space.read(context, black_box(&mut buffer)));
    if let Ok(taken) = space.take(context, black_box(64)) {
        black_box(taken.messages().count());
        let _ = black_box(space.give_back(taken, black_box(1)));
    }
    let range = black_box(PageRange::one(Page::new(number)));
    let modes = userfault_abi::RegisterModes::from_bits(black_box(1));
    let _ = black_box(space.register(context, range, modes, &mappings));
    work(space, context, range, &mappings);
    let _ = black_box(space.unregister(context, range, &mappings));
    let _ = black_box(space.removed(range));
    let _ = black_box(space.moved(range));
    let _ = black_box(space.forked(Page::new(number)));
    let woken = space.wake(context, range);
    black_box(woken.iter().count());
    if let Some(rest) = woken.rest {
        let _ = black_box(space.wake_rest(rest));
    }
    let sleepers = black_box(space.sleepers(black_box(0)));
    black_box(sleepers.iter().count());
    let _ = black_box(space.wake_all(context));
    let _ = black_box(space.poll(context, black_box(true)));
    let _ = black_box(space.fdinfo(context));
    let _ = black_box(space.begin_release(context));
    let _ = black_box(space.release_range(context, Page::new(number)));
    let _ = black_box(space.finish_release(context));
}

fn work(space: &AddressSpace<Bare>, context: userfault_engine::ContextId, range: PageRange, mappings: &[Mapping]) {
    let fill = Fill::Copy(userfault_abi::CopyModes::from_bits(black_box(0)));
    let modes = userfault_abi::WriteprotectModes::from_bits(black_box(0));
    let fillings = [
        space.fill(context, range, fill).ok(),
        space.writeprotect(context, range, modes, mappings).ok(),
        Some(space.install(range)),
        Some(space.discard(range)),
        Some(space.unprotect(range)),
    ];
    for mut filling in fillings.into_iter().flatten() {
        match black_box(space.next(&mut filling, black_box(8))) {
            Step::Write(claim) if black_box(true) => {
                let _ = black_box(space.commit(&mut filling, claim));
            }
            Step::Write(claim) => {
                let _ = black_box(space.commit_first(&mut filling, claim, black_box(1), black_box(Cause::NoMemory)));
            }
            Step::CheckSource(_) => space.source_checked(&mut filling, black_box(true)),
            Step::Busy(_) | Step::End(_) => {}
        }
    }
}
