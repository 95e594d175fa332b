//! System calls on missing pages (H32): what each kind answers, and what becomes of its data.
//!
//! The table in README.md is what is measured here, row by row: at the process provider, at the linux provider
//! for user mode, and, where the machine permits it, at the linux provider with kernel faults, where every call
//! waits for the monitor.
//!
//! Invariant:
//!
//! 1. A [`Spot`] points into a region that lives for the whole row, whose pages are lent to nobody.
#![expect(unsafe_code, reason = "system calls that are given addresses; the invariant above is the proof")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use libc::{c_int, c_long, c_void};
use userfault::prelude::*;
use userfault::{Builder, Choice, KernelFaults, RegisterModes, Uffd};

use crate::sandbox::folder;
use crate::support::{byte_at, pattern, skip};

mod uring;

/// Bytes of each transfer, half of them before the missing page where a call straddles its border.
const LEN: usize = 200;

/// Where a row makes its call.
#[derive(Clone, Copy)]
struct Spot {
    /// The start of a missing page.
    missing: *mut c_void,
    /// [`LEN`] / 2 bytes before it, in a page that is there.
    straddling: *mut c_void,
}

/// What came of a call: its answer, and a second look at what it was about.
struct Seen {
    answer: Result<usize, i32>,
    fate: &'static str,
}

impl Seen {
    fn new(answer: Result<usize, i32>, fate: &'static str) -> Self {
        Self { answer, fate }
    }

    fn words(&self) -> String {
        let answer = match self.answer {
            Err(libc::EFAULT) => "`EFAULT`".to_owned(),
            Err(errno) => format!("errno {errno}"),
            Ok(done) if done == LEN / 2 => "short count".to_owned(),
            Ok(_) => "done".to_owned(),
        };
        if self.fate == uring::ABSENT {
            return self.fate.to_owned();
        }
        if self.fate.is_empty() { answer } else { format!("{answer}; {}", self.fate) }
    }
}

type Row = (&'static str, fn(Spot) -> Seen, &'static str);

/// The call, how it is made, what it answers where it cannot wait.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("`read` from a pipe", pipe, "`EFAULT`; data kept"),
    ("`pread`, `pwrite` of a file, straddling", file, "short count"),
    ("`read` from a pipe by io_uring", uring::read, "`EFAULT`; data kept"),
    ("`writev` to a pipe, straddling", writev, "`EFAULT`; nothing written"),
    ("`recv` from a stream socket", stream, "`EFAULT`; data kept"),
    ("`recv` from a datagram socket", datagram, "`EFAULT`; **data lost**"),
    ("`read` of an eventfd", eventfd, "`EFAULT`; **data lost**"),
    ("`read` of a timerfd", timerfd, "`EFAULT`; **data lost**"),
    ("`read` of a signalfd", signalfd, "`EFAULT`; **data lost**"),
    ("`accept` with an address", accept, "`EFAULT`; **connection lost**"),
    ("`epoll_wait`, level-triggered", epoll, "`EFAULT`; data kept"),
    ("`futex` wait", futex_wait, "`EFAULT`"),
    ("`futex` wake", futex_wake, "done"),
    ("`getrandom`, straddling", getrandom, "short count"),
    ("`process_vm_readv`, straddling", vm_read, "short count"),
    ("`open` of a path", open, "`EFAULT`"),
    ("`getcwd`, `fstat`, `clock_gettime` by system call", out, "`EFAULT`"),
    ("`clock_gettime` by the vDSO", vdso, "done"),
    ("`pipe` with its pair of descriptors", pipe2, "`EFAULT`"),
    ("`clone3` with its arguments", clone3, "`EFAULT`"),
];

