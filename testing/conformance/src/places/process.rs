//! The engine hosted in this process: real memory, real faults, through the provider's raw door.
//!
//! 1. Arguments and buffers lie in scratch memory of the tests, which holds no Rust value; so what the
//!    door writes there changes nothing that Rust relies on.
//! 2. Regions are reached by address only, through `real::access` and `/proc/self/mem`: nobody ever
//!    holds a reference to their bytes.
//!
//! The provider is one per process and its locks are futexes, as its parked threads are. So one such
//! world exists at a time, and a thread counts as asleep when no thread of the world is found moving.
//!
//! Kernel counterpart: the kernel's place, `kernel`.

#![expect(unsafe_code, reason = "the provider's raw door takes addresses; invariants 1 and 2")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

use userfault_abi::{Errno, OpenFlags, request};
use userfault_process::raw::{Descriptor, Memory, Privilege, Protocol};

use crate::place::{Activity, At, Fd, Kind, Place, Protection, Result, Seen, Thread, Trial, Use};
use crate::real::scratch::{self, Scratch};
use crate::real::worker::{Waits, Worker, ended};
use crate::real::{access, maps, sys, uniform};
use crate::world::PAGE;

/// A world of real memory and threads whose faults the engine answers.
pub struct Process {
    protocol: Protocol,
    fds: Vec<Option<Arc<Descriptor>>>,
    workers: Vec<Option<Worker>>,
    reads: Vec<bool>,
    scratch: Scratch,
    regions: Vec<Memory>,
    /// Plain mappings: sources, and what keeps regions apart.
    mapped: Vec<(u64, u64)>,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Keeps the provider to oneself, for tests beside the scenarios.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// A new world.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        access::install();
        Self {
            protocol,
            fds: Vec::new(),
            workers: Vec::new(),
            reads: Vec::new(),
            scratch: Scratch::default(),
            regions: Vec::new(),
            mapped: Vec::new(),
            _alone: alone(),
        }
    }

    fn descriptor(&self, fd: Fd) -> Arc<Descriptor> {
        Arc::clone(self.fds[fd].as_ref().unwrap_or_else(|| panic!("fd{fd} is closed")))
    }

    fn new_descriptor(&self, flags: u32) -> Result<Descriptor> {
        let user_only = u32::from(self.protocol == Protocol::Modern);
        let flags = OpenFlags::from_bits(flags | user_only);
        raw(Descriptor::open(flags, self.protocol, Privilege::UserModeOnly))
    }

    fn racing_handshakes(&self) -> usize {
        let Ok(descriptor) = self.new_descriptor(0) else { return 0 };
        let barrier = Barrier::new(2);
        let one = || {
            let mut argument = userfault_abi::Api { api: 0xAA, features: 0, ioctls: 0 }.encode();
            barrier.wait();
            // SAFETY: the argument is a local of this thread, handed over by address for this call only.
            usize::from(unsafe { descriptor.ioctl(request::API, argument.as_mut_ptr().expose_provenance()) }.is_ok())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(one);
            one() + other.join().unwrap_or(0)
        })
    }

    /// Closes a context again and again under a thread that reads its memory.
    fn fault_while_closing(&mut self) -> String {
        let base = self.map(0, 1, Use::Registrable);
        let reads = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&reads);
        let reader = std::thread::spawn(move || {
            let mut signals = 0;
            while still.load(Ordering::Relaxed) {
                signals += u32::from(access::load(base).signal != 0);
            }
            signals
        });
        for _ in 0..500 {
            let Ok(descriptor) = self.new_descriptor(0) else { continue };
            let range = userfault_abi::Range { start: base, len: PAGE };
            let mut argument = userfault_abi::Register { range, mode: 1, ioctls: 0 }.encode();
            // SAFETY: the argument is a local, handed over by address for this call only.
            let _done = unsafe { descriptor.ioctl(request::REGISTER, argument.as_mut_ptr().expose_provenance()) };
            let (region, page) = self.region_with(base);
            // SAFETY: invariant 2.
            let _missing = unsafe { region.discard(page..page + 1) };
            drop(descriptor);
        }
        reads.store(false, Ordering::Relaxed);
        match reader.join() {
            Ok(0) => "no bus error".to_owned(),
            Ok(signals) => format!("{signals} bus errors"),
            Err(_) => "the reader panicked".to_owned(),
        }
    }

    /// Unmaps a registered region whose context lives on.
    fn memory_behind_context(&mut self) -> String {
        let base = self.map(0, 2, Use::Registrable);
        let Ok(descriptor) = self.new_descriptor(0) else { return "no descriptor".to_owned() };
        let range = userfault_abi::Range { start: base, len: 2 * PAGE };
        let mut argument = userfault_abi::Register { range, mode: 1, ioctls: 0 }.encode();
        // SAFETY: the argument is a local, handed over by address for this call only.
        let _done = unsafe { descriptor.ioctl(request::REGISTER, argument.as_mut_ptr().expose_provenance()) };
        self.unmap(base, 2);
        // Its address can be mapped anew, which `unmap` has tried.
        drop(descriptor);
        "nothing".to_owned()
    }

    fn plain(&mut self, address: u64, pages: u64) -> u64 {
        let base = sys::map(address, pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        self.mapped.push((base, pages * PAGE));
        base
    }

    /// Whether there is no hole between it and another region.
    fn touches_another(&self, new: &Memory) -> bool {
        let ends = |region: &Memory| region.base() + region.len();
        self.regions.iter().any(|old| ends(old) == new.base() || ends(new) == old.base())
    }

    fn region_with(&self, address: u64) -> (&Memory, usize) {
        let address = usize::try_from(address).unwrap_or(0);
        let holds = |region: &&Memory| (region.base()..region.base() + region.len()).contains(&address);
        let region = self.regions.iter().find(holds).unwrap_or_else(|| panic!("no region at {address:#x}"));
        (region, (address - region.base()) / 4096)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Sleepers are released here.
        self.fds.clear();
        self.workers.clear();
        self.regions.clear();
        for (address, len) in self.mapped.drain(..) {
            sys::unmap(address, len);
        }
    }
}

