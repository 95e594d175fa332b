//! What works on this machine, for this user, found by doing it.
//!
//! "Works" is a promise: the operation was done here, in this process or in one that was started for it, and its
//! result was right. What was only offered says so; what was refused says by which error, and what to do.
//!
//! ```text
//! examine ── openings      each way to open each provider            what the process provider needs ── mechanisms
//!        └── operations    each, at each column: pages.rs, faults.rs, adopted.rs, kernel.rs; trial.rs in a process of its own
//!        └── features      by name, from the operations that need them
//! ```
//!
//! Kernel counterpart: none.
//!
//! # Examples
//!
//! ```
//! let report = userfault::doctor::examine();
//! print!("{report}");
//! for reason in report.reasons() {
//!     println!("{reason}");
//! }
//! ```

mod adopted;
mod faults;
mod kernel;
mod pages;
mod reason;
mod table;
mod trial;

use core::fmt;
use std::process::Command;

use userfault_client::{Features, Provider};
use userfault_linux as linux;
use userfault_memory::page_size;
use userfault_process as process;

pub use reason::Reason;
use table::{FEATURES, OPERATIONS};
pub use trial::attempt;
pub use userfault_memory::let_children_be_waited_for;

use crate::open::{Builder, Choice};

/// A way of having userfaultfd: a column of the tables.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Column {
    /// The kernel's, for faults of user mode: no privilege.
    LinuxUser,
    /// The kernel's, also for faults inside system calls.
    LinuxKernel,
    /// The engine in this process.
    Process,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LinuxUser, Self::LinuxKernel, Self::Process];

    /// A stable word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinuxUser => "linux-user",
            Self::LinuxKernel => "linux-kernel",
            Self::Process => "process",
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn provider(self) -> Provider {
        match self {
            Self::LinuxUser | Self::LinuxKernel => Provider::Linux,
            Self::Process => Provider::Process,
        }
    }

    pub(crate) fn builder(self) -> Builder {
        match self {
            Self::LinuxUser => Builder::new().provider(Choice::Linux),
            Self::LinuxKernel => {
                Builder::new().provider(Choice::Linux).kernel_faults(userfault_client::KernelFaults::Require)
            }
            Self::Process => Builder::new().provider(Choice::Process),
        }
    }
}

/// What came of trying something.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It was done, and the result was right.
    Works,
    /// The machine says that it has it; it was not done here.
    Offered,
    /// As [`Offered`](Self::Offered): it could not be done here, for this reason, which says nothing about it.
    Untried(Reason),
    /// It was tried and refused.
    Refused(Reason),
    /// It was done, and the result was wrong: a bug, of the machine's or of ours.
    Wrong(String),
}

impl fmt::Display for Answer {
    /// A word or two, for a cell of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.pad("works"),
            Self::Offered | Self::Untried(_) => f.pad("offered"),
            Self::Refused(reason) => f.pad(&format!("no: {}", reason.errno_name())),
            Self::Wrong(_) => f.pad("WRONG"),
        }
    }
}

/// A way to open a provider, and what came of it.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The provider.
    pub provider: Provider,
    /// The way.
    pub way: &'static str,
    /// Whether a descriptor came of it.
    pub answer: Answer,
}

/// Something that can be done, and what came of it in each column.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A stable word for it; of a feature, its name.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// In the order of [`Column::ALL`].
    pub answers: [Answer; 3],
}

/// Something of the machine that the process provider uses, and what came of trying it.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mechanism {
    /// A stable word for it.
    pub name: &'static str,
    /// What does not work, or works in another way, without it.
    pub needed_for: &'static str,
    /// Whether it works.
    pub answer: Answer,
}

/// All that was found.
///
/// Prints a line for each provider.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, such as `6.18.44`.
    pub release: String,
    /// The machine's architecture, such as `x86_64`.
    pub machine: String,
    /// The effective user.
    pub user: u32,
    /// Bytes per page.
    pub page_size: usize,
    /// Each way of opening.
    pub openings: Vec<Opening>,
    /// Each operation.
    pub operations: Vec<Row>,
    /// Each feature.
    pub features: Vec<Row>,
    /// What the process provider uses.
    pub mechanisms: Vec<Mechanism>,
}

/// A second process of this program; see [`examine_with`].
pub(crate) type Again<'a> = &'a dyn Fn() -> Command;

/// Tries everything that leaves this process as it is.
///
/// What raises SIGBUS when it works, and forks that a monitor hears of, are [`Offered`](Answer::Offered) at best; see
/// [`examine_with`]. The process provider stays open afterwards, as after any use, with its SIGSEGV handler.
///
/// # Blocking
///
/// About a tenth of a second. Makes threads, and child processes for moments.
///
/// Example: [`doctor`](crate::doctor).
#[must_use]
pub fn examine() -> Report {
    report(None)
}

