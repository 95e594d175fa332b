//! Runs a closure of a test in a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};
use std::{env, ptr};

const VARIABLE: &str = "USERFAULT_SIGNAL_CHILD";

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

/// In the test: runs it again as a child, and says how that ended. In the child: runs `body`, and ends.
///
/// A body that comes to its end exits with 0, a failed assertion with another code. A child that hangs is
/// killed by SIGALRM.
pub(crate) fn child<F: FnOnce()>(body: F) -> Ended {
    if env::var_os(VARIABLE).is_some() {
        set_up();
        body();
        exit(0);
    }
    // `signal::module::test::{{closure}}`, of which libtest knows `module::test`.
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").unwrap().1.strip_suffix("::{{closure}}").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Ended {
        signal: output.status.signal(),
        code: output.status.code(),
        output: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// As [`child`], for a body that is to come to its end.
pub(crate) fn child_that_lives<F: FnOnce()>(body: F) {
    let ended = child(body);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn set_up() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live structure. No core files from children that die on purpose.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    // SAFETY: no pointers. A watchdog that can only fail.
    unsafe { libc::alarm(60) };
}

/// Sends `signal` to this thread as `raise` does, by `tgkill`: `si_code` is SI_TKILL.
pub(crate) fn send(signal: i32) {
    // SAFETY: no pointers.
    let answer = unsafe { libc::raise(signal) };
    assert_eq!(answer, 0);
}

/// Sets a plain `sigaction`, the libc way, as a program would.
pub(crate) fn set_action(signal: i32, handler: usize, flags: i32, masked: &[i32]) -> libc::sigaction {
    // SAFETY: integers and an optional function pointer: zero is a value of each.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    let mut old = new;
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    for signal in masked {
        // SAFETY: a live set.
        unsafe { libc::sigaddset(&raw mut new.sa_mask, *signal) };
    }
    // SAFETY: live structures; the handlers of these tests are async-signal-safe.
    let answer = unsafe { libc::sigaction(signal, &raw const new, &raw mut old) };
    assert_eq!(answer, 0);
    old
}

/// Blocks one signal in this thread.
pub(crate) fn block(signal: i32) {
    // SAFETY: integers: zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a live set.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: a live set, and null where the old one is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}
