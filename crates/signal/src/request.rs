//! Calling a function of the program when somebody sends it a signal, outside of the handler.
//!
//! The handler changes one word and wakes one thread, which was started beforehand: so the function may lock
//! and wait, and what it interrupts is nobody. It still must not allocate if it is to work while a thread
//! sleeps inside malloc.
//!
//! Invariants:
//!
//! 1. [`asked`] is async-signal-safe: an atomic, a futex wake, errno kept.
//! 2. The handler that was there is put back only if ours is still there.
//!
//! Kernel counterpart: `sysrq-trigger`.
#![expect(unsafe_code, reason = "installs a handler; the two invariants above are this file's proof")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use crate::error::RequestError;
use crate::generation::fork_generation;
use crate::mask::block_all_in_this_thread;
use crate::park::{futex_wait, futex_wake};
use crate::sys::{self, Action};

/// How often somebody has asked. One for the process, as the handler finds it.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// The number of the address space that has the request, or 0. A forked child finds its parent's, whose thread is
/// not there.
static HOLDER: AtomicU32 = AtomicU32::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// 1 once the thread waits, or is about to: it has allocated all that it ever will.
static IS_READY: AtomicU32 = AtomicU32::new(0);

/// The thread that waits for a signal, and the handler; both go when this is dropped. In a forked child the handler
/// is there without a thread, and does nothing.
///
/// Example: [`on_signal`].
#[derive(Debug)]
#[must_use = "the handler goes when this is dropped"]
pub struct OnSignal {
    signal: c_int,
    previous: Action,
    thread: Option<JoinHandle<()>>,
    /// The address space that has the thread.
    started_in: u32,
}

/// Has a thread call `work` whenever `signal` is sent to the process. Requests that come while it runs make it
/// run once more.
///
/// # Errors
///
/// [`RequestError`]; nothing is installed then. There is one such request at a time, and only for a signal that
/// nobody handles.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// static WAS_ASKED: AtomicBool = AtomicBool::new(false);
/// let request = userfault_signal::on_signal(libc::SIGUSR1, || WAS_ASKED.store(true, Ordering::Release))?;
/// // SAFETY: takes no pointers.
/// unsafe { libc::raise(libc::SIGUSR1) };
/// while !WAS_ASKED.load(Ordering::Acquire) {
///     std::thread::yield_now();
/// }
/// drop(request);
/// # Ok::<(), userfault_signal::RequestError>(())
/// ```
pub fn on_signal(signal: c_int, work: fn()) -> Result<OnSignal, RequestError> {
    let here = fork_generation().map_err(|errno| RequestError::Os { call: "mmap", errno })?;
    let holder = HOLDER.load(Ordering::Relaxed);
    if holder == here || HOLDER.compare_exchange(holder, here, Ordering::Acquire, Ordering::Relaxed).is_err() {
        return Err(RequestError::Taken);
    }
    let installed = install(signal, work, here);
    if installed.is_err() {
        HOLDER.store(0, Ordering::Release);
    }
    installed
}

fn install(signal: c_int, work: fn(), here: u32) -> Result<OnSignal, RequestError> {
    let os = |call| move |errno| RequestError::Os { call, errno };
    if signal == libc::SIGSEGV || signal == libc::SIGBUS {
        return Err(RequestError::OfFaults { signal });
    }
    let mut previous = sys::action_of(signal).map_err(os("sigaction"))?;
    if is_ours(&previous) {
        // A parent's, since nobody here has the request.
        previous.handler = libc::SIG_DFL;
    }
    if previous.handler != libc::SIG_DFL && previous.handler != libc::SIG_IGN {
        return Err(RequestError::Handled { signal, by: sys::origin(previous.handler) });
    }
    IS_OVER.store(false, Ordering::Relaxed);
    IS_READY.store(0, Ordering::Relaxed);
    let seen = ASKED.load(Ordering::Acquire);
    let thread = thread::Builder::new()
        .name("userfault-report".into())
        .spawn(move || wait(signal, seen, work))
        .map_err(|error| RequestError::Os { call: "clone", errno: error.raw_os_error().unwrap_or(libc::EAGAIN) })?;
    while IS_READY.load(Ordering::Acquire) == 0 {
        let _look_again = futex_wait(&IS_READY, 0, None);
    }
    let mut on_signal = OnSignal { signal, previous, thread: Some(thread), started_in: here };
    // SAFETY: `asked` is async-signal-safe (invariant 1).
    let answer = unsafe { sys::set_handler_of(signal, asked, libc::SA_RESTART) };
    if let Err(errno) = answer {
        on_signal.end_thread();
        return Err(RequestError::Os { call: "sigaction", errno });
    }
    Ok(on_signal)
}

fn is_ours(action: &Action) -> bool {
    action.handler == asked as *const () as usize
}

extern "C" fn asked(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let errno = sys::errno();
    ASKED.fetch_add(1, Ordering::Release);
    futex_wake(&ASKED, 1);
    sys::set_errno(errno);
}

fn wait(signal: c_int, mut seen: u32, work: fn()) {
    block_all_in_this_thread();
    // All others may be asleep with their signals blocked: this one can always take it.
    sys::set_mask(sys::mask().without(signal));
    IS_READY.store(1, Ordering::Release);
    futex_wake(&IS_READY, 1);
    loop {
        let _look_again = futex_wait(&ASKED, seen, None);
        let now = ASKED.load(Ordering::Acquire);
        if IS_OVER.load(Ordering::Acquire) {
            return;
        }
        if now != seen {
            seen = now;
            work();
        }
    }
}

impl OnSignal {
    fn end_thread(&mut self) {
        IS_OVER.store(true, Ordering::Release);
        ASKED.fetch_add(1, Ordering::Release);
        futex_wake(&ASKED, 1);
        // It ends in any case; a panic of `work` was printed when it happened.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for OnSignal {
    fn drop(&mut self) {
        if fork_generation() != Ok(self.started_in) {
            // The thread is the parent's, and the handler may be the child's own by now.
            return std::mem::forget(self.thread.take());
        }
        if sys::action_of(self.signal).is_ok_and(|action| is_ours(&action)) {
            // The default action, or none: nothing to promise. It cannot fail, for it was allowed before.
            let _given_back = sys::give_back(self.signal, self.previous);
        }
        self.end_thread();
        HOLDER.store(0, Ordering::Release);
    }
}
