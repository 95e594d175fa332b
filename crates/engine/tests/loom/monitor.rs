//! Reading: each message to one reader, and the descriptor that says when to read.

use std::sync::Arc;
// Only says when a test is over: not a part of what is explored.
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use userfault_engine::{FillStop, Left, Page, PageRange, Protocol, ReadError, Taken, Why};

use crate::host::{World, explore, page, spawn};

const ORIGINAL: Protocol = Protocol::Original { fills: true };
const WORD: usize = userfault_abi::original::Word::SIZE;

/// The pages that original words name.
fn pages(taken: &Taken) -> Vec<Page> {
    let address = |word: &[u8]| u64::from_ne_bytes(word.try_into().unwrap());
    taken.messages().map(|word| Page::new(address(word) >> 12)).collect()
}

fn read_one(world: &World) -> Option<Page> {
    let taken = match world.space.take(world.context, WORD) {
        Ok(taken) => taken,
        Err(error) => {
            assert_eq!(error, ReadError::Empty);
            return None;
        }
    };
    let read = pages(&taken);
    world.space.delivered(taken);
    read.first().copied()
}

// spec: m/read/once, o/read/fifo, o/read/take
#[test]
fn two_readers_take_different_messages() {
    explore(None, || {
        let world = Arc::new(World::new(ORIGINAL, 2, 2));
        let _sleepers = [world.asleep(0), world.asleep(1)];
        let other = spawn(&world, read_one);
        let mut read = [read_one(&world), other.join().unwrap()];
        read.sort_unstable();
        assert_eq!(read, [Some(page(0)), Some(page(1))]);
        assert_eq!(read_one(&world), None);
    });
}

// spec: W14, o/read/copy-fault
#[test]
fn a_word_that_could_not_be_delivered_is_read_first_next_time() {
    explore(None, || {
        let world = Arc::new(World::new(ORIGINAL, 3, 3));
        let _sleepers = [0, 1, 2].map(|index| world.asleep(index));
        let failing = spawn(&world, |world| {
            let taken = world.space.take(world.context, WORD).unwrap();
            assert_eq!(world.space.give_back(taken, 0), Some(world.context), "who else waits must hear of it");
        });
        let read = read_one(&world).unwrap();
        failing.join().unwrap();
        let rest: Vec<Page> = std::iter::from_fn(|| read_one(&world)).collect();
        let expected: Vec<Page> = [0, 1, 2].map(page).into_iter().filter(|page| *page != read).collect();
        assert_eq!(rest, expected, "each once, oldest first");
    });
}

// spec: W14
#[test]
fn a_word_given_back_too_late_does_not_touch_the_slots_new_owner() {
    explore(None, || {
        let world = Arc::new(World::new(ORIGINAL, 2, 1));
        let first = world.asleep(0);
        let taken = world.space.take(world.context, WORD).unwrap();
        let failing = spawn(&world, move |world| {
            let _ring = world.space.give_back(taken, 0);
        });
        let left = world.space.leave(first, Why::Interrupted);
        assert_eq!(left, Left::Interrupted);
        let second = world.asleep(1);
        assert_eq!(read_one(&world), Some(page(1)));
        failing.join().unwrap();
        assert_eq!(read_one(&world), None, "a word that arrived is not read again");
        assert!(world.space.wake(world.context, world.range).iter().eq([second]));
        assert_eq!(world.space.leave(second, Why::Check), Left::Woken);
        world.assert_nobody_is_left();
    });
}

/// What a monitor does, one word at a time, until `is_over` says so of the number of words.
///
/// The descriptor must be readable while a word is unread. So: drain, pop, look, write again if some are left.
fn serve(world: &World, is_over: impl Fn(u32) -> bool) {
    let mut words = 0;
    while !is_over(words) {
        world.bell.wait_until_readable();
        world.bell.drain();
        let word = read_one(world);
        let left = world.space.unread(world.context);
        if left > 0 {
            world.bell.write();
        }
        // Readable for nothing is allowed.
        let Some(page) = word else { continue };
        words += 1;
        let index = usize::try_from(page.number() - world.range.start().number()).unwrap();
        if world.fill(index).stop == Some(FillStop::Exists) {
            world.wake(PageRange::one(page));
        }
    }
}

// spec: H30, o/read/no-lost-notification, o/fault/notify-each
#[test]
fn a_reader_that_drains_before_it_pops_misses_no_fault() {
    explore(Some(3), || {
        let world = Arc::new(World::new(ORIGINAL, 2, 2));
        let sleepers = [0, 1].map(|index| spawn(&world, move |world| world.access(index)));
        // A page is filled only after its word was read, so there are as many words as threads.
        serve(&world, |words| words == 2);
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        world.assert_nobody_is_left();
    });
}

// spec: W2, o/wake/guarantee, o/read/late-word
#[test]
fn in_original_mode_a_monitor_that_wakes_after_each_word_leaves_nobody_asleep() {
    explore(Some(3), || {
        let world = Arc::new(World::new(ORIGINAL, 1, 2));
        let done = Arc::new(AtomicUsize::new(0));
        let sleepers = [(); 2].map(|()| {
            let done = Arc::clone(&done);
            spawn(&world, move |world| {
                world.access(0);
                done.fetch_add(1, SeqCst);
                world.bell.write();
            })
        });
        serve(&world, |_| done.load(SeqCst) == 2);
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        world.assert_nobody_is_left();
    });
}