fn raw<T>(result: std::result::Result<T, Errno>) -> Result<T> {
    result.map_err(Errno::raw)
}

impl Place for Process {
    fn name(&self) -> String {
        "process".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn open(&mut self, flags: u32) -> Result<Fd> {
        let descriptor = self.new_descriptor(flags)?;
        self.fds.push(Some(Arc::new(descriptor)));
        Ok(self.fds.len() - 1)
    }

    fn close(&mut self, fd: Fd) {
        self.fds[fd] = None;
    }

    fn ioctl(&mut self, fd: Fd, request: u32, argument: &mut [u8], at: At) -> Result<()> {
        let address = self.scratch.put(argument, at);
        let descriptor = self.descriptor(fd);
        let place = usize::try_from(address).unwrap_or(0);
        // SAFETY: invariant 1.
        let result = unsafe { descriptor.ioctl(request, place) };
        self.scratch.fetch(address, argument, at);
        raw(result)
    }

    fn read(&mut self, fd: Fd, count: usize, at: At) -> Result<Vec<u8>> {
        read_into(&self.scratch, &self.descriptor(fd), count, at)
    }

    fn poll(&mut self, fd: Fd) -> u16 {
        self.descriptor(fd).poll().bits()
    }

    fn set_nonblocking(&mut self, fd: Fd, nonblocking: bool) {
        self.descriptor(fd).set_nonblocking(nonblocking);
    }

    fn fdinfo(&mut self, fd: Fd) -> String {
        self.descriptor(fd).fdinfo().map(|info| info.to_string()).unwrap_or_default()
    }

    fn map(&mut self, address: u64, pages: u64, purpose: Use) -> u64 {
        if purpose == Use::Source {
            return self.plain(address, pages);
        }
        assert_eq!(purpose, Use::Registrable, "a region is private anonymous memory");
        let mut aside = Vec::new();
        let memory = loop {
            let memory =
                Memory::map(usize::try_from(pages).unwrap_or(0)).unwrap_or_else(|errno| panic!("map: {errno}"));
            if !self.touches_another(&memory) {
                break memory;
            }
            aside.push(memory);
        };
        drop(aside);
        let base = memory.base();
        self.regions.push(memory);
        u64::try_from(base).unwrap_or(0)
    }

    fn unmap(&mut self, address: u64, pages: u64) {
        let (region, page) = self.region_with(address);
        assert_eq!((page, region.len()), (0, usize::try_from(pages * PAGE).unwrap_or(0)), "regions go as a whole");
        let base = region.base();
        self.regions.retain(|region| region.base() != base);
        // Nobody else's memory is to appear there.
        let held = sys::map(address, pages * PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE);
        self.mapped.push((held, pages * PAGE));
    }

    fn protect(&mut self, _: u64, _: u64, _: Protection) {
        panic!("a region's page protection is the host's own");
    }

    fn discard(&mut self, address: u64, pages: u64) {
        let (region, page) = self.region_with(address);
        let pages = page..page + usize::try_from(pages).unwrap_or(0);
        // SAFETY: invariant 2.
        let done = unsafe { region.discard(pages) };
        done.unwrap_or_else(|errno| panic!("discard: {errno}"));
    }

    fn remap(&mut self, _: u64, _: u64, _: u64) {
        panic!("a region does not move");
    }

    fn populate(&mut self, address: u64, bytes: &[u8]) {
        scratch::write(address, bytes);
    }

    fn install(&mut self, address: u64, bytes: &[u8]) {
        let descriptor = self.fds.iter().flatten().next().unwrap_or_else(|| panic!("no descriptor"));
        let done = descriptor.install(usize::try_from(address).unwrap_or(0), bytes);
        done.unwrap_or_else(|errno| panic!("install: {errno}"));
    }

    fn shut_down(&mut self, fd: Fd) {
        self.descriptor(fd).shut_down();
    }

    fn try_out(&mut self, what: Trial) -> String {
        match what {
            Trial::RacingHandshakes => (0..200).map(|_| self.racing_handshakes()).max().unwrap_or(0).to_string(),
            Trial::OpenUntilFull => {
                let count = |world: &Self| {
                    let mut open = Vec::new();
                    while let Ok(descriptor) = world.new_descriptor(0x800) {
                        open.push(descriptor);
                    }
                    open.len()
                };
                let (first, again) = (count(self), count(self));
                (if first == again { "nothing leaks" } else { "it leaks" }).to_owned()
            }
            Trial::FaultWhileClosing => self.fault_while_closing(),
            Trial::MemoryBehindContext => self.memory_behind_context(),
        }
    }

    fn peek(&mut self, _: u64) -> Result<u8> {
        panic!("an access by system call does not meet the engine");
    }

    fn seen(&mut self, address: u64) -> Seen {
        let contents = || scratch::read(address, 4096).ok().and_then(|page| uniform(&page));
        match maps::page(address) {
            maps::Allows::Nothing => Seen::Absent,
            maps::Allows::Loads => Seen::Protected(contents()),
            maps::Allows::Untouched => Seen::Untouched,
            maps::Allows::Everything => Seen::Present(contents()),
        }
    }

    fn start(&mut self, thread: usize, activity: Activity) {
        if self.workers.len() <= thread {
            self.workers.resize_with(thread + 1, || None);
            self.reads.resize(thread + 1, false);
        }
        self.reads[thread] = matches!(activity, Activity::Read { .. });
        let descriptor = if let Activity::Read { fd, .. } = activity { Some(self.descriptor(fd)) } else { None };
        let worker = self.workers[thread].get_or_insert_with(Worker::spawn);
        worker.start(Box::new(move || perform(activity, descriptor)));
    }

    fn observe(&mut self, thread: usize) -> Thread {
        let is_reading = self.reads.get(thread).copied().unwrap_or(false);
        let waits = if is_reading { Waits::InRead } else { Waits::InFault };
        let Some(Some(worker)) = self.workers.get(thread) else { return Thread::Idle };
        // Twice, since the first look may have come before another thread woke one looked at already.
        let quiet = |_: &str| {
            let all = || self.workers.iter().flatten().all(|worker| worker.is_quiet(is_futex));
            if all() && all() && worker.is_busy() { waits } else { Waits::No }
        };
        worker.settle(quiet)
    }

    fn signal(&mut self, thread: usize) {
        if let Some(worker) = &self.workers[thread] {
            worker.signal();
        }
    }

    fn thread_of(&mut self, id: u32) -> Option<usize> {
        let has_it = |worker: &Worker| u32::try_from(worker.id) == Ok(id);
        self.workers.iter().position(|worker| worker.as_ref().is_some_and(has_it))
    }
}

/// A worker that parks, or waits for a lock.
fn is_futex(wchan: &str) -> bool {
    wchan.contains("futex")
}

fn read_into(scratch: &Scratch, descriptor: &Descriptor, count: usize, at: At) -> Result<Vec<u8>> {
    let (address, _) = scratch.place(count, at);
    let place = usize::try_from(address).unwrap_or(0);
    // SAFETY: invariant 1.
    let read = raw(unsafe { descriptor.read(place, count) })?;
    scratch::read(address, read)
}

fn perform(activity: Activity, descriptor: Option<Arc<Descriptor>>) -> Thread {
    match (activity, descriptor) {
        (Activity::Load { address }, _) => ended(access::load(address)),
        (Activity::Store { address, value }, _) => ended(access::store(address, value)),
        (Activity::Add { address, value }, _) => ended(access::add(address, value)),
        (Activity::Read { count, .. }, Some(descriptor)) => {
            Thread::Read(read_into(&Scratch::default(), &descriptor, count, At::Good))
        }
        (Activity::Read { .. }, None) => Thread::Idle,
    }
}
