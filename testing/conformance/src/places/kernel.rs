//! Linux: the system call and the device, with full contexts and with user-mode-only ones.
//!
//! Kernel counterpart: itself.

use std::os::fd::RawFd;

use userfault_abi::request::{DEVICE_PATH, NEW};

use crate::place::{Activity, At, Fd, Kind, Place, Protection, Result, Seen, Thread, Trial, Use};
use crate::real::maps::pagemap;
use crate::real::scratch::{self, Scratch};
use crate::real::worker::{Waits, Worker, ended};
use crate::real::{access, sys, uniform};
use crate::world::PAGE;

/// How descriptors are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// By the system call.
    Call,
    /// Through the device.
    Device,
    /// By the system call, for user-mode faults only.
    UserModeOnly,
}

/// A world of real memory and threads.
pub struct Kernel {
    flavour: Flavour,
    device: RawFd,
    fds: Vec<Option<RawFd>>,
    workers: Vec<Option<Worker>>,
    scratch: Scratch,
    mapped: Vec<(u64, u64)>,
}

/// How a worker that sleeps in the kernel's userfaultfd is recognised.
fn waits(wchan: &str) -> Waits {
    match wchan {
        "handle_userfault" => Waits::InFault,
        name if name.starts_with("userfaultfd") => Waits::InRead,
        _ => Waits::No,
    }
}

impl Kernel {
    /// A new world.
    ///
    /// # Errors
    ///
    /// Why the kernel's userfaultfd cannot be had here.
    pub fn new(flavour: Flavour) -> std::result::Result<Self, String> {
        access::install();
        let path = std::ffi::CString::new(DEVICE_PATH).unwrap_or_default();
        let device = match flavour {
            Flavour::Device => sys::open(&path).map_err(|errno| format!("{DEVICE_PATH}: errno {errno}"))?,
            Flavour::Call | Flavour::UserModeOnly => -1,
        };
        let new = Self {
            flavour,
            device,
            fds: Vec::new(),
            workers: Vec::new(),
            scratch: Scratch::default(),
            mapped: Vec::new(),
        };
        let probe = new.new_fd(0).map_err(|errno| format!("userfaultfd ({flavour:?}): errno {errno}"))?;
        sys::close(probe);
        Ok(new)
    }

    fn new_fd(&self, flags: u32) -> Result<RawFd> {
        match self.flavour {
            Flavour::Call => sys::userfaultfd(flags),
            Flavour::Device => sys::ioctl(self.device, NEW, flags.into()),
            Flavour::UserModeOnly => sys::userfaultfd(flags | 1),
        }
    }

    /// The descriptor's number in this process.
    ///
    /// # Panics
    ///
    /// If it is closed.
    #[must_use]
    pub fn number(&self, fd: Fd) -> RawFd {
        self.fds[fd].unwrap_or_else(|| panic!("fd{fd} is closed"))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for fd in self.fds.drain(..).flatten() {
            // Sleepers are released here.
            sys::close(fd);
        }
        self.workers.clear();
        for (address, len) in self.mapped.drain(..) {
            sys::unmap(address, len);
        }
        if self.device >= 0 {
            sys::close(self.device);
        }
    }
}

impl Place for Kernel {
    fn name(&self) -> String {
        format!("kernel, {:?}", self.flavour)
    }

    fn kind(&self) -> Kind {
        Kind::Kernel
    }

    fn open(&mut self, flags: u32) -> Result<Fd> {
        let fd = self.new_fd(flags)?;
        self.fds.push(Some(fd));
        Ok(self.fds.len() - 1)
    }

    fn close(&mut self, fd: Fd) {
        sys::close(self.number(fd));
        self.fds[fd] = None;
    }

    fn ioctl(&mut self, fd: Fd, request: u32, argument: &mut [u8], at: At) -> Result<()> {
        let address = self.scratch.put(argument, at);
        let result = sys::ioctl(self.number(fd), request, address);
        self.scratch.fetch(address, argument, at);
        result.map(|value| assert_eq!(value, 0, "success is 0"))
    }

    fn read(&mut self, fd: Fd, count: usize, at: At) -> Result<Vec<u8>> {
        read_into(&self.scratch, self.number(fd), count, at)
    }

    fn poll(&mut self, fd: Fd) -> u16 {
        sys::poll(self.number(fd))
    }

