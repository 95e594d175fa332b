//! Child processes: what a forked one sees, for who depends on what fork does to pages and wants to know that it
//! does; and that their ends can be waited for.
//!
//! Invariant:
//!
//! 1. A child made here loads one byte of its copy of memory, and makes one system call: nothing that another
//!    thread of its parent could have held.
//!
//! Kernel counterpart: `clone(2)`.
#![expect(unsafe_code, reason = "a child process; the invariant above is this file's proof")]

use std::io;
use std::ptr;

/// `byte`, as a child process sees it that is forked now and ends at once.
///
/// The C library is not told, so what runs at fork (`pthread_atfork`) does not; no SIGCHLD is sent, and who waits
/// for any child does not hear of it.
///
/// # Errors
///
/// The system's, if no child can be made; `EIO` if the byte ended it.
///
/// # Blocking
///
/// Until the child has ended: if its page faults there, until that is answered. With a userfaultfd that has
/// `EVENT_FORK`, first until somebody has read of the fork.
///
/// # Examples
///
/// ```
/// assert_eq!(userfault_memory::byte_in_child(&7)?, 7);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn byte_in_child(byte: &u8) -> io::Result<u8> {
    // SAFETY: without flags it is a fork, whose child keeps to invariant 1.
    let child = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: the child's copy of what is borrowed (invariant 1).
        let seen = unsafe { ptr::from_ref(byte).read_volatile() };
        // SAFETY: takes a number, and does not return (invariant 1).
        unsafe { libc::syscall(libc::SYS_exit_group, libc::c_long::from(seen)) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: the status is a live local. A child without a signal at its end is one for who asks for all.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } != child {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let seen = u8::try_from(libc::WEXITSTATUS(status)).ok().filter(|_| libc::WIFEXITED(status));
    seen.ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))
}

/// Gives SIGCHLD its default action, for a program that starts others and waits for them.
///
/// One that is ignored stays so across `execve`: then the kernel forgets how a child has ended, and waiting for it
/// is `ECHILD`. It is the program's to decide: for who handles this signal, or wants children forgotten, it is wrong.
///
/// # Source
///
/// `wait(2)`, NOTES.
///
/// # Examples
///
/// ```
/// userfault_memory::let_children_be_waited_for();
/// assert!(std::process::Command::new("true").status()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn let_children_be_waited_for() {
    // SAFETY: no handler is given. It cannot fail: that signal has a default action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}
