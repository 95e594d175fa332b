//! Whether faults of this process still come to us: H27, H28.
//!
//! Two things that a program may do by right turn a missing page into a crash: to block SIGSEGV (the kernel
//! kills a thread that faults then, and nobody sees the signal), and to install a handler of its own after
//! ours. Neither can be prevented; both can be found, and are, wherever memory is registered.
//!
//! A later handler is fine if it calls the one it replaced. That cannot be tried without risking the crash it
//! would make of it, so the program says it: [`accept_handler`].
//!
//! Kernel counterpart: `force_sig_fault`, which resets a blocked handler to the default action.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use userfault_client::UffdError;
use userfault_signal::{Replaced, Signal, handler_address, is_blocked, still_installed};

/// The address of the later handler that is known to pass faults on; 0 for none.
static ACCEPTED: AtomicUsize = AtomicUsize::new(0);

/// Whether a fault of the calling thread would reach us.
///
/// Asked at [`map`](userfault_client::Uffd::map) and [`adopt`](crate::Uffd::adopt); for programs that load others' code (plug-ins, runtimes,
/// crash reporters) and want to know when. Fine before the first open, too: then only the mask counts.
///
/// # Errors
///
/// [`UffdError::SignalBlocked`], [`UffdError::HandlerReplaced`]; each says what to do.
///
/// # Examples
///
/// ```
/// use userfault_client::UffdError;
///
/// match userfault_process::check_signals() {
///     Ok(()) => {}
///     Err(UffdError::SignalBlocked) => assert!(userfault_signal::unblock_faults()),
///     Err(error) => eprintln!("{error}"),
/// }
/// ```
pub fn check_signals() -> Result<(), UffdError> {
    if is_blocked(Signal::Segv.number()) {
        return Err(UffdError::SignalBlocked);
    }
    check_handler()
}

/// Whether a fault of a thread that lets SIGSEGV in would reach us.
pub(crate) fn check_handler() -> Result<(), UffdError> {
    // First, and without asking for its name: that allocates, and wakes must not where all is well.
    if handler_address(Signal::Segv).is_some_and(|address| address == ACCEPTED.load(Relaxed)) {
        return Ok(());
    }
    match still_installed(Signal::Segv) {
        Ok(()) | Err(Replaced::NeverInstalled(_)) => Ok(()),
        Err(found) => Err(UffdError::HandlerReplaced { found: found.to_string() }),
    }
}

/// Says that the handler which SIGSEGV has now calls the one it replaced for faults that are not its own, with
/// their arguments: so it is no [`UffdError::HandlerReplaced`]. Forgotten as soon as there is another one.
///
/// Does nothing where ours is installed, or none.
///
/// ```
/// use userfault_client::UffdError;
/// use userfault_process::{accept_handler, check_signals};
///
/// // After a library was loaded that installs a handler, which is known to call the one it replaced:
/// if let Err(UffdError::HandlerReplaced { .. }) = check_signals() {
///     accept_handler();
/// }
/// check_signals()?;
/// # Ok::<(), UffdError>(())
/// ```
pub fn accept_handler() {
    if let Err(Replaced::ByHandler { address, .. }) = still_installed(Signal::Segv) {
        ACCEPTED.store(address, Relaxed);
    }
}
