//! Faults inside the allocator, under its lock.
//!
//! 1. The allocator is the system's; it only looks at a page before, holding a lock of its own; or it gives
//!    out, once each, places of a region that lives until the end of the process.
#![expect(unsafe_code, reason = "a global allocator; the invariant above is this file's proof")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;

use userfault_abi::Features;
use userfault_client::{Region as _, RegisterModes, Uffd as _, Wait};
use userfault_process::raw::Memory;
use userfault_signal::{AlternateStack, Bytes};

use crate::access::load;
use crate::alone::alone;
use crate::door::{Door, pages};
use crate::os;
use crate::support::{PAGE, asleep, contents, contents_of, map, open, page_of, until, word};

/// The system's allocator behind one lock; a thread that says so touches a page while it holds that.
struct Touching;

#[global_allocator]
static ALLOCATOR: Touching = Touching;

/// Every allocation takes the lock; without it nothing of this is seen.
static IS_LOCKING: AtomicBool = AtomicBool::new(false);
static LOCK: AtomicBool = AtomicBool::new(false);
static TOUCHED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The next address to touch, or 0; and where to stop.
    static NEXT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// Where this thread's allocations come from instead, and to where.
    static HEAP: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Room in a registered region, if this thread's heap is one. Never freed.
fn from_region(layout: Layout) -> Option<*mut u8> {
    let (next, end) = HEAP.get();
    if next == 0 {
        return None;
    }
    // Each at the end of a page of its own: no allocation finds its page touched by another.
    let place = (next + PAGE).next_multiple_of(PAGE) - 64;
    let start = place.next_multiple_of(layout.align());
    let after = start + layout.size().max(1);
    assert!(after <= end, "the region is large enough");
    HEAP.set((after.next_multiple_of(PAGE), end));
    Some(std::ptr::with_exposed_provenance_mut(start))
}

static REGION: AtomicUsize = AtomicUsize::new(0);
const REGION_BYTES: usize = 16 << 20;

fn before() {
    if !IS_LOCKING.load(Ordering::Relaxed) {
        return;
    }
    while LOCK.swap(true, Ordering::Acquire) {
        thread::yield_now();
    }
    let (next, end) = NEXT.get();
    if next < end {
        NEXT.set((next + PAGE, end));
        load(next);
        TOUCHED.fetch_add(1, Ordering::Relaxed);
    }
    LOCK.store(false, Ordering::Release);
}

// SAFETY: the system's allocator (invariant 1).
unsafe impl GlobalAlloc for Touching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        before();
        if let Some(place) = from_region(layout) {
            return place;
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if place.addr().wrapping_sub(REGION.load(Ordering::Relaxed)) < REGION_BYTES {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

const PAGES: usize = 2000;

// spec: H22
#[test]
fn a_fault_inside_the_allocator_is_answered_by_a_monitor_that_allocates_nothing() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, PAGES);
        let base = region.base();
        let mut events = Vec::with_capacity(64);
        let source: Vec<_> = (0..PAGES).map(|page| contents(page, 1)).collect();
        let is_ready = AtomicBool::new(false);
        thread::scope(|scope| {
            let allocating = scope.spawn(|| {
                until("the lock is in use", || is_ready.load(Ordering::Relaxed));
                NEXT.set((base, base + PAGES * PAGE));
                while TOUCHED.load(Ordering::Relaxed) < PAGES {
                    drop(black_box(vec![1_u8; 100]));
                }
                NEXT.set((0, 0));
            });
            IS_LOCKING.store(true, Ordering::Relaxed);
            is_ready.store(true, Ordering::Relaxed);
            let mut answered = 0;
            while answered < PAGES {
                events.clear();
                uffd.read(Wait::Forever, &mut events).unwrap();
                for event in &events {
                    let page = page_of(&region, event);
                    assert_eq!(region.copy(page, &source[page]).unwrap().complete(), Ok(1));
                    answered += 1;
                }
            }
            until("the last page was touched", || TOUCHED.load(Ordering::Relaxed) == PAGES);
            IS_LOCKING.store(false, Ordering::Relaxed);
            allocating.join().unwrap();
        });
        assert_eq!(asleep(), 0);
        (0..PAGES).for_each(|page| assert_eq!(load(base + page * PAGE), word(page, 1)));
    });
}

