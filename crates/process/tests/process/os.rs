//! System calls that the tests make as a program would.
//!
//! 1. Structures handed to the kernel are live locals; memory named by address is a test's own mapping, and
//!    memory handed over as a stack is leaked.
//! 2. Signal handlers use atomics, `access` and async-signal-safe calls only.
//! 3. A forked child of a process with one thread, or one that only makes system calls.
#![expect(unsafe_code, reason = "system calls; the three invariants above are this file's proof")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

pub(crate) fn no_core_files() {
    set_core_limit(|_| 0);
}

/// As many as whoever started the tests allows.
pub(crate) fn allow_core_files() {
    set_core_limit(|most| most);
}

fn set_core_limit(limit: impl Fn(libc::rlim_t) -> libc::rlim_t) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: invariant 1.
    unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limits) };
    limits.rlim_cur = limit(limits.rlim_max);
    // SAFETY: invariant 1.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limits) };
}

pub(crate) fn alarm(seconds: u32) {
    // SAFETY: no pointers.
    unsafe { libc::alarm(seconds) };
}

/// As the program's own `mmap`, of private anonymous memory; anywhere if `address` is 0, else over what is there.
pub(crate) fn map(address: usize, len: usize, protection: i32, flags: i32) -> usize {
    let fixed = if address == 0 { 0 } else { libc::MAP_FIXED };
    let sharing = if flags & libc::MAP_SHARED == 0 { libc::MAP_PRIVATE } else { 0 };
    let flags = libc::MAP_ANONYMOUS | sharing | flags | fixed;
    // SAFETY: invariant 1; what is mapped over is the test's own.
    let start = unsafe { libc::mmap(ptr::with_exposed_provenance_mut(address), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{:?}", io::Error::last_os_error());
    start.expose_provenance()
}

/// As the program's own `mmap` of a file, readable and writable.
pub(crate) fn map_file(file: &File, len: usize, flags: i32) -> usize {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory (invariant 1).
    let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED, "{:?}", io::Error::last_os_error());
    start.expose_provenance()
}

/// Where the C library keeps what the kernel unlocks when the thread dies.
pub(crate) fn robust_list(thread: u32) -> usize {
    let (mut head, mut len) = (0_usize, 0_usize);
    // SAFETY: invariant 1.
    unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut len) };
    head
}

/// This thread's alternate stack.
pub(crate) fn alternate_stack() -> std::ops::Range<usize> {
    let mut stack = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: invariant 1.
    check(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) }).unwrap();
    stack.ss_sp.addr()..stack.ss_sp.addr() + stack.ss_size
}

/// As the program's own `munmap`.
pub(crate) fn unmap(address: usize, len: usize) {
    // SAFETY: the test's own mapping, which nothing refers to.
    check(unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), len) }).unwrap();
}

/// As the program's own `madvise`.
pub(crate) fn advise(address: usize, len: usize, advice: i32) -> io::Result<()> {
    // SAFETY: invariant 1.
    check(unsafe { libc::madvise(ptr::with_exposed_provenance_mut(address), len, advice) }).map(drop)
}

/// As the program's own `mprotect`.
pub(crate) fn protect(address: usize, len: usize, protection: i32) -> io::Result<()> {
    // SAFETY: invariant 1.
    check(unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(address), len, protection) }).map(drop)
}

pub(crate) fn lock(address: usize, len: usize) -> io::Result<()> {
    // SAFETY: invariant 1.
    check(unsafe { libc::mlock(ptr::with_exposed_provenance(address), len) }).map(drop)
}

/// As `mlockall` of what is, as far as it has been touched, and of what comes.
pub(crate) fn lock_all() -> io::Result<()> {
    for flags in [libc::MCL_CURRENT | libc::MCL_ONFAULT, libc::MCL_FUTURE] {
        // SAFETY: no pointers.
        check(unsafe { libc::mlockall(flags) })?;
    }
    Ok(())
}

/// Limits private writable memory; what the limit was.
pub(crate) fn limit_data(bytes: u64) -> u64 {
    limit(libc::RLIMIT_DATA, bytes)
}

/// Limits what is mapped; what the limit was.
pub(crate) fn limit_addresses(bytes: u64) -> u64 {
    limit(libc::RLIMIT_AS, bytes)
}

fn limit(what: libc::__rlimit_resource_t, bytes: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: invariant 1.
    check(unsafe { libc::getrlimit(what, &raw mut limit) }).unwrap();
    let before = std::mem::replace(&mut limit.rlim_cur, bytes);
    // SAFETY: invariant 1.
    check(unsafe { libc::setrlimit(what, &raw const limit) }).unwrap();
    before
}

