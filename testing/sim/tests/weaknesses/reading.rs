//! Reading, the handshake, the descriptor: W14 to W17, W20.

use userfault_abi::{Errno, Features, PollEvents, request, structs};
use userfault_engine::{Privilege, Protocol};
use userfault_sim::{Activity, Place, Simulator, State};

use crate::common::*;

// spec: W14, o/read/copy-fault
#[test]
fn a_word_that_could_not_be_delivered_is_delivered_first_next_time() {
    let (mut sim, fd) = world(ORIGINAL, 6);
    for (thread, page) in [4, 1, 3, 0].into_iter().enumerate() {
        sleeper(&mut sim, thread, page);
    }
    // Every length of buffer, whole words and parts of one.
    for writable in 0..32 {
        let words = writable / 8;
        let result = sim.read(fd, 32, Place::Cut(writable)).map(|bytes| bytes.len());
        let expected = if words == 0 { Err(Errno::EFAULT) } else { Ok(words * 8) };
        assert_eq!(result, expected);
        let (mut again, other) = world(ORIGINAL, 6);
        std::mem::swap(&mut sim, &mut again);
        assert_eq!(fd, other);
        for (thread, page) in [4, 1, 3, 0].into_iter().enumerate() {
            sleeper(&mut sim, thread, page);
        }
        // In the world that failed, the rest comes in its old order, before whoever came since.
        sleeper(&mut again, 4, 5);
        let rest: Vec<u64> = [4, 1, 3, 0, 5].into_iter().skip(words).collect();
        assert_eq!(read(&mut again, fd, ORIGINAL), rest, "{writable} bytes were writable");
    }
}

// spec: W14, o/read/copy-fault
#[test]
fn two_readers_of_which_one_fails_get_every_word_once_and_in_order() {
    let (mut sim, fd) = world(ORIGINAL, 4);
    let context = sim.context(fd).unwrap();
    for (thread, page) in [2, 0, 3].into_iter().enumerate() {
        sleeper(&mut sim, thread, page);
    }
    // The first reader takes two words and is still copying when the second takes the third.
    let first = sim.space().take(context, 16).unwrap();
    let second = sim.space().take(context, 16).unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    sim.space().delivered(second);
    assert_eq!(sim.space().give_back(first, 1), Some(context), "a word is unread again: ring");
    assert_eq!(read(&mut sim, fd, ORIGINAL), [0]);
    // Both fail, the younger first: the old order comes back.
    let (mut sim, fd) = world(ORIGINAL, 4);
    for (thread, page) in [2, 0, 3].into_iter().enumerate() {
        sleeper(&mut sim, thread, page);
    }
    let first = sim.space().take(context, 8).unwrap();
    let second = sim.space().take(context, 16).unwrap();
    let _ring = sim.space().give_back(second, 0);
    let _ring = sim.space().give_back(first, 0);
    assert_eq!(read(&mut sim, fd, ORIGINAL), [2, 0, 3]);
}

// spec: W14, m/read/efault
#[test]
fn in_the_modern_protocol_the_message_that_failed_is_lost_and_the_others_are_not() {
    let (mut sim, fd) = world(Protocol::Modern, 4);
    for (thread, page) in [2, 0, 3].into_iter().enumerate() {
        sleeper(&mut sim, thread, page);
    }
    assert_eq!(sim.read(fd, 96, Place::Cut(40)).map(|bytes| bytes.len()), Ok(32));
    assert_eq!(read(&mut sim, fd, Protocol::Modern), [3]);
}