// spec(process): H32
#[test]
fn system_calls_on_missing_pages_answer_as_the_readme_says() {
    let readme = include_str!("../../../../README.md");
    for (call, _, cannot_wait) in ROWS {
        let row = format!("| {call} | {cannot_wait} |");
        assert!(readme.contains(&row), "README.md is to have the row {row}");
    }
    let process = Builder::new().provider(Choice::Process);
    measure(&process, |_, cannot_wait| cannot_wait);
    let linux = Builder::new().provider(Choice::Linux);
    if let Err(error) = linux.open() {
        return skip(&error.to_string());
    }
    measure(&linux, |_, cannot_wait| cannot_wait);
    let waiting = linux.kernel_faults(KernelFaults::Require);
    if let Err(error) = waiting.open() {
        return skip(&error.to_string());
    }
    measure(&waiting, |call, _| match call {
        // What is read there is no value to wait for, and no order for a process.
        "`futex` wait" => "errno 11",
        "`clone3` with its arguments" => "errno 22",
        _ => "done",
    });
}

fn measure(builder: &Builder, expected: impl Fn(&'static str, &'static str) -> &'static str) {
    for (call, make, cannot_wait) in ROWS {
        let uffd = builder.open().unwrap();
        let seen = at_missing_page(&uffd, *make).words();
        if seen == uring::ABSENT {
            println!("skipped: {call}, because this machine refuses io_uring");
            continue;
        }
        assert_eq!(seen, expected(call, cannot_wait), "{call} at {uffd:?}");
    }
}

/// Makes a call at the border of a page that is there and one that is not; then, the pages being populated, sees
/// that the call would have worked.
fn at_missing_page(uffd: &Uffd, make: fn(Spot) -> Seen) -> Seen {
    let region = uffd.map(2, RegisterModes::MISSING).unwrap();
    let monitor = uffd.serve(&region, pattern).unwrap();
    region.populate(0..1).unwrap();
    let missing = region.base() + region.page_size();
    let spot = Spot { missing: missing as *mut c_void, straddling: (missing - LEN / 2) as *mut c_void };
    let seen = make(spot);
    region.populate(0..2).unwrap();
    let again = make(spot).words();
    assert!(["done", "errno 11", "errno 22", uring::ABSENT].contains(&again.as_str()), "on a populated page: {again}");
    drop(monitor);
    seen
}

/// The answer of a system call, or errno.
fn answer(value: c_long) -> Result<usize, i32> {
    usize::try_from(value).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

fn read(descriptor: RawFd, at: *mut c_void, len: usize) -> Result<usize, i32> {
    // SAFETY: memory of the row (invariant 1), or of the caller's.
    answer(unsafe { libc::read(descriptor, at, len) } as c_long)
}

/// What is left to be read from a descriptor that does not block.
fn fate(descriptor: RawFd, len: usize) -> &'static str {
    let mut rest = vec![0_u8; len];
    match read(descriptor, rest.as_mut_ptr().cast(), len) {
        Ok(left) if left == len => "data kept",
        Ok(_) => "rest kept",
        Err(libc::EAGAIN) => "**data lost**",
        Err(errno) => panic!("errno {errno}"),
    }
}

/// Reads `len` bytes of what `descriptor` holds, at `at`.
fn take(descriptor: &impl AsRawFd, at: *mut c_void, len: usize) -> Seen {
    let descriptor = descriptor.as_raw_fd();
    match read(descriptor, at, len) {
        Ok(done) if done == len => Seen::new(Ok(done), ""),
        taken => Seen::new(taken, fate(descriptor, len)),
    }
}

fn owned(descriptor: c_int) -> File {
    assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made, ours.
    File::from(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn piped(bytes: &[u8]) -> File {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) }, 0);
    owned(ends[1]).write_all(bytes).unwrap();
    owned(ends[0])
}

fn pipe(spot: Spot) -> Seen {
    take(&piped(&[7; LEN]), spot.missing, LEN)
}