pub(crate) fn memory_file() -> File {
    // SAFETY: a literal name.
    let number = check(unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) }).unwrap();
    // SAFETY: just opened, ours.
    File::from(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A file in memory that can be sealed.
pub(crate) fn sealable_file() -> File {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a literal name.
    let number = check(unsafe { libc::memfd_create(c"test".as_ptr(), flags) }).unwrap();
    // SAFETY: just opened, ours.
    File::from(unsafe { OwnedFd::from_raw_fd(number) })
}

pub(crate) fn seal(file: &File, seals: i32) {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }).unwrap();
}

/// Lets the kernel read `len` bytes at `address`; how many, or the error number.
pub(crate) fn write_from(file: &File, address: usize, len: usize) -> Result<usize, i32> {
    let source = ptr::with_exposed_provenance(address);
    // SAFETY: the kernel answers EFAULT for what it cannot read.
    let answer = unsafe { libc::pwrite(file.as_raw_fd(), source, len, 0) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

/// Whether a system call can write a byte to `address`: a zero.
pub(crate) fn read_into(file: &File, address: usize) -> bool {
    file.set_len(1).unwrap();
    // SAFETY: invariant 1; the kernel answers EFAULT for what it cannot write.
    unsafe { libc::pread(file.as_raw_fd(), ptr::with_exposed_provenance_mut(address), 1, 0) == 1 }
}

/// The bytes at `address`, if a system call can read them.
pub(crate) fn kernel_reads(file: &File, address: usize, len: usize) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    if write_from(file, address, len) != Ok(len) {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// Maps shared memory with these protection bits, a file's or nobody's, for the rest of the process.
pub(crate) fn map_shared(file: Option<&File>, len: usize, bits: i32) -> usize {
    let flags = libc::MAP_SHARED | if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    let number = file.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: a fresh mapping (invariant 1).
    let mapped = unsafe { libc::mmap(ptr::null_mut(), len, bits, flags, number, 0) };
    assert_ne!(mapped, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    mapped.expose_provenance()
}

/// A second mapping of shared memory, for the rest of the process.
pub(crate) fn second_view(address: usize, len: usize) -> usize {
    // SAFETY: a fresh mapping (invariant 1).
    let mapped = unsafe { libc::mremap(ptr::with_exposed_provenance_mut(address), 0, len, libc::MREMAP_MAYMOVE) };
    assert_ne!(mapped, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    mapped.expose_provenance()
}

/// Frees pages of shared memory, for everybody.
pub(crate) fn forget_contents(address: usize, len: usize) {
    // SAFETY: invariant 1.
    check(unsafe { libc::madvise(ptr::with_exposed_provenance_mut(address), len, libc::MADV_REMOVE) }).unwrap();
}

/// Reserves room in a file without writing to it.
pub(crate) fn reserve(file: &impl AsRawFd, offset: usize, len: usize) {
    // SAFETY: no pointers.
    let answer = unsafe {
        libc::fallocate(
            file.as_raw_fd(),
            libc::FALLOC_FL_KEEP_SIZE,
            i64::try_from(offset).unwrap(),
            i64::try_from(len).unwrap(),
        )
    };
    check(answer).unwrap();
}

pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);

/// Sets a handler with SA_SIGINFO, as a program would.
pub(crate) fn handle(signal: i32, handler: Handler, flags: i32) {
    set_action(signal, handler as usize, flags | libc::SA_SIGINFO);
}

/// Sets a handler of any kind.
pub(crate) fn set_action(signal: i32, handler: usize, flags: i32) {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    let mut new: libc::sigaction = unsafe { mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: invariants 1 and 2.
    check(unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) }).unwrap();
}

/// The handler that [`pass_on`] calls.
static REPLACED: AtomicUsize = AtomicUsize::new(0);

/// As a well-behaved late comer: puts [`pass_on`] where the handler of `signal` is.
pub(crate) fn replace_and_pass_on(signal: i32, flags: i32) {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: invariant 1.
    check(unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) }).unwrap();
    assert_ne!(old.sa_flags & libc::SA_SIGINFO, 0, "of three arguments");
    REPLACED.store(old.sa_sigaction, SeqCst);
    handle(signal, pass_on, flags);
}

/// Calls the handler that was there before.
pub(crate) extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let handler = ptr::with_exposed_provenance::<()>(REPLACED.load(SeqCst));
    // SAFETY: what `sigaction` said was a handler of three arguments.
    let handler = unsafe { mem::transmute::<*const (), Handler>(handler) };
    handler(signal, info, context);
}

