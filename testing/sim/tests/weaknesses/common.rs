//! What the tests share.

use userfault_abi::{RegisterModes, request, structs};
use userfault_engine::{MappingKind, Privilege, Protocol};
use userfault_sim::{Activity, Descriptor, PAGE, Place, Protection, Simulator, State};

pub(crate) const A: u64 = 0x10_0000;
pub(crate) const ORIGINAL: Protocol = Protocol::Original { fills: true };
pub(crate) const BOTH: [Protocol; 2] = [ORIGINAL, Protocol::Modern];

/// The address of a page of the one mapping.
pub(crate) const fn at(page: u64) -> u64 {
    A + page * PAGE
}

/// A world with `pages` pages at [`A`], registered with a nonblocking descriptor that has shaken hands.
pub(crate) fn world(protocol: Protocol, pages: u64) -> (Simulator, Descriptor) {
    let mut sim = Simulator::default();
    let fd = ready(&mut sim, protocol);
    map(&mut sim, A, pages);
    register(&mut sim, fd, A, pages);
    (sim, fd)
}

pub(crate) fn ready(sim: &mut Simulator, protocol: Protocol) -> Descriptor {
    let fd = sim.open(0x800, protocol, Privilege::Full).unwrap();
    api(sim, fd).unwrap();
    fd
}

pub(crate) fn api(sim: &mut Simulator, fd: Descriptor) -> Result<(), userfault_abi::Errno> {
    let mut argument = structs::Api { api: 0xAA, features: 0, ioctls: 0 }.encode();
    sim.ioctl(fd, request::API, &mut argument, Place::Good)
}

pub(crate) fn map(sim: &mut Simulator, address: u64, pages: u64) {
    sim.map(address, pages, MappingKind::PrivateAnonymous, Protection::ReadWrite);
}

pub(crate) fn register(sim: &mut Simulator, fd: Descriptor, address: u64, pages: u64) {
    sim.register(fd, userfault_sim::pages(address, pages), RegisterModes::MISSING).unwrap();
}

pub(crate) fn range(sim: &mut Simulator, fd: Descriptor, request: u32, address: u64, pages: u64) -> i32 {
    let mut argument = structs::Range { start: address, len: pages * PAGE }.encode();
    sim.ioctl(fd, request, &mut argument, Place::Good).map_or_else(|errno| errno.raw(), |()| 0)
}

pub(crate) fn wake(sim: &mut Simulator, fd: Descriptor, address: u64, pages: u64) {
    assert_eq!(range(sim, fd, request::WAKE, address, pages), 0);
}

pub(crate) fn zeropage(sim: &mut Simulator, fd: Descriptor, address: u64, pages: u64) {
    let range = structs::Range { start: address, len: pages * PAGE };
    let mut argument = structs::Zeropage { range, mode: 0, zeropage: 0 }.encode();
    sim.ioctl(fd, request::ZEROPAGE, &mut argument, Place::Good).unwrap();
}

pub(crate) fn load(sim: &mut Simulator, thread: usize, page: u64) -> State {
    sim.start(thread, Activity::Load { address: at(page) });
    sim.observe(thread)
}

/// A thread that sleeps on a page.
pub(crate) fn sleeper(sim: &mut Simulator, thread: usize, page: u64) {
    assert!(matches!(load(sim, thread, page), State::Asleep(_)), "thread {thread} does not sleep");
}

/// The pages of the faults that can be read now.
pub(crate) fn read(sim: &mut Simulator, fd: Descriptor, protocol: Protocol) -> Vec<u64> {
    let (size, offset) = if protocol == Protocol::Modern { (32, 16) } else { (8, 0) };
    let bytes = sim.read(fd, 64 * size, Place::Good).unwrap_or_default();
    let page = |chunk: &[u8]| (u64::from_ne_bytes(chunk[offset..offset + 8].try_into().unwrap()) - A) / PAGE;
    bytes.chunks(size).map(page).collect()
}