// spec: H22
#[test]
fn a_fault_inside_the_allocator_is_answered_inline_by_who_allocates_nothing() {
    alone(|| {
        let uffd = open();
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let base = region.base();
        let inline = region.answer_inline(Bytes::from(contents_of(0..PAGES, 1)), 1).unwrap();
        let _large = AlternateStack::ensure(0).unwrap();
        NEXT.set((base, base + PAGES * PAGE));
        IS_LOCKING.store(true, Ordering::Relaxed);
        // Were anything allocated in a handler, it would wait for the lock that this thread holds.
        while TOUCHED.load(Ordering::Relaxed) < PAGES {
            drop(black_box(vec![1_u8; 100]));
        }
        IS_LOCKING.store(false, Ordering::Relaxed);
        assert_eq!((inline.counts().faults, asleep()), (PAGES as u64, 0));
        (0..PAGES).for_each(|page| assert_eq!(load(base + page * PAGE), word(page, 1)));
    });
}

// spec: H17, H22
#[test]
fn while_a_fault_inside_the_allocator_waits_the_process_forks_and_its_children_have_plain_memory() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 64);
        let base = region.base();
        let bytes = contents(0, 1);
        assert_eq!(region.copy(1, &contents(1, 1)).unwrap().complete(), Ok(1));
        thread::scope(|scope| {
            let allocating = scope.spawn(move || {
                NEXT.set((base, base + PAGE));
                until("the lock is in use", || IS_LOCKING.load(Ordering::Relaxed));
                drop(black_box(vec![1_u8; 100]));
            });
            IS_LOCKING.store(true, Ordering::Relaxed);
            until("the allocator waits", || asleep() == 1);
            // Neither fork nor a child may allocate: the lock is held there for ever.
            for turn in 0..100 {
                let is_plain = || {
                    let missing = [0, 2, 63].iter().all(|page| load(base + page * PAGE) == 0);
                    i32::from(!(missing && load(base + PAGE) == word(1, 1)))
                };
                let status = if turn % 2 == 0 { os::forked(is_plain) } else { os::cloned(is_plain) };
                assert_eq!(status, 0);
            }
            assert_eq!(asleep(), 1);
            let _done = region.copy(0, &bytes).unwrap();
            allocating.join().unwrap();
            IS_LOCKING.store(false, Ordering::Relaxed);
        });
        assert_eq!(load(base), word(0, 1));
    });
}

// spec: H22
#[test]
fn operations_that_change_pages_allocate_nothing_while_a_fault_inside_the_allocator_waits() {
    alone(|| {
        let uffd = open();
        let region = uffd.map(64, RegisterModes::MISSING | RegisterModes::WP).unwrap();
        let (base, bytes) = (region.base(), contents(0, 1));
        let mut window = region.window(8..64).unwrap();
        thread::scope(|scope| {
            let allocating = scope.spawn(move || {
                NEXT.set((base, base + PAGE));
                until("the lock is in use", || IS_LOCKING.load(Ordering::Relaxed));
                drop(black_box(vec![1_u8; 100]));
            });
            IS_LOCKING.store(true, Ordering::Relaxed);
            until("the allocator waits", || asleep() == 1);
            for page in (8..60).step_by(2) {
                let _done = region.copy_protected(page, &bytes).unwrap();
                let _done = region.zeropage(page + 1..page + 2).unwrap();
                region.writeprotect(page..page + 2, userfault_client::WriteProtect::Lift).unwrap();
                region.discard(&mut window, page..page + 1).unwrap();
                let _done = region.poison(page..page + 1).unwrap();
                region.wake(page..page + 1).unwrap();
            }
            uffd.wake_all();
            let _done = region.copy(0, &bytes).unwrap();
            allocating.join().unwrap();
            IS_LOCKING.store(false, Ordering::Relaxed);
        });
        assert_eq!(asleep(), 0);
    });
}

