//! Operations that want a process of their own: SIGBUS ends one, a fork under a monitor stops all of it, and who
//! answers its own faults keeps a handler.
//!
//! Here all is done that leaves this process alone, to know what is refused; then all of it in the other, which is
//! to end by that signal at that touch, or to say that it is done. No handler is installed here.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use userfault_client::{Errno, Features, Region as _, RegisterModes, Uffd as _};
use userfault_signal::AlternateStack;

use super::faults::PATIENCE;
use super::pages::{are_numbers, number};
use super::reason::{Stop, right};
use super::{Attempt, Column, kernel};
use crate::either::Region;
use crate::inline::Bytes;

/// What the process says right before it ends.
const LAST_WORD: &str = "touching\n";
/// What it says if it does not end by what it does.
const DONE: &str = "done\n";

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

pub(super) fn event_fork(attempt: &Attempt<'_>) -> Result<(), Stop> {
    // Nobody's fork is told as long as nothing is registered.
    drop(attempt.column.builder().require(Features::EVENT_FORK).open()?);
    is_done(attempt)
}

pub(super) fn inline(attempt: &Attempt<'_>) -> Result<(), Stop> {
    // As any other first: a machine that refuses that refuses this for the same reason.
    drop(attempt.column.builder().open()?);
    drop(attempt.column.builder().answer_inline().open()?);
    is_done(attempt)
}

/// A thread answers itself, on an alternate stack that is large enough for that.
fn answer_inline(column: Column) -> Result<(), Stop> {
    const PAGES: usize = 8;
    let uffd = column.builder().answer_inline().open()?;
    let region = uffd.map(PAGES, RegisterModes::MISSING)?;
    let size = region.page_size();
    let contents: Vec<u8> = (0..PAGES).flat_map(|page| vec![number(page); size]).collect();
    let monitor = uffd.monitor(&region).serve_inline(Bytes::from(contents))?;
    let stack = AlternateStack::ensure(0);
    let _large = stack.map_err(|error| Stop::Wrong(error.to_string()))?;
    let is_right = are_numbers(region.window(0..PAGES)?.as_ref(), size);
    let stats = monitor.join()?;
    right(is_right, "pages have other bytes than were filled")?;
    right((stats.faults_inline, stats.faults) == (PAGES as u64, 0), "not each fault was answered by its thread")
}

fn is_done(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let output = run(attempt)?;
    right(output.status.success() && output.stdout == DONE.as_bytes(), &said("it was not done", &output))
}

fn ends_by_sigbus(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let output = run(attempt)?;
    let is_right = output.status.signal() == Some(Signal::BUS.as_raw()) && output.stdout == LAST_WORD.as_bytes();
    right(is_right, &said("no SIGBUS at the touch", &output))
}

/// Does it in a process of its own.
fn run(attempt: &Attempt<'_>) -> Result<Output, Stop> {
    let Some(again) = attempt.again else { return Err(Stop::Offered) };
    let mut command: Command = again();
    command.args([attempt.name, attempt.column.name()]).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).output().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        let remedy = "allow execve and clone, raise the limit of processes (ulimit -u)";
        Stop::System("start a process", errno, remedy.to_owned())
    })
}

fn said(what: &str, output: &Output) -> String {
    let words = [&output.stdout[..], &output.stderr].concat();
    format!("{what}, but {}: {}", output.status, String::from_utf8_lossy(&words))
}

/// Does what [`examine_with`](super::examine_with) started this process for; what ends it does not return.
///
/// The words are the two that were added as arguments. Prints to standard output.
///
/// Example: [`examine_with`](super::examine_with).
#[must_use]
pub fn attempt(operation: &str, column: &str) -> ExitCode {
    let prepare = PREPARATIONS.iter().find(|(name, _)| *name == operation).map(|(_, prepare)| prepare);
    let known = Column::ALL.into_iter().find(|known| known.name() == column);
    watch();
    let done = match (prepare, known) {
        (Some(prepare), Some(column)) => touch(*prepare, column),
        (None, Some(column)) if operation == "event-fork" => kernel::fork(column),
        (None, Some(column)) if operation == "inline" => answer_inline(column),
        _ => {
            eprintln!("`{operation}` in column `{column}` is nothing that is tried in a process of its own");
            return ExitCode::from(2);
        }
    };
    match done.and_then(|()| tell(DONE)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("{stop:?}");
            ExitCode::FAILURE
        }
    }
}

/// Ends a process that neither ends nor gets anywhere.
fn watch() {
    let _detached = thread::Builder::new().spawn(|| {
        thread::sleep(PATIENCE);
        std::process::exit(3);
    });
}

fn tell(word: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout();
    let told = out.write_all(word.as_bytes()).and_then(|()| out.flush());
    told.map_err(|error| Stop::Wrong(error.to_string()))
}

fn touch(prepare: Prepare, column: Column) -> Result<(), Stop> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    limited.map_err(|errno| Stop::System("setrlimit", Errno::from_raw(errno.raw_os_error()), "allow it".to_owned()))?;
    let region = prepare(column)?;
    tell(LAST_WORD)?;
    let byte = region.window(0..1)?.as_ref().first().copied();
    Err(Stop::Wrong(format!("the page was there: {byte:?}")))
}
