//! Operations that end a process when they work: those that raise SIGBUS.
//!
//! Here everything but the touch is done, to know what is refused; then all of it in a process of its own, which is
//! to end by that signal at that touch. No handler is installed anywhere.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use userfault_client::{Errno, Features, Region as _, RegisterModes, Uffd as _};

use super::faults::PATIENCE;
use super::reason::{Stop, right};
use super::{Attempt, Column};
use crate::either::Region;

/// What the process says right before it ends.
const LAST_WORD: &str = "touching\n";

/// A region of one page whose touch raises SIGBUS.
type Prepare = fn(Column) -> Result<Region, Stop>;

const PREPARATIONS: [(&str, Prepare); 2] = [("poison", poisoned), ("sigbus", with_sigbus)];

fn poisoned(column: Column) -> Result<Region, Stop> {
    let region = column.builder().require(Features::POISON).open()?.map(1, RegisterModes::MISSING)?;
    region.poison(0..1)?.complete()?;
    right(region.zeropage(0..1)?.complete().is_err(), "a poisoned page can be filled")?;
    Ok(region)
}

fn with_sigbus(column: Column) -> Result<Region, Stop> {
    Ok(column.builder().require(Features::SIGBUS).open()?.map(1, RegisterModes::MISSING)?)
}

pub(super) fn poison(attempt: &Attempt<'_>) -> Result<(), Stop> {
    poisoned(attempt.column)?;
    ends_by_sigbus(attempt)
}

pub(super) fn sigbus(attempt: &Attempt<'_>) -> Result<(), Stop> {
    with_sigbus(attempt.column)?;
    ends_by_sigbus(attempt)
}

/// Starts a process for it.
fn ends_by_sigbus(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let Some(again) = attempt.again else { return Err(Stop::Offered) };
    let mut command: Command = again();
    command.args([attempt.name, attempt.column.name()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let output = command.stderr(Stdio::piped()).output().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Stop::System("start a process", errno, "allow execve and clone, raise the limit of processes (ulimit -u)")
    })?;
    let is_right = output.status.signal() == Some(Signal::BUS.as_raw()) && output.stdout == LAST_WORD.as_bytes();
    let said = [&output.stdout[..], &output.stderr].concat();
    right(is_right, &format!("no SIGBUS at the touch, but {}: {}", output.status, String::from_utf8_lossy(&said)))
}

/// Does what [`examine_with`](super::examine_with) started this process for; returns only if that does not work.
///
/// The words are the two that were added as arguments. Prints to standard output.
#[must_use]
pub fn attempt(operation: &str, column: &str) -> ExitCode {
    let prepare = PREPARATIONS.iter().find(|(name, _)| *name == operation).map(|(_, prepare)| prepare);
    let column = Column::ALL.into_iter().find(|known| known.name() == column);
    let (Some(prepare), Some(column)) = (prepare, column) else {
        eprintln!("`{operation}` in column `{column:?}` is nothing that is tried in a process of its own");
        return ExitCode::from(2);
    };
    match touch(*prepare, column) {
        Ok(byte) => println!("it was there: {byte}"),
        Err(stop) => println!("{stop:?}"),
    }
    ExitCode::FAILURE
}

fn touch(prepare: Prepare, column: Column) -> Result<u8, Stop> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    limited.map_err(|errno| Stop::System("setrlimit", Errno::from_raw(errno.raw_os_error()), "allow it"))?;
    let region = prepare(column)?;
    // A touch that neither ends nor is answered.
    let watchdog = || {
        thread::sleep(PATIENCE);
        std::process::exit(3);
    };
    let _detached = thread::Builder::new().spawn(watchdog);
    let mut out = std::io::stdout();
    let told = out.write_all(LAST_WORD.as_bytes()).and_then(|()| out.flush());
    told.map_err(|error| Stop::Wrong(error.to_string()))?;
    Ok(region.window(0..1)?.as_ref().first().copied().unwrap_or(0))
}
