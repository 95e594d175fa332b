//! A report of who sleeps, printed when somebody asks for it with a signal.
//!
//! Kernel counterpart: `sysrq-w`, which shows blocked tasks.

use std::fmt::Write as _;

use userfault_signal::{Line, OnSignal, RequestError, fork_generation, on_signal};

/// Reports are printed on the signal for as long as this lives. In a forked child, which has no thread to print
/// them, dropping it does nothing.
///
/// Example: [`report_sleepers_on`].
#[derive(Debug)]
#[must_use = "reports end when this is dropped"]
pub struct SleeperReport {
    /// Until it is dropped.
    request: Option<OnSignal>,
    /// The address space that has the thread.
    started_in: Result<u32, i32>,
}

impl Drop for SleeperReport {
    fn drop(&mut self) {
        let request = self.request.take();
        if fork_generation() != self.started_in {
            // It would join a thread of the parent's.
            core::mem::forget(request);
        }
    }
}

/// Prints a line to standard error for every thread that sleeps in a fault, of either provider, whenever the
/// process gets `signal`: `SIGQUIT` or `SIGUSR1`, say, which is the program's to choose.
///
/// For a process that hangs. It works while a thread sleeps inside `malloc` or `eprintln!`, and while every
/// other thread of the program is asleep, too: a thread of its own, started here, does the printing.
///
/// # Errors
///
/// [`RequestError`]: there is a report already, or the program handles this signal itself.
///
/// # Examples
///
/// ```
/// let quit = 3;
/// let _report = userfault::report_sleepers_on(quit)?;
/// // From now on `kill -QUIT PID` prints, for instance:
/// // userfault: thread 1234 (loader) sleeps since 3.2 s at 0x7f5e3c011008, page 17 of the region at
/// // 0x7f5e3c000000, missing: message read, not answered
/// # Ok::<(), userfault::RequestError>(())
/// ```
pub fn report_sleepers_on(signal: i32) -> Result<SleeperReport, RequestError> {
    on_signal(signal, report).map(|request| SleeperReport { request: Some(request), started_in: fork_generation() })
}

fn report() {
    let count = userfault_process::print_sleepers() + userfault_linux::print_sleepers();
    let mut line = Line::new();
    // Writing to a line cannot fail.
    let _written = match count {
        0 => write!(line, "userfault: no thread sleeps in a fault"),
        1 => write!(line, "userfault: 1 thread sleeps in a fault"),
        _ => write!(line, "userfault: {count} threads sleep in faults"),
    };
    line.print();
}
