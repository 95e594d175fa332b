//! Starts a command with some of its system calls refused, as containers do, or without privilege.
//!
//! Invariants:
//!
//! 1. The closure owns the filter, so the pointer in `sock_fprog` is good for the call.
//! 2. Between fork and exec only `prctl` or `signal` is called, which are async-signal-safe; nothing is allocated.
#![expect(unsafe_code, reason = "a seccomp filter set between fork and exec; the two invariants above are the proof")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};

/// What is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refuse {
    /// `userfaultfd(2)`, and `USERFAULTFD_IOC_NEW` on the device, with EPERM: what Docker does.
    Userfaultfd,
    /// These system calls, each with its errno.
    Calls(&'static [(i64, i32)]),
    /// `pread(2)` at this offset or behind it, with EIO: a file whose disk is bad from there on.
    ReadsFrom(u32),
}

const USERFAULTFD_IOC_NEW: u32 = 0xaa00;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const SECOND_ARGUMENT: u32 = 16 + 8;
const FOURTH_ARGUMENT: u32 = 16 + 3 * 8;

/// Starting the command fails with EINVAL where the kernel has no such filters.
pub(crate) fn refuse(command: &mut Command, refuse: Refuse) {
    let mut program = program(refuse);
    let install = move || {
        let filter = sock_fprog { len: u16::try_from(program.len()).unwrap_or(0), filter: program.as_mut_ptr() };
        // SAFETY: no pointers.
        let locked = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: invariant 1.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        if locked == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: invariant 2.
    unsafe { command.pre_exec(install) };
}

/// The program finds that SIGCHLD is ignored, as some daemons leave it.
pub(crate) fn ignore_children(command: &mut Command) {
    let ignore = || {
        // SAFETY: no handler is given; async-signal-safe (invariant 2).
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: invariant 2.
    unsafe { command.pre_exec(ignore) };
}

/// Makes `command` run as nobody, if this process may decide that; else it has no privilege anyway.
pub(crate) fn as_nobody(command: &mut Command) {
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
}

/// A fresh folder that everybody may read.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("userfault-{}-{name}", std::process::id()));
    let _gone = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Copies a program to where everybody may run it.
///
/// By another process: one that this one forks meanwhile would inherit the file open for writing, and nobody
/// could run it then.
pub(crate) fn copy_program(from: impl AsRef<OsStr>, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn program(refuse: Refuse) -> Vec<sock_filter> {
    let errno = |errno: i32| ret(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    match refuse {
        Refuse::Userfaultfd => vec![
            load(NUMBER),
            jump(BPF_JEQ, system_call(libc::SYS_userfaultfd), 3, 0),
            jump(BPF_JEQ, system_call(libc::SYS_ioctl), 0, 3),
            load(SECOND_ARGUMENT),
            jump(BPF_JEQ, USERFAULTFD_IOC_NEW, 0, 1),
            errno(libc::EPERM),
            ret(libc::SECCOMP_RET_ALLOW),
        ],
        Refuse::Calls(calls) => {
            let each = |(call, number): &(i64, i32)| [jump(BPF_JEQ, system_call(*call), 0, 1), errno(*number)];
            let first = std::iter::once(load(NUMBER)).chain(calls.iter().flat_map(each));
            first.chain([ret(libc::SECCOMP_RET_ALLOW)]).collect()
        }
        Refuse::ReadsFrom(offset) => vec![
            load(NUMBER),
            jump(BPF_JEQ, system_call(libc::SYS_pread64), 0, 5),
            load(FOURTH_ARGUMENT + 4),
            jump(BPF_JGE, 1, 2, 0),
            load(FOURTH_ARGUMENT),
            jump(BPF_JGE, offset, 0, 1),
            errno(libc::EIO),
            ret(libc::SECCOMP_RET_ALLOW),
        ],
    }
}

fn system_call(number: i64) -> u32 {
    u32::try_from(number).unwrap()
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

/// Skips `then` instructions if it holds, else `otherwise`.
fn jump(test: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | test | BPF_K, then, otherwise, value)
}

fn ret(answer: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, answer)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k }
}
