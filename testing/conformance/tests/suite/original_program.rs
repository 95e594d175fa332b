//! A program of the original protocol, on real memory.
//!
//! An 8-byte handshake, words read from the descriptor, each page supplied and woken, and the last
//! close, after which what was never supplied is zeros.

use userfault_abi::{Api, Errno, Range, Register, request};
use userfault_conformance::place::{Activity, At, Place as _, Thread, Use};
use userfault_conformance::places::process::Process;
use userfault_engine::Protocol;

const PAGE: u64 = 4096;
const PAGES: u64 = 64;

// spec(process): o/api/input, o/api/handshake, o/read/result, o/fault/encode, o/wake/guarantee, o/release/sleepers
#[test]
fn a_program_of_2015_runs() {
    let mut program = Process::new(Protocol::Original { fills: false });
    let fd = program.open(0x800).unwrap();

    // Only the version is looked at; the other words may hold anything.
    let mut handshake = Api { api: 0xAA, features: 0xA5A5, ioctls: 0xA5A5 }.encode();
    program.ioctl(fd, request::API, &mut handshake, At::Good).unwrap();
    let answer = Api::decode(&handshake).unwrap();
    assert_eq!((answer.api, answer.features, answer.ioctls), (0xAA, 1, 0x8000_0000_0000_0003));

    let base = program.map(0, PAGES, Use::Registrable);
    let range = Range { start: base, len: PAGES * PAGE };
    let mut register = Register { range, mode: 1, ioctls: 0 }.encode();
    program.ioctl(fd, request::REGISTER, &mut register, At::Good).unwrap();
    assert_eq!(Register::decode(&register).unwrap().ioctls, 0x4, "there is WAKE and nothing else");

    for page in 0..PAGES - 1 {
        let address = base + page * PAGE;
        let is_write = page % 2 == 1;
        let offset = page * 8;
        let activity = if is_write {
            Activity::Store { address: address + offset, value: page }
        } else {
            Activity::Load { address: address + offset }
        };
        program.start(0, activity);
        assert_eq!(program.observe(0), Thread::Asleep);
        assert_eq!(program.poll(fd), 0x1);

        let word = program.read(fd, 8, At::Good).unwrap();
        let word = u64::from_ne_bytes(word.try_into().unwrap());
        assert_eq!(word, address | u64::from(is_write));
        assert_eq!(program.read(fd, 8, At::Good), Err(Errno::EAGAIN.raw()));

        let byte = u8::try_from(page + 1).unwrap();
        program.install(word & !(PAGE - 1), &[byte; 4096]);
        let mut wake = Range { start: address, len: PAGE }.encode();
        program.ioctl(fd, request::WAKE, &mut wake, At::Good).unwrap();
        let expected = if is_write { 0 } else { u64::from_ne_bytes([byte; 8]) };
        assert_eq!(program.observe(0), Thread::Done(expected), "page {page}");
    }

    // The last page is never supplied.
    program.start(0, Activity::Load { address: base + (PAGES - 1) * PAGE });
    assert_eq!(program.observe(0), Thread::Asleep);
    program.close(fd);
    assert_eq!(program.observe(0), Thread::Done(0), "zeros, after the last close");
    program.start(0, Activity::Load { address: base + PAGE });
    assert_eq!(program.observe(0), Thread::Done(0x0202_0202_0202_0202), "what was supplied stays");
}
