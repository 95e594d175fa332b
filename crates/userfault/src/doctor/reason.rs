//! From an error to what its reader can do about it.

use core::fmt;
use std::io;

use userfault_client::{Errno, Features, Incomplete, Provider, Refusal, UffdError};

use super::{Answer, Column};
use crate::monitor::MonitorError;
use crate::open::OpenError;

/// Why something does not work, and what to do about it.
///
/// Example: [`doctor`](crate::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What was tried.
    pub tried: String,
    /// The answer.
    pub errno: Errno,
    /// What to do; also if nothing can be done here.
    pub remedy: String,
}

impl Reason {
    /// The errno's name, such as `EPERM`; of one without a name its number.
    #[must_use]
    pub fn errno_name(&self) -> String {
        self.errno.name().map_or_else(|| self.errno.to_string(), str::to_owned)
    }

    /// All that stood in the way of opening.
    pub(super) fn all_of(error: &OpenError) -> Vec<Self> {
        let errors = error.refused().iter().map(|refused| &refused.error);
        errors
            .flat_map(|error| {
                let UffdError::Refused { tried, .. } = error else {
                    return vec![Self { tried: "open".to_owned(), errno: Errno::EINVAL, remedy: error.to_string() }];
                };
                tried.iter().cloned().map(Self::from).collect()
            })
            .collect()
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Self { tried: refusal.way.to_owned(), errno: refusal.errno, remedy: refusal.remedy.to_owned() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.tried, self.errno, self.remedy)
    }
}

/// What ends an operation early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing was opened, or not with what was required.
    Open(OpenError),
    /// A request was refused.
    Uffd(UffdError),
    /// A system call was.
    System(&'static str, Errno, String),
    /// Refused, as found in a process of its own.
    Refused(Reason),
    /// Nothing was refused so far, but it could not be tried.
    Untried(Reason),
    /// It would have to be done in a process of its own, and there is none.
    Offered,
    /// The result was not what it should be.
    Wrong(String),
}

/// Wrong, unless it is right.
pub(super) fn right(is_right: bool, otherwise: &str) -> Result<(), Stop> {
    if is_right { Ok(()) } else { Err(Stop::Wrong(otherwise.to_owned())) }
}

pub(super) fn no_thread(error: &io::Error) -> Stop {
    Stop::System("start a thread", errno_of(error), "raise the limit of threads (ulimit -u), or allow clone".to_owned())
}

/// The system's number; 0 if it was not the system.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl From<UffdError> for Stop {
    fn from(error: UffdError) -> Self {
        Self::Uffd(error)
    }
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<Incomplete> for Stop {
    fn from(incomplete: Incomplete) -> Self {
        Self::Wrong(incomplete.to_string())
    }
}

impl From<MonitorError> for Stop {
    fn from(error: MonitorError) -> Self {
        match error {
            MonitorError::Spawn(error) => no_thread(&error),
            MonitorError::Inline(error) | MonitorError::Read(error) => Self::Uffd(error),
            MonitorError::Source { .. }
            | MonitorError::SourcePanicked { .. }
            | MonitorError::Panicked { .. }
            | MonitorError::Install { .. }
            | MonitorError::Stopped { .. }
            | MonitorError::WritePanicked { .. }
            | MonitorError::Lift { .. }
            | MonitorError::AlreadyServed
            | MonitorError::OutsideRegion { .. }
            | MonitorError::Unanswerable { .. }
            | MonitorError::Forked => Self::Wrong(error.to_string()),
        }
    }
}

impl Stop {
    /// What this means in `column`, on a kernel of this release.
    pub(super) fn answer(self, column: Column, release: &str) -> Answer {
        match self {
            Self::Open(error) => match error.refused().last() {
                Some(refused) => of_error(&refused.error, column, release),
                None => Answer::Wrong(error.to_string()),
            },
            Self::Uffd(error) => of_error(&error, column, release),
            Self::System(tried, errno, remedy) => Answer::Refused(Reason { tried: tried.to_owned(), errno, remedy }),
            Self::Refused(reason) => Answer::Refused(reason),
            Self::Untried(reason) => Answer::Untried(reason),
            Self::Offered => Answer::Offered,
            Self::Wrong(what) => Answer::Wrong(what),
        }
    }
}

fn of_error(error: &UffdError, column: Column, release: &str) -> Answer {
    let provider = column.provider();
    let (tried, errno, remedy) = match error {
        // Each way has a line of its own among the openings.
        UffdError::Refused { tried, .. } => match tried.last() {
            Some(refusal) => return Answer::Refused(refusal.clone().into()),
            None => return Answer::Wrong(error.to_string()),
        },
        UffdError::FeaturesMissing { missing } => {
            (format!("{provider} with {missing}"), Errno::EINVAL, of_features(*missing, provider, release))
        }
        UffdError::ModesUnsupported { modes } => {
            (format!("{provider}: register for {modes}"), Errno::EINVAL, lacks(provider))
        }
        UffdError::Unsupported { operation, .. } => {
            (format!("{provider}: {operation}"), Errno::ENOSYS, lacks(provider))
        }
        UffdError::System { operation, errno } => ((*operation).to_owned(), *errno, of_errno(*errno).to_owned()),
        UffdError::NotInline { reason } => {
            (format!("{provider}: answer in the faulting thread"), Errno::EINVAL, (*reason).to_owned())
        }
        UffdError::SignalBlocked => ("let SIGSEGV in".to_owned(), Errno::EPERM, error.to_string()),
        UffdError::HandlerReplaced { .. } => ("keep the SIGSEGV handler".to_owned(), Errno::EBUSY, error.to_string()),
        UffdError::OutsideRegion { .. }
        | UffdError::NotWholePages { .. }
        | UffdError::ForeignWindow
        | UffdError::Lent { .. }
        | UffdError::ShutDown
        | UffdError::Forked
        | _ => return Answer::Wrong(error.to_string()),
    };
    Answer::Refused(Reason { tried, errno, remedy })
}