/// Sets a handler whose mask is every signal.
pub(crate) fn handle_with_all_blocked(signal: i32, handler: Handler) {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    let mut new: libc::sigaction = unsafe { mem::zeroed() };
    new.sa_sigaction = handler as usize;
    new.sa_flags = libc::SA_SIGINFO;
    // SAFETY: invariant 1.
    unsafe { libc::sigfillset(&raw mut new.sa_mask) };
    // SAFETY: invariants 1 and 2.
    check(unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) }).unwrap();
}

/// `si_addr`.
pub(crate) fn address_of(info: *mut libc::siginfo_t) -> usize {
    // SAFETY: called by a handler with its own argument.
    let info = unsafe { &*info };
    // SAFETY: the handlers are for faults, which carry an address.
    unsafe { info.si_addr() }.addr()
}

/// Where the interrupted code goes on.
pub(crate) fn instruction_of(context: *mut c_void) -> usize {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: called by a handler with its own argument.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    usize::from_ne_bytes(registers[usize::try_from(libc::REG_RIP).unwrap()].to_ne_bytes())
}

/// Lets the interrupted code go on elsewhere.
pub(crate) fn continue_at(context: *mut c_void, address: usize) {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: called by a handler with its own argument.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    registers[usize::try_from(libc::REG_RIP).unwrap()] = i64::from_ne_bytes(address.to_ne_bytes());
}

pub(crate) fn thread_id() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::gettid() }
}

pub(crate) fn send(thread: i32, signal: i32) {
    let process = std::process::id();
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Runs `body` in a thread of the C library's that has been cancelled and has not met a cancellation point yet; what
/// it returned, or `None` if it did not.
pub(crate) fn cancelled(body: extern "C" fn(*mut c_void) -> *mut c_void, argument: usize) -> Option<usize> {
    let (mut thread, mut answer) = (0, ptr::null_mut());
    let argument = ptr::with_exposed_provenance_mut(argument);
    // SAFETY: invariant 1; the thread is joined.
    assert_eq!(unsafe { libc::pthread_create(&raw mut thread, ptr::null(), body, argument) }, 0);
    // SAFETY: a thread that was not joined yet, and a live place.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut answer) }, 0);
    Some(answer.addr()).filter(|answer| *answer != usize::MAX)
}

/// Cancels this thread, at its next cancellation point.
pub(crate) fn cancel_self() {
    // SAFETY: no pointers.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: this thread.
    assert_eq!(unsafe { libc::pthread_cancel(this) }, 0);
}

/// Sends a signal to this process: to whichever thread takes it.
pub(crate) fn kill_self(signal: i32) {
    let process = i32::try_from(std::process::id()).unwrap();
    // SAFETY: no pointers.
    unsafe { libc::kill(process, signal) };
}

/// SIGPROF after each so many microseconds of work by this process; never for 0.
pub(crate) fn profile_every(microseconds: i64) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: invariant 1.
    check(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) }).unwrap();
}

/// Blocks or unblocks one signal in this thread.
pub(crate) fn set_blocked(signal: i32, blocked: bool) {
    // SAFETY: integers: zero is a value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: invariant 1.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: invariant 1.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}

/// Gives this thread an alternate stack of `size` bytes behind a closed page, or none for 0; all of it is
/// `paint`. Its first byte.
pub(crate) fn use_stack(size: usize, paint: u8) -> usize {
    let page = 4096;
    let mut stack = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    if size != 0 {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: fresh memory, leaked (invariant 1).
        let base = unsafe { libc::mmap(ptr::null_mut(), size + page, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        protect(base.expose_provenance(), page, libc::PROT_NONE).unwrap();
        let start = base.wrapping_byte_add(page);
        // SAFETY: the mapping just made, behind its first page.
        unsafe { start.cast::<u8>().write_bytes(paint, size) };
        stack = libc::stack_t { ss_sp: start, ss_flags: 0, ss_size: size };
    }
    // SAFETY: invariant 1.
    check(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }).unwrap();
    stack.ss_sp.expose_provenance()
}

/// Standard error into a pipe for as long as this lives.
pub(crate) struct Captured {
    reader: std::io::PipeReader,
    before: OwnedFd,
}

impl Captured {
    pub(crate) fn begin() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let before = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
        // SAFETY: no pointers; the number of standard error is nobody's property.
        check(unsafe { libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) }).unwrap();
        Self { reader, before }
    }

    /// What was written, at least a byte; allocates nothing.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> usize {
        io::Read::read(&mut self.reader, into).unwrap()
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::dup2(self.before.as_raw_fd(), libc::STDERR_FILENO) };
    }
}

/// The size of the frame that the kernel puts on a signal stack.
pub(crate) fn frame_bytes() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::getauxval(51) }).unwrap()
}

/// Ends the process without clean-up.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: no pointers.
    unsafe { libc::_exit(code) }
}