/// Tries everything.
///
/// `again` starts this program in a way that ends in [`attempt`] with the two words that are added as arguments:
/// what raises SIGBUS, and what forks under a monitor, is done there. Where that process cannot be started, or not
/// be waited for ([`let_children_be_waited_for`]), these are [`Untried`](Answer::Untried).
///
/// # Blocking
///
/// As [`examine`].
///
/// # Examples
///
/// ```no_run
/// use std::process::{Command, ExitCode};
/// use userfault::doctor::{attempt, examine_with};
///
/// fn main() -> ExitCode {
///     let words: Vec<String> = std::env::args().skip(1).collect();
///     if let [operation, column] = &words[..] {
///         return attempt(operation, column);
///     }
///     print!("{}", examine_with(&|| Command::new("/proc/self/exe")));
///     ExitCode::SUCCESS
/// }
/// ```
#[must_use]
pub fn examine_with(again: &dyn Fn() -> Command) -> Report {
    report(Some(again))
}

fn report(again: Option<Again<'_>>) -> Report {
    let system = rustix::system::uname();
    // First: the probes need no provider, and one that is open could answer for them.
    let mechanisms = process::probe().into_iter().map(|mechanism| Mechanism {
        name: mechanism.name,
        needed_for: mechanism.needed_for,
        answer: mechanism.outcome.map_or_else(|refusal| Answer::Refused(refusal.into()), |()| Answer::Works),
    });
    let mechanisms = mechanisms.collect();
    let openings = openings();
    let operations: Vec<Row> = OPERATIONS
        .iter()
        .map(|operation| {
            let answers = Column::ALL.map(|column| {
                let done = (operation.run)(&Attempt { column, name: operation.name, again });
                done.map_or_else(|stop| stop.answer(column, &system.release().to_string_lossy()), |()| Answer::Works)
            });
            Row { name: operation.name, title: operation.title, answers }
        })
        .collect();
    Report {
        release: system.release().to_string_lossy().into_owned(),
        machine: system.machine().to_string_lossy().into_owned(),
        user: rustix::process::geteuid().as_raw(),
        page_size: page_size(),
        features: features(&operations, &system.release().to_string_lossy()),
        openings,
        operations,
        mechanisms,
    }
}

fn openings() -> Vec<Opening> {
    let linux = linux::probe().into_iter().map(|probe| Opening {
        provider: Provider::Linux,
        way: probe.way.name(),
        answer: probe.outcome.map_or_else(|refusal| Answer::Refused(refusal.into()), |_| Answer::Works),
    });
    let process = |answer| Opening { provider: Provider::Process, way: "in this process", answer };
    let opened = match Column::Process.builder().open() {
        Ok(_) => vec![process(Answer::Works)],
        Err(error) => Reason::all_of(&error).into_iter().map(|reason| process(Answer::Refused(reason))).collect(),
    };
    linux.chain(opened).collect()
}

/// A feature works if the operation that shows it does; others are asked for, and offered if they are given.
fn features(operations: &[Row], release: &str) -> Vec<Row> {
    let answers = |feature: Features, shown_by: Option<&str>| {
        let shown = operations.iter().find(|row| Some(row.name) == shown_by);
        shown.map(|row| row.answers.clone()).unwrap_or_else(|| {
            Column::ALL.map(|column| match column.builder().require(feature).open() {
                Ok(_) => Answer::Offered,
                Err(error) => reason::Stop::from(error).answer(column, release),
            })
        })
    };
    FEATURES
        .iter()
        .map(|(name, feature, shown_by)| Row {
            name,
            title: shown_by.unwrap_or(""),
            answers: answers(*feature, *shown_by),
        })
        .collect()
}

/// An operation that is about to be done in a column.
pub(crate) struct Attempt<'a> {
    column: Column,
    name: &'static str,
    again: Option<Again<'a>>,
}

impl Report {
    /// What came of the one thing that everything else is for, missing pages that a monitor fills.
    #[must_use]
    pub fn column(&self, column: Column) -> &Answer {
        let at = Column::ALL.iter().position(|other| *other == column).unwrap_or(0);
        let missing = self.operations.first().and_then(|row| row.answers.get(at));
        missing.unwrap_or(&Answer::Offered)
    }

    /// Whether missing pages can be had of `provider`.
    #[must_use]
    pub fn works(&self, provider: Provider) -> bool {
        Column::ALL.into_iter().any(|column| column.provider() == provider && *self.column(column) == Answer::Works)
    }

    /// Every reason why something does not work, or could not be tried, once, in the order of the report.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let openings = self.openings.iter().map(|opening| &opening.answer);
        let rows = self.operations.iter().chain(&self.features).flat_map(|row| &row.answers);
        let mechanisms = self.mechanisms.iter().map(|mechanism| &mechanism.answer);
        let mut reasons: Vec<Reason> = Vec::new();
        for answer in openings.chain(rows).chain(mechanisms) {
            if let Answer::Refused(reason) | Answer::Untried(reason) = answer
                && !reasons.contains(reason)
            {
                reasons.push(reason.clone());
            }
        }
        reasons
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, kernel) = (self.column(Column::LinuxUser), self.column(Column::LinuxKernel));
        match (user, kernel) {
            (_, Answer::Works) => writeln!(f, "linux: works, inside system calls, too")?,
            (Answer::Works, other) => writeln!(f, "linux: works for faults of user mode; inside system calls {other}")?,
            (other, _) => writeln!(f, "linux: {other}")?,
        }
        let process = self.column(Column::Process);
        let note = if *process == Answer::Works { "; system calls on missing pages fail with EFAULT" } else { "" };
        writeln!(f, "process: {process}{note}")
    }
}