fn file(spot: Spot) -> Seen {
    let place = folder("kernel-access");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(place.join("file")).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    // SAFETY: memory of the row (invariant 1).
    let written = answer(unsafe { libc::pwrite(file.as_raw_fd(), spot.straddling, LEN, 0) } as c_long);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(Ok(bytes.len()), written, "as many as it says");
    let start = 4096 - LEN / 2;
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == byte_at(start + at)), "and those of the memory");
    file.write_all(&[0; LEN]).unwrap();
    file.set_len(LEN as u64).unwrap();
    // The same bytes come back, so that the row can be repeated.
    file.rewind().unwrap();
    file.write_all(&(0..LEN).map(|at| byte_at(start + at)).collect::<Vec<_>>()).unwrap();
    // SAFETY: as above.
    let taken = answer(unsafe { libc::pread(file.as_raw_fd(), spot.straddling, LEN, 0) } as c_long);
    assert_eq!(taken, written, "both ways alike");
    Seen::new(taken, "")
}

fn writev(spot: Spot) -> Seen {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let half = LEN / 2;
    let parts = [spot.straddling, spot.missing].map(|iov_base| libc::iovec { iov_base, iov_len: half });
    // SAFETY: memory of the row (invariant 1), named by live values.
    let written = answer(unsafe { libc::writev(writer.as_raw_fd(), parts.as_ptr(), 2) } as c_long);
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == byte_at(4096 - half + at)), "those of the memory");
    match written {
        Ok(count) => assert_eq!(bytes.len(), count, "as many as it says"),
        Err(_) => return Seen::new(written, if bytes.is_empty() { "nothing written" } else { "**part written**" }),
    }
    Seen::new(written, "")
}

fn clone3(spot: Spot) -> Seen {
    // SAFETY: memory of the row (invariant 1): read only, and full of flags that there are not.
    Seen::new(answer(unsafe { libc::syscall(libc::SYS_clone3, spot.missing, 64) }), "")
}

fn stream(spot: Spot) -> Seen {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&[7; LEN]).unwrap();
    far.set_nonblocking(true).unwrap();
    take(&far, spot.missing, LEN)
}

fn datagram(spot: Spot) -> Seen {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.send(&[7; LEN]).unwrap();
    far.set_nonblocking(true).unwrap();
    take(&far, spot.missing, LEN)
}

fn eventfd(spot: Spot) -> Seen {
    // SAFETY: no pointers.
    let event = owned(unsafe { libc::eventfd(3, libc::EFD_NONBLOCK) });
    take(&event, spot.missing, 8)
}

fn timerfd(spot: Spot) -> Seen {
    // SAFETY: no pointers.
    let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) });
    let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: soon };
    // SAFETY: a live value.
    assert_eq!(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const once, std::ptr::null_mut()) }, 0);
    let mut ready = libc::pollfd { fd: timer.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: a live value.
    assert_eq!(unsafe { libc::poll(&raw mut ready, 1, -1) }, 1);
    take(&timer, spot.missing, 8)
}

fn signalfd(spot: Spot) -> Seen {
    // SAFETY: zero is a value of a set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a live set.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    // SAFETY: a live set; this thread alone.
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }, 0);
    // SAFETY: a live set.
    let signals = owned(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK) });
    // SAFETY: no pointers.
    let this_thread = unsafe { libc::pthread_self() };
    // SAFETY: this thread, which blocks it.
    assert_eq!(unsafe { libc::pthread_kill(this_thread, libc::SIGUSR1) }, 0);
    take(&signals, spot.missing, size_of::<libc::signalfd_siginfo>())
}

fn accept(spot: Spot) -> Seen {
    let place = folder("kernel-access-socket");
    let listener = UnixListener::bind(place.join("socket")).unwrap();
    let mut client = UnixStream::connect(place.join("socket")).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut len = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap();
    // SAFETY: memory of the row (invariant 1), and a live length.
    let accepted =
        answer(c_long::from(unsafe { libc::accept(listener.as_raw_fd(), spot.missing.cast(), &raw mut len) }));
    match accepted {
        Ok(descriptor) => {
            drop(owned(c_int::try_from(descriptor).unwrap()));
            Seen::new(Ok(0), "")
        }
        Err(_) if listener.accept().is_ok() => Seen::new(accepted, "connection kept"),
        Err(_) => {
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "closed");
            Seen::new(accepted, "**connection lost**")
        }
    }
}

