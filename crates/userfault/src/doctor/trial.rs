//! Operations that want a process of their own: SIGBUS ends one, a fork under a monitor stops all of it, and who
//! answers its own faults keeps a handler.
//!
//! Here all is done that leaves this process alone, to know what is refused; then all of it in the other, which is
//! to end by that signal at that touch, or to say that it is done, or what was refused. No handler is installed here.

use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use userfault_client::{Errno, Features, Region as _, RegisterModes, Uffd as _, UffdError};
use userfault_signal::{AlternateStack, StackError};

use super::faults::PATIENCE;
use super::pages::{are_numbers, number};
use super::reason::{Reason, Stop, errno_of, of_errno, right};
use super::{Answer, Attempt, Column, kernel};
use crate::either::Region;
use crate::inline::Bytes;

/// What the process says right before it ends.
const LAST_WORD: &str = "touching\n";
/// What it says if it does not end by what it does.
const DONE: &str = "done\n";
/// What it says before a reason: the errno, what was tried, the remedy, each on a line.
const REFUSED: &str = "refused\n";
const UNTRIED: &str = "untried\n";

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
    let _large = stack.map_err(no_stack)?;
    let is_right = are_numbers(region.window(0..PAGES)?.as_ref(), size);
    let stats = monitor.join()?;
    right(is_right, "pages have other bytes than were filled")?;
    right((stats.faults_inline, stats.faults) == (PAGES as u64, 0), "not each fault was answered by its thread")
}

fn no_stack(error: StackError) -> Stop {
    match error {
        StackError::Os { call, errno } => UffdError::System { operation: call, errno: Errno::from_raw(errno) }.into(),
        StackError::TooLarge { .. } | _ => Stop::Wrong(error.to_string()),
    }
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
    let output = command.stderr(Stdio::piped()).output().map_err(|error| Stop::Untried(untried(&error)))?;
    stop_of(&output.stdout).map_or(Ok(output), Err)
}

/// Why a process could not be started or waited for.
fn untried(error: &io::Error) -> Reason {
    let errno = errno_of(error);
    let (tried, remedy) = match errno {
        Errno::ECHILD => ("wait for a process", "do not ignore SIGCHLD: what waits for a process needs it"),
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => ("start a process", of_errno(errno)),
        _ => ("start a process", "allow execve and clone, raise the limit of processes (ulimit -u)"),
    };
    Reason { tried: tried.to_owned(), errno, remedy: remedy.to_owned() }
}

/// Tells the process that has started this one what was refused, which is no proof of anything else.
fn tell_stop(stop: Stop, column: Column) -> Result<(), Stop> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (word, reason) = match stop.answer(column, &release) {
        Answer::Refused(reason) => (REFUSED, reason),
        Answer::Untried(reason) => (UNTRIED, reason),
        Answer::Wrong(what) => return Err(Stop::Wrong(what)),
        Answer::Works | Answer::Offered => return Err(Stop::Offered),
    };
    tell(&format!("{word}{}\n{}\n{}", reason.errno.raw(), reason.tried, reason.remedy))
}

/// What was told there; `None` if nothing was refused.
fn stop_of(told: &[u8]) -> Option<Stop> {
    let told = str::from_utf8(told).ok()?;
    let told = told.strip_prefix(LAST_WORD).unwrap_or(told);
    let reason = |words: &str| {
        let mut lines = words.splitn(3, '\n');
        let errno = Errno::from_raw(lines.next()?.parse().ok()?);
        Some(Reason { tried: lines.next()?.to_owned(), errno, remedy: lines.next()?.to_owned() })
    };
    let refused = told.strip_prefix(REFUSED).and_then(reason).map(Stop::Refused);
    refused.or_else(|| told.strip_prefix(UNTRIED).and_then(reason).map(Stop::Untried))
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
    let Err(stop) = done.and_then(|()| tell(DONE)) else { return ExitCode::SUCCESS };
    if let Some(Err(stop)) = known.map(|column| tell_stop(stop, column)) {
        eprintln!("{stop:?}");
    }
    ExitCode::FAILURE
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

/// Whatever ends this process leaves no core. Where cores are piped to a program no limit stops that, but 1; and
/// no core is as small.
///
/// # Source
///
/// `core(5)`, "Piping core dumps to a program".
fn leave_no_core() -> Result<(), rustix::io::Errno> {
    let limit = |most| setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) });
    // Who may have none at all cannot raise that.
    limit(1).or_else(|_| limit(0))
}

fn touch(prepare: Prepare, column: Column) -> Result<(), Stop> {
    leave_no_core().map_err(|errno| {
        let remedy = "allow it: what ends by a signal here is to leave no core";
        let (tried, errno) = ("setrlimit".to_owned(), Errno::from_raw(errno.raw_os_error()));
        Stop::Untried(Reason { tried, errno, remedy: remedy.to_owned() })
    })?;
    let region = prepare(column)?;
    tell(LAST_WORD)?;
    let byte = region.window(0..1)?.as_ref().first().copied();
    Err(Stop::Wrong(format!("the page was there: {byte:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getrlimit;

    #[test]
    fn a_core_is_limited_to_1_byte_which_the_kernel_takes_for_none_where_cores_are_piped() {
        let most = getrlimit(Resource::Core).maximum;
        leave_no_core().unwrap();
        if most != Some(0) {
            assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(1), maximum: Some(1) });
        }
        leave_no_core().unwrap();
    }

    #[test]
    fn what_another_process_tells_is_refused_untried_or_nothing() {
        for (told, expected) in [
            ("refused\n1\nmmap\nallow it\nor not", Some("Refused")),
            ("touching\nrefused\n1\nmmap\nallow it", Some("Refused")),
            ("untried\n22\nsetrlimit\nallow it", Some("Untried")),
            ("untried\nx\nsetrlimit\nallow it", None),
            ("refused\n1\nmmap", None),
            ("touching\n", None),
            ("done\n", None),
            ("", None),
        ] {
            let stop = stop_of(told.as_bytes()).map(|stop| format!("{stop:?}"));
            let word = stop.as_deref().and_then(|stop| stop.split('(').next());
            assert_eq!(word, expected, "{told:?}: {stop:?}");
        }
    }
}