// spec: W15, o/ioctl/before-api, m/api/before
#[test]
fn before_the_handshake_the_modern_protocol_refuses_everything_and_the_original_nothing() {
    for (protocol, expected) in [(Protocol::Modern, Errno::EINVAL.raw()), (ORIGINAL, 0)] {
        let mut sim = Simulator::default();
        let fd = sim.open(0x800, protocol, Privilege::Full).unwrap();
        map(&mut sim, A, 1);
        let mut argument =
            structs::Register { range: structs::Range { start: A, len: 4096 }, mode: 1, ioctls: 0 }.encode();
        let registered = sim.ioctl(fd, request::REGISTER, &mut argument, Place::Good);
        assert_eq!(registered.map_or_else(|errno| errno.raw(), |()| 0), expected, "{protocol:?}");
        for request in [request::WAKE, request::UNREGISTER] {
            assert_eq!(range(&mut sim, fd, request, A, 1), expected, "{protocol:?}");
        }
        api(&mut sim, fd).unwrap();
        assert_eq!(range(&mut sim, fd, request::WAKE, A, 1), 0);
    }
}

// spec: W16, o/api/unlocked
#[test]
fn exactly_one_of_two_overlapping_handshakes_wins() {
    for protocol in BOTH {
        for first_delivered in [true, false] {
            let mut sim = Simulator::default();
            let fd = sim.open(0x800, protocol, Privilege::Full).unwrap();
            let context = sim.context(fd).unwrap();
            let first = sim.space().begin_handshake(context, 0xAA, Features::NONE).unwrap();
            assert!(sim.space().begin_handshake(context, 0xAA, Features::NONE).is_err());
            let _ring = sim.space().finish_handshake(first, first_delivered);
            // If the answer did not arrive, nothing has happened.
            let second = sim.space().begin_handshake(context, 0xAA, Features::NONE);
            assert_eq!(second.is_err(), first_delivered);
            if let Ok(second) = second {
                let _ring = sim.space().finish_handshake(second, true);
            }
            assert_eq!(sim.poll(fd), PollEvents::NONE, "it runs");
        }
    }
}

// spec: W17, o/poll/running
#[test]
fn shutdown_ends_a_blocked_read() {
    for protocol in BOTH {
        let (mut sim, fd) = world(protocol, 2);
        sim.set_nonblocking(fd, false);
        sim.start(5, Activity::Read { descriptor: fd, count: 64, at: Place::Good });
        assert_eq!(sim.observe(5), State::Reading);
        sim.shut_down(fd);
        let State::Read(Err(errno)) = sim.observe(5) else { panic!("{:?}", sim.observe(5)) };
        assert_ne!(errno, Errno::EAGAIN, "a result of its own");
        sim.set_nonblocking(fd, true);
        assert!(sim.poll(fd).contains(PollEvents::HUP));
        // What is queued can still be read.
        sleeper(&mut sim, 0, 0);
        assert_eq!(read(&mut sim, fd, protocol), [0]);
    }
}

// spec: W20, o/file/reply-memory
#[test]
fn every_byte_written_back_is_determined() {
    for protocol in BOTH {
        for version in [0xAA_u64, 0xAB] {
            let answers = [0xA5_u8, 0x5A].map(|fill| {
                let mut sim = Simulator::default();
                let fd = sim.open(0x800, protocol, Privilege::Full).unwrap();
                let mut argument = [fill; 24];
                argument[..8].copy_from_slice(&version.to_ne_bytes());
                if protocol == Protocol::Modern {
                    argument[8..16].fill(0);
                }
                let _result = sim.ioctl(fd, request::API, &mut argument, Place::Good);
                argument
            });
            assert_eq!(answers[0], answers[1], "{protocol:?}, version {version:#x}");
        }
        let (mut sim, fd) = world(protocol, 1);
        let mut argument = [0xA5_u8; 32];
        argument[..24].copy_from_slice(
            &structs::Register { range: structs::Range { start: A, len: 4096 }, mode: 1, ioctls: 0 }.encode()[..24],
        );
        let before = argument;
        sim.ioctl(fd, request::REGISTER, &mut argument, Place::Good).unwrap();
        assert_eq!(argument[..24], before[..24], "the input is never written");
        assert!(!argument[24..].contains(&0xA5));
    }
}