fn lacks(provider: Provider) -> String {
    match provider {
        Provider::Process => "the process provider does not have it yet; use the linux provider".to_owned(),
        Provider::Linux | _ => "this kernel does not have it; use a later one".to_owned(),
    }
}

pub(super) fn of_errno(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
        Errno::ENOMEM => "raise the limits of address space (ulimit -v) and of mappings (sysctl vm.max_map_count)",
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS => {
            "a seccomp filter or security module forbids it: in a container, `--security-opt seccomp=PROFILE` with a \
             profile that allows it"
        }
        _ => "see userfaultfd(2); nothing is known that would help here",
    }
}

/// The release that first had a feature.
///
/// # Source
///
/// `ioctl_userfaultfd(2)`, `UFFDIO_API`.
const SINCE: [(Features, u32, u32); 12] = [
    (Features::MOVE, 6, 8),
    (Features::WP_ASYNC, 6, 7),
    (Features::POISON, 6, 6),
    (Features::WP_UNPOPULATED, 6, 4),
    (Features::WP_HUGETLBFS_SHMEM, 5, 19),
    (Features::EXACT_ADDRESS, 5, 18),
    (Features::MINOR_SHMEM, 5, 14),
    (Features::MINOR_HUGETLBFS, 5, 13),
    (Features::PAGEFAULT_FLAG_WP, 5, 7),
    (Features::THREAD_ID, 4, 14),
    (Features::SIGBUS, 4, 14),
    (Features::NONE, 4, 11),
];

fn of_features(missing: Features, provider: Provider, release: &str) -> String {
    if provider == Provider::Process {
        return lacks(provider);
    }
    // The latest of those that are missing decides.
    let since = SINCE.iter().find(|(feature, ..)| missing.contains(*feature));
    let (major, minor) = since.map_or((0, 0), |(_, major, minor)| (*major, *minor));
    if version(release) < (major, minor) {
        return format!("use Linux {major}.{minor} or later; this is {release}");
    }
    format!(
        "Linux has it since {major}.{minor}, but this one ({release}) was built without it, or for a machine without it"
    )
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|other: char| !other.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_names_the_release_that_has_it_and_the_one_that_is_here() {
        for (missing, provider, release, expected) in [
            (Features::MOVE, Provider::Linux, "6.1.0-13-amd64", "use Linux 6.8 or later; this is 6.1.0-13-amd64"),
            (Features::MOVE | Features::POISON, Provider::Linux, "6.6", "use Linux 6.8 or later; this is 6.6"),
            (Features::POISON, Provider::Linux, "6.5.9", "use Linux 6.6 or later; this is 6.5.9"),
            (Features::EVENT_FORK, Provider::Linux, "4.4.0", "use Linux 4.11 or later; this is 4.4.0"),
            (Features::POISON, Provider::Linux, "6.10", "Linux has it since 6.6, but this one (6.10)"),
            (Features::POISON, Provider::Linux, "10.0", "Linux has it since 6.6, but this one (10.0)"),
            (Features::MOVE, Provider::Process, "5.4", "the process provider does not have it yet"),
        ] {
            let said = of_features(missing, provider, release);
            assert!(said.starts_with(expected), "{missing} on {release}: {said}");
        }
    }

    #[test]
    fn the_latest_release_is_found_first() {
        assert!(SINCE.is_sorted_by_key(|(_, major, minor)| std::cmp::Reverse((*major, *minor))));
    }

    #[test]
    fn an_error_keeps_its_errno_and_says_what_to_do() {
        let refusal = |way, errno| Refusal { way, errno, remedy: "do" };
        for (error, tried, errno, remedy) in [
            (UffdError::System { operation: "mmap", errno: Errno::ENOMEM }, "mmap", Errno::ENOMEM, "ulimit -v"),
            (UffdError::System { operation: "x", errno: Errno::EMFILE }, "x", Errno::EMFILE, "ulimit -n"),
            (UffdError::System { operation: "x", errno: Errno::EPERM }, "x", Errno::EPERM, "--security-opt seccomp="),
            (
                UffdError::Refused {
                    provider: Provider::Linux,
                    tried: vec![refusal("call", Errno::EPERM), refusal("device", Errno::EACCES)],
                },
                "device",
                Errno::EACCES,
                "do",
            ),
            (UffdError::SignalBlocked, "let SIGSEGV in", Errno::EPERM, "unblock"),
        ] {
            let Answer::Refused(reason) = of_error(&error, Column::LinuxUser, "6.1") else { panic!("{error}") };
            assert_eq!((&*reason.tried, reason.errno), (tried, errno));
            assert!(reason.remedy.contains(remedy), "{reason}");
        }
        assert!(matches!(of_error(&UffdError::ShutDown, Column::Process, ""), Answer::Wrong(_)));
    }
}