    fn set_nonblocking(&mut self, fd: Fd, nonblocking: bool) {
        sys::set_nonblocking(self.number(fd), nonblocking);
    }

    fn fdinfo(&mut self, fd: Fd) -> String {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.number(fd))).unwrap_or_default();
        let ours = |line: &&str| ["pending:", "total:", "API:"].iter().any(|name| line.starts_with(name));
        text.lines().filter(ours).map(|line| format!("{line}\n")).collect()
    }

    fn map(&mut self, address: u64, pages: u64, purpose: Use) -> u64 {
        self.mapped.push((address, pages * PAGE));
        map(address, pages, purpose)
    }

    fn unmap(&mut self, address: u64, pages: u64) {
        sys::unmap(address, pages * PAGE);
    }

    fn protect(&mut self, address: u64, pages: u64, protection: Protection) {
        let protection = match protection {
            Protection::None => libc::PROT_NONE,
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        sys::protect(address, pages * PAGE, protection);
    }

    fn discard(&mut self, address: u64, pages: u64) {
        let done = sys::advise(address, pages * PAGE, libc::MADV_DONTNEED);
        done.unwrap_or_else(|errno| panic!("madvise: errno {errno}"));
    }

    fn remap(&mut self, from: u64, to: u64, pages: u64) {
        self.mapped.push((to, pages * PAGE));
        sys::remap(from, pages * PAGE, to);
    }

    fn populate(&mut self, address: u64, bytes: &[u8]) {
        scratch::write(address, bytes);
    }

    fn install(&mut self, _: u64, _: &[u8]) {
        panic!("the kernel installs pages by fills");
    }

    fn shut_down(&mut self, _: Fd) {
        panic!("no kernel shuts a context down");
    }

    fn try_out(&mut self, _: Trial) -> String {
        panic!("no kernel has the original protocol");
    }

    fn peek(&mut self, address: u64) -> Result<u8> {
        scratch::read(address, 1).map(|bytes| bytes[0])
    }

    fn seen(&mut self, address: u64) -> Seen {
        let entry = pagemap(address);
        let bit = |number: u32| entry >> number & 1 == 1;
        let contents = || scratch::read(address, 4096).ok().and_then(|page| uniform(&page));
        let (is_present, is_marker, is_protected) = (bit(63), bit(62), bit(57));
        match (is_present, is_marker, is_protected) {
            (true, _, true) => Seen::Protected(contents()),
            (true, _, false) => Seen::Present(contents()),
            (false, _, true) => Seen::Marked,
            (false, true, false) => Seen::Poisoned,
            (false, false, false) => Seen::Missing,
        }
    }

    fn start(&mut self, thread: usize, activity: Activity) {
        if self.workers.len() <= thread {
            self.workers.resize_with(thread + 1, || None);
        }
        let fd = if let Activity::Read { fd, .. } = activity { self.number(fd) } else { -1 };
        let worker = self.workers[thread].get_or_insert_with(Worker::spawn);
        worker.start(Box::new(move || perform(activity, fd)));
    }

    fn observe(&mut self, thread: usize) -> Thread {
        self.workers.get(thread).and_then(Option::as_ref).map_or(Thread::Idle, |worker| worker.settle(waits))
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

/// Maps pages for a purpose.
#[must_use]
pub fn map(address: u64, pages: u64, purpose: Use) -> u64 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = if purpose == Use::Unregistrable { DROPPABLE } else { libc::MAP_PRIVATE };
    sys::map(address, pages * PAGE, protection, kind)
}

/// `MAP_DROPPABLE`: anonymous memory that can never be registered.
const DROPPABLE: i32 = 0x08;

fn read_into(scratch: &Scratch, fd: RawFd, count: usize, at: At) -> Result<Vec<u8>> {
    let (address, _) = scratch.place(count, at);
    let read = sys::read(fd, address, count)?;
    scratch::read(address, read)
}

fn perform(activity: Activity, fd: RawFd) -> Thread {
    match activity {
        Activity::Load { address } => ended(access::load(address)),
        Activity::Store { address, value } => ended(access::store(address, value)),
        Activity::Add { address, value } => ended(access::add(address, value)),
        Activity::Read { count, .. } => Thread::Read(read_into(&Scratch::default(), fd, count, At::Good)),
    }
}