static SLEEPER: AtomicI32 = AtomicI32::new(0);

fn print() {
    userfault_process::print_sleepers();
}

// spec: H22
#[test]
fn who_sleeps_is_printed_on_request_while_that_is_inside_the_allocator() {
    alone(|| {
        let uffd = open();
        let region = map(&uffd, 4);
        let (base, bytes) = (region.base(), contents(1, 1));
        let report = userfault_signal::on_signal(libc::SIGUSR1, print).unwrap();
        let mut events = Vec::with_capacity(4);
        let mut text = [0; 600];
        let len = thread::scope(|scope| {
            let hungry = thread::Builder::new().name("hungry".into());
            let allocating = hungry.spawn_scoped(scope, move || {
                SLEEPER.store(os::thread_id(), Ordering::Relaxed);
                NEXT.set((base + PAGE, base + 2 * PAGE));
                until("the lock is in use", || IS_LOCKING.load(Ordering::Relaxed));
                drop(black_box(vec![1_u8; 100]));
            });
            let mut captured = os::Captured::begin();
            IS_LOCKING.store(true, Ordering::Relaxed);
            until("the allocator waits", || asleep() == 1);
            uffd.read(Wait::Forever, &mut events).unwrap();
            os::kill_self(libc::SIGUSR1);
            let len = captured.read(&mut text);
            let _done = region.copy(1, &bytes).unwrap();
            allocating.unwrap().join().unwrap();
            IS_LOCKING.store(false, Ordering::Relaxed);
            len
        });
        drop(report);
        let text = String::from_utf8_lossy(&text[..len]);
        let expected = format!("userfault: thread {} (hungry) sleeps since ", SLEEPER.load(Ordering::Relaxed));
        let place = format!(
            " at {0:#x}, page 1 of the region at {base:#x}, missing: message read, not answered\n",
            base + PAGE
        );
        assert!(text.starts_with(&expected) && text.ends_with(&place), "{text}");
        assert_eq!(asleep(), 0);
    });
}

// spec: H22
#[test]
fn where_the_heap_is_a_region_no_operation_faults_on_it_under_a_lock() {
    alone(|| {
        let uffd = open();
        let heap = map(&uffd, REGION_BYTES / PAGE);
        REGION.store(heap.base(), Ordering::Relaxed);
        let door = Door::open(Features::NONE);
        let memory = Memory::map(64).unwrap();
        let others: Vec<_> = (0..40).map(|_| Memory::map(1).unwrap()).collect();
        let zeros = vec![0; PAGE];
        thread::scope(|scope| {
            let working = scope.spawn(|| {
                HEAP.set((heap.base(), heap.base() + REGION_BYTES));
                for turn in 0..20 {
                    door.register(pages(&memory, 0..64), 3).unwrap();
                    door.copy(pages(&memory, turn..turn + 1), &contents(turn, 1), 0).unwrap();
                    door.writeprotect(pages(&memory, 0..64), true).unwrap();
                    crate::door::discard(&memory, 0..3).unwrap();
                    door.unregister(pages(&memory, 0..64)).unwrap();
                    crate::door::discard(&memory, 0..64).unwrap();
                    let region = map(&uffd, 3);
                    let _done = region.zeropage(0..3).unwrap();
                    drop(region);
                }
                drop(Door::open(Features::NONE));
                HEAP.set((0, 0));
            });
            let mut events = Vec::with_capacity(64);
            while !working.is_finished() {
                events.clear();
                uffd.read(Wait::AtMost(std::time::Duration::from_millis(20)), &mut events).unwrap();
                for event in &events {
                    let page = page_of(&heap, event);
                    assert_eq!(heap.copy(page, &zeros).unwrap().complete(), Ok(1));
                }
            }
            working.join().unwrap();
        });
        assert_eq!(asleep(), 0);
        drop(others);
        // Its pages may still be named by what the thread has left behind.
        std::mem::forget(heap);
    });
}
