//! A report of who sleeps, printed when somebody asks for it with a signal.
//!
//! Kernel counterpart: `sysrq-w`, which shows blocked tasks.

use std::fmt::Write as _;

use userfault_signal::{Line, OnSignal, RequestError, on_signal};

/// Reports are printed on the signal for as long as this lives; not in a forked child, which may ask for its own.
///
/// Example: [`report_sleepers_on`].
#[derive(Debug)]
#[must_use = "reports end when this is dropped"]
pub struct SleeperReport {
    _request: OnSignal,
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
    on_signal(signal, report).map(|request| SleeperReport { _request: request })
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