/// Ends a forked child that hangs.
const CHILD_WATCHDOG_S: u32 = 60;

/// Faults of this process that took no I/O: how much of its memory it has looked at.
pub(crate) fn minor_faults() -> i64 {
    // SAFETY: integers: zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: invariant 1.
    check(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }).unwrap();
    usage.ru_minflt
}

pub(crate) fn process_id() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::getpid() }
}

/// Forks, for a handler; 0 in the child.
pub(crate) fn fork() -> i32 {
    // SAFETY: invariant 3.
    unsafe { libc::fork() }
}

/// Runs `body` in a forked child, which ends without clean-up; its exit status.
pub(crate) fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: invariant 3.
    let child = check(unsafe { libc::fork() }).unwrap();
    if child == 0 {
        alarm(CHILD_WATCHDOG_S);
        exit_now(body());
    }
    waited(child)
}

/// As [`forked`], by the bare system call: the C library's hooks do not run.
pub(crate) fn cloned(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: invariant 3; without CLONE_VM a child with a copy of everything, as of fork.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        alarm(CHILD_WATCHDOG_S);
        exit_now(body());
    }
    waited(i32::try_from(child).unwrap())
}

/// Runs `body` in a child that shares this memory, while this thread waits, as `vfork` does; its exit status.
pub(crate) fn vforked(mut body: impl FnMut() -> i32) -> i32 {
    extern "C" fn run<F: FnMut() -> i32>(body: *mut c_void) -> i32 {
        // SAFETY: the closure below, which lives until the child has ended; this thread waits (CLONE_VFORK).
        let body = unsafe { &mut *body.cast::<F>() };
        body()
    }
    fn entry<F: FnMut() -> i32>(_: &F) -> extern "C" fn(*mut c_void) -> i32 {
        run::<F>
    }
    let mut stack = vec![0_u128; 1 << 14];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast();
    let argument = (&raw mut body).cast();
    // SAFETY: a stack of its own that lives until the child has ended (CLONE_VFORK), and invariant 3.
    let child = check(unsafe { libc::clone(entry(&body), top, flags, argument) }).unwrap();
    waited(child)
}

/// A command that is started by fork and exec, with whatever runs in a forked child.
pub(crate) fn command_by_fork(program: &str) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(program);
    // SAFETY: does nothing. It keeps the library from spawning without a copy of the address space.
    unsafe { command.pre_exec(|| Ok(())) };
    command
}

/// Maps fresh memory at `address`, where nothing is mapped; where it lies.
pub(crate) fn map_at(address: usize, len: usize, protection: i32) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let place = ptr::without_provenance_mut(address);
    // SAFETY: no memory in use is replaced.
    unsafe { libc::mmap(place, len, protection, flags, -1, 0) }.expose_provenance()
}

/// What `/proc/self/maps` says of the mapping with `address`, such as `rw-p`.
pub(crate) fn protection_of(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (number(start)?..number(end)?).contains(&address).then(|| rest.split(' ').next().unwrap_or("").to_owned())
    })
}

pub(crate) fn waited(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: invariant 1.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) }).unwrap();
    status
}

/// Whether this process has no child that anybody could wait for.
pub(crate) fn has_no_child() -> bool {
    // SAFETY: nothing is written.
    let answer = unsafe { libc::waitpid(-1, ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
    answer == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD)
}

pub(crate) fn become_user(id: u32) {
    // SAFETY: no pointers. Group first, while it is allowed.
    check(unsafe { libc::setgid(id) }).unwrap();
    // SAFETY: no pointers.
    check(unsafe { libc::setuid(id) }).unwrap();
}

pub(crate) fn become_group(id: u32) {
    // SAFETY: no pointers.
    check(unsafe { libc::setgid(id) }).unwrap();
}

pub(crate) fn group() -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::getgid() }
}

pub(crate) fn user() -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::getuid() }
}

/// A poller of one descriptor, edge-triggered or level-triggered.
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new(descriptor: impl AsFd, edges: bool) -> Self {
        // SAFETY: no pointers.
        let number = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).unwrap();
        // SAFETY: just opened, ours.
        let epoll = unsafe { OwnedFd::from_raw_fd(number) };
        let edge = if edges { libc::EPOLLET } else { 0 };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | edge).cast_unsigned(), u64: 0 };
        let descriptor = descriptor.as_fd().as_raw_fd();
        // SAFETY: invariant 1.
        check(unsafe { libc::epoll_ctl(number, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) }).unwrap();
        Self(epoll)
    }

    /// Whether it is readable within `milliseconds`.
    pub(crate) fn wait(&self, milliseconds: i32) -> bool {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: invariant 1.
        check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, milliseconds) }).unwrap() == 1
    }
}