fn epoll(spot: Spot) -> Seen {
    let ready = piped(&[7; LEN]);
    // SAFETY: no pointers.
    let epoll = owned(unsafe { libc::epoll_create1(0) });
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 9 };
    // SAFETY: a live value.
    let added = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ready.as_raw_fd(), &raw mut event) };
    assert_eq!(added, 0);
    // SAFETY: memory of the row (invariant 1), or a live value.
    let wait = |at| answer(c_long::from(unsafe { libc::epoll_wait(epoll.as_raw_fd(), at, 1, 0) }));
    match wait(spot.missing.cast()) {
        Ok(1) => Seen::new(Ok(0), ""),
        seen => Seen::new(seen, if wait(&raw mut event) == Ok(1) { "data kept" } else { "**data lost**" }),
    }
}

fn futex(spot: Spot, operation: c_int, value: u32) -> Seen {
    let none = std::ptr::null::<libc::timespec>();
    // SAFETY: memory of the row (invariant 1); a wait with a wrong value returns at once.
    let answered =
        unsafe { libc::syscall(libc::SYS_futex, spot.missing, operation | libc::FUTEX_PRIVATE_FLAG, value, none) };
    Seen::new(answer(answered), "")
}

fn futex_wait(spot: Spot) -> Seen {
    futex(spot, libc::FUTEX_WAIT, 0)
}

fn futex_wake(spot: Spot) -> Seen {
    futex(spot, libc::FUTEX_WAKE, 1)
}

fn getrandom(spot: Spot) -> Seen {
    // SAFETY: memory of the row (invariant 1).
    Seen::new(answer(unsafe { libc::getrandom(spot.straddling, LEN, 0) } as c_long), "")
}

fn vm_read(spot: Spot) -> Seen {
    let mut into = [0_u8; LEN];
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: LEN };
    let remote = libc::iovec { iov_base: spot.straddling, iov_len: LEN };
    let this_process = i32::try_from(std::process::id()).unwrap();
    // SAFETY: live values; what they name is memory of the row (invariant 1) and of this function.
    let done = unsafe { libc::process_vm_readv(this_process, &raw const local, 1, &raw const remote, 1, 0) };
    Seen::new(answer(done as c_long), "")
}

fn open(spot: Spot) -> Seen {
    // SAFETY: memory of the row (invariant 1). As a string it is a name that does not exist.
    match answer(c_long::from(unsafe { libc::open(spot.missing.cast(), libc::O_RDONLY) })) {
        Err(libc::ENOENT | libc::ENAMETOOLONG) => Seen::new(Ok(0), ""),
        refused => Seen::new(refused, ""),
    }
}

fn out(spot: Spot) -> Seen {
    let directory = File::open("/").unwrap();
    let answers = [
        // SAFETY: memory of the row (invariant 1), with room for the answer.
        answer(unsafe { libc::syscall(libc::SYS_getcwd, spot.missing, 4096) }),
        // SAFETY: as above.
        answer(c_long::from(unsafe { libc::fstat(directory.as_raw_fd(), spot.missing.cast()) })),
        // SAFETY: as above.
        answer(unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, spot.missing) }),
    ];
    let all_alike = answers.iter().all(Result::is_ok) || answers.iter().all(|answer| *answer == Err(libc::EFAULT));
    assert!(all_alike, "{answers:?}");
    Seen::new(answers[0].map(|_| 0), "")
}

fn vdso(spot: Spot) -> Seen {
    // SAFETY: memory of the row (invariant 1).
    Seen::new(answer(c_long::from(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, spot.missing.cast()) })), "")
}

fn pipe2(spot: Spot) -> Seen {
    let place = spot.missing.cast::<c_int>();
    // SAFETY: memory of the row (invariant 1).
    match answer(c_long::from(unsafe { libc::pipe2(place, 0) })) {
        Ok(_) => {
            // SAFETY: the call has just stored two there (invariant 1).
            let ends = unsafe { place.cast::<[c_int; 2]>().read() };
            let _closed = ends.map(owned);
            Seen::new(Ok(0), "")
        }
        refused => Seen::new(refused, ""),
    }
}
