//! The engine in the simulator.

use userfault_abi::Errno;
use userfault_engine::{Access, MappingKind, Origin, PageState, Pages, Patience, Privilege, Protocol, Verdict};
use userfault_sim::{self as sim, Descriptor, Simulator};

use crate::place::{Activity, At, Fd, Kind, Place, Protection, Result, Seen, Thread, Trial, Use};

/// A simulated world whose descriptors speak one protocol.
#[derive(Debug)]
pub struct Simulated {
    simulator: Simulator,
    protocol: Protocol,
    flags: u32,
}

impl Simulated {
    /// A new world; `flags` are added to those of each open.
    #[must_use]
    pub fn new(protocol: Protocol, flags: u32) -> Self {
        Self { simulator: Simulator::default(), protocol, flags }
    }
}

impl Simulated {
    fn racing_handshakes(&mut self) -> String {
        let fd = self.simulator.open(0, self.protocol, Privilege::Full).unwrap_or(Descriptor(usize::MAX));
        let Some(context) = self.simulator.context(fd) else { return "no descriptor".to_owned() };
        let space = self.simulator.space();
        // The second comes after the first has looked and before it has answered.
        let offers = [(); 2].map(|()| space.begin_handshake(context, 0xAA, userfault_abi::Features::NONE).ok());
        let won = offers.iter().flatten().count();
        for offer in offers.into_iter().flatten() {
            let _ring = space.finish_handshake(offer, true);
        }
        self.simulator.close(fd);
        won.to_string()
    }

    fn fault_while_closing(&mut self) -> String {
        let address = 0x3000_0000_0000;
        self.simulator.map(address, 1, MappingKind::PrivateAnonymous, sim::Protection::ReadWrite);
        let Ok(fd) = self.simulator.open(0, self.protocol, Privilege::Full) else { return "no descriptor".to_owned() };
        let Some(context) = self.simulator.context(fd) else { return "no context".to_owned() };
        let modes = userfault_abi::RegisterModes::MISSING;
        let _answer = self.simulator.register(fd, sim::pages(address, 1), modes);
        let _known = self.simulator.space().begin_release(context);
        let access = Access { address, write: false, patience: Patience::Wait, origin: Origin::User, thread: 0 };
        let verdict = self.simulator.space().fault(&access);
        self.simulator.finish_close(context);
        (if verdict == Verdict::Retry { "no bus error" } else { "a bus error" }).to_owned()
    }
}

fn raw<T>(result: std::result::Result<T, Errno>) -> Result<T> {
    result.map_err(Errno::raw)
}

const fn place(at: At) -> sim::Place {
    match at {
        At::Good => sim::Place::Good,
        At::Nowhere => sim::Place::Nowhere,
        At::ReadOnly => sim::Place::ReadOnly,
        At::Cut(n) => sim::Place::Cut(n),
    }
}

impl Place for Simulated {
    fn name(&self) -> String {
        "simulator".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Simulator
    }

    fn open(&mut self, flags: u32) -> Result<Fd> {
        raw(self.simulator.open(flags | self.flags, self.protocol, Privilege::Full)).map(|descriptor| descriptor.0)
    }

    fn close(&mut self, fd: Fd) {
        self.simulator.close(Descriptor(fd));
    }

    fn ioctl(&mut self, fd: Fd, request: u32, argument: &mut [u8], at: At) -> Result<()> {
        raw(self.simulator.ioctl(Descriptor(fd), request, argument, place(at)))
    }

    fn read(&mut self, fd: Fd, count: usize, at: At) -> Result<Vec<u8>> {
        raw(self.simulator.read(Descriptor(fd), count, place(at)))
    }

    fn poll(&mut self, fd: Fd) -> u16 {
        self.simulator.poll(Descriptor(fd)).bits()
    }

    fn set_nonblocking(&mut self, fd: Fd, nonblocking: bool) {
        self.simulator.set_nonblocking(Descriptor(fd), nonblocking);
    }

    fn fdinfo(&mut self, fd: Fd) -> String {
        self.simulator.fdinfo(Descriptor(fd)).map(|info| info.to_string()).unwrap_or_default()
    }

    fn map(&mut self, address: u64, pages: u64, purpose: Use) -> u64 {
        let kind = if purpose == Use::Unregistrable { MappingKind::Unknown } else { MappingKind::PrivateAnonymous };
        self.simulator.map(address, pages, kind, sim::Protection::ReadWrite);
        address
    }

    fn unmap(&mut self, address: u64, pages: u64) {
        self.simulator.unmap(address, pages);
    }

    fn protect(&mut self, address: u64, pages: u64, protection: Protection) {
        let protection = match protection {
            Protection::None => sim::Protection::None,
            Protection::Read => sim::Protection::Read,
            Protection::ReadWrite => sim::Protection::ReadWrite,
        };
        self.simulator.protect(address, pages, protection);
    }

    fn discard(&mut self, address: u64, pages: u64) {
        self.simulator.discard(address, pages);
    }

    fn remap(&mut self, from: u64, to: u64, pages: u64) {
        self.simulator.remap(from, to, pages);
    }

    fn populate(&mut self, address: u64, bytes: &[u8]) {
        self.simulator.populate(address, bytes);
    }

    fn install(&mut self, address: u64, bytes: &[u8]) {
        self.simulator.populate(address, bytes);
    }

    fn shut_down(&mut self, fd: Fd) {
        self.simulator.shut_down(Descriptor(fd));
    }

    fn try_out(&mut self, what: Trial) -> String {
        match what {
            Trial::RacingHandshakes => self.racing_handshakes(),
            Trial::OpenUntilFull => {
                let count = |simulator: &mut Simulator, protocol| {
                    let mut open = Vec::new();
                    while let Ok(descriptor) = simulator.open(0, protocol, Privilege::Full) {
                        open.push(descriptor);
                    }
                    open.iter().for_each(|descriptor| simulator.close(*descriptor));
                    open.len()
                };
                let first = count(&mut self.simulator, self.protocol);
                let again = count(&mut self.simulator, self.protocol);
                (if first == again { "nothing leaks" } else { "it leaks" }).to_owned()
            }
            Trial::FaultWhileClosing => self.fault_while_closing(),
            Trial::MemoryBehindContext => {
                self.simulator.exit();
                (if self.simulator.space().registrations() == 0 { "nothing" } else { "all" }).to_owned()
            }
        }
    }

    fn peek(&mut self, address: u64) -> Result<u8> {
        let byte = self.simulator.peek(address, 1).and_then(|bytes| bytes.first().copied());
        byte.ok_or(Errno::EIO.raw())
    }

    fn seen(&mut self, address: u64) -> Seen {
        let page = userfault_engine::Limits::X86_64.page_of(address);
        let contents = || crate::real::uniform(&self.simulator.contents(address & !(sim::PAGE - 1), 4096));
        match self.simulator.space().pages().get(page) {
            PageState::Missing => Seen::Missing,
            PageState::MissingProtected => Seen::Marked,
            PageState::Present => Seen::Present(contents()),
            PageState::WriteProtected => Seen::Protected(contents()),
            PageState::Poisoned => Seen::Poisoned,
            PageState::Filling
            | PageState::FillingProtected
            | PageState::FillingPoisoned
            | PageState::Changing
            | PageState::Installing => Seen::Absent,
        }
    }

    fn start(&mut self, thread: usize, activity: Activity) {
        let activity = match activity {
            Activity::Load { address } => sim::Activity::Load { address },
            Activity::Store { address, value } => sim::Activity::Store { address, value },
            Activity::Add { address, value } => sim::Activity::Add { address, value },
            Activity::Read { fd, count } => {
                sim::Activity::Read { descriptor: Descriptor(fd), count, at: sim::Place::Good }
            }
        };
        self.simulator.start(thread, activity);
    }

    fn observe(&mut self, thread: usize) -> Thread {
        match self.simulator.observe(thread) {
            sim::State::Idle => Thread::Idle,
            sim::State::Asleep(_) => Thread::Asleep,
            sim::State::Reading => Thread::Reading,
            sim::State::Done(value) => Thread::Done(value),
            sim::State::Read(result) => Thread::Read(raw(result)),
            sim::State::Bus(address) => Thread::Bus(address),
            sim::State::Segv(address) => Thread::Segv(address),
            sim::State::Killed => Thread::Killed,
            sim::State::Spinning => panic!("thread {thread} is told to retry without end"),
        }
    }

    fn signal(&mut self, thread: usize) {
        self.simulator.signal(thread);
    }

    fn thread_of(&mut self, id: u32) -> Option<usize> {
        (0..16).find(|thread| sim::thread_id(*thread) == id)
    }
}
