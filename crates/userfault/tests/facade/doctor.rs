//! The doctor, asked by a program: what it leaves behind, and what it says of what it cannot see.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use userfault::client::Uffd;
use userfault::doctor::{Answer, Column, Report, examine, examine_with, let_children_be_waited_for};
use userfault::{Errno, Provider};
use userfault_signal::{Signal, handler_address};

use crate::sandbox::{Refuse, ignore_children, refuse};
use crate::support::{again, both, path_of, role, run, text};

/// What came of it in a column that can be opened here.
fn answer<'a>(report: &'a Report, name: &str, column: Column) -> &'a Answer {
    let at = Column::ALL.iter().position(|other| *other == column).unwrap();
    &report.operations.iter().find(|row| row.name == name).unwrap().answers[at]
}

/// The columns that this machine has for faults of user mode.
fn columns() -> Vec<Column> {
    let providers: Vec<Provider> = both().iter().map(Uffd::provider).collect();
    let all = [Column::LinuxUser, Column::Process];
    all.into_iter().filter(|column| providers.contains(&column.provider())).collect()
}

const ENDS_A_PROCESS: [&str; 2] = ["poison", "sigbus"];
/// Stops all of one; needs a privilege.
const FORKS: &str = "event-fork";
/// Leaves a handler in one.
const INLINE: &str = "inline";

#[test]
fn without_a_second_process_what_would_end_this_one_is_offered_and_the_rest_is_done() {
    let report = examine();
    assert_eq!(report.operations.len(), 23);
    for column in columns() {
        for row in &report.operations {
            let answer = answer(&report, row.name, column);
            let is_offered = *answer == Answer::Offered;
            if row.name != FORKS || !matches!(answer, Answer::Refused(_)) {
                let expected = [FORKS, INLINE].contains(&row.name) || ENDS_A_PROCESS.contains(&row.name);
                assert_eq!(is_offered, expected, "{}: {answer:?}", row.name);
            }
            assert!(!matches!(answer, Answer::Wrong(_)), "{}: {answer:?}", row.name);
        }
        assert_eq!(*answer(&report, "missing", column), Answer::Works);
        assert!(report.works(column.provider()));
    }
}

#[test]
fn a_process_that_does_not_end_as_it_should_is_no_proof() {
    let programs: [(&str, &[&str], &str); 3] = [
        ("true", &[], "exit status: 0"),
        // By the signal, but not at the touch.
        ("sh", &["-c", "kill -BUS $$"], "SIGBUS"),
        ("sh", &["-c", "echo touching; exit 7"], "exit status: 7"),
    ];
    for (program, arguments, said) in programs {
        let report = examine_with(&|| {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        });
        for (column, operation) in columns().into_iter().flat_map(|column| ENDS_A_PROCESS.map(|name| (column, name))) {
            let Answer::Wrong(what) = answer(&report, operation, column) else { panic!("{program}: {operation}") };
            assert!(what.contains(said), "{what}");
        }
    }
}

#[test]
fn where_a_process_cannot_be_started_nothing_is_said_to_be_refused_and_the_reason_is_told() {
    let report = examine_with(&|| Command::new("/nothing/there"));
    for column in columns() {
        let answer = answer(&report, "sigbus", column);
        let Answer::Untried(reason) = answer else { panic!("{column:?}: {answer:?}") };
        assert_eq!(answer.to_string(), "offered");
        assert_eq!((&*reason.tried, reason.errno), ("start a process", Errno::ENOENT));
        assert!(report.reasons().contains(reason));
    }
}

#[test]
fn where_a_process_cannot_be_waited_for_nothing_is_said_to_be_refused_and_the_reason_is_told() {
    let path = path_of(&where_a_process_cannot_be_waited_for_nothing_is_said_to_be_refused_and_the_reason_is_told);
    if role().is_none() {
        let mut command = again(&path, "alone");
        ignore_children(&mut command);
        let output = run(command).unwrap();
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    let tried = || {
        let report = examine_with(&|| Command::new("true"));
        columns().into_iter().map(|column| answer(&report, "sigbus", column).clone()).collect::<Vec<_>>()
    };
    for answer in tried() {
        let Answer::Untried(reason) = &answer else { panic!("{answer:?}") };
        assert_eq!((&*reason.tried, reason.errno), ("wait for a process", Errno::ECHILD));
        assert!(reason.remedy.contains("SIGCHLD"), "{reason}");
    }
    let_children_be_waited_for();
    assert!(tried().iter().all(|answer| matches!(answer, Answer::Wrong(_))), "it was waited for");
}

#[test]
fn it_leaves_no_handler_of_sigbus_no_descriptor_and_no_thread() {
    let path = path_of(&it_leaves_no_handler_of_sigbus_no_descriptor_and_no_thread);
    if role().is_none() {
        // Descriptors and threads are counted: a process of its own.
        let output = run(again(&path, "alone")).unwrap();
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    let left = || (handler_address(Signal::Bus), count("/proc/self/fd"), count("/proc/self/task"));
    let handler = handler_address(Signal::Bus);
    // What the process provider keeps once it was opened.
    drop(examine());
    assert_eq!(handler_address(Signal::Bus), handler);
    let before = left();
    drop(examine());
    assert_eq!(left(), before);
}

#[test]
fn every_reason_is_told_once_and_says_what_to_do() {
    let report = examine();
    let reasons = report.reasons();
    for (at, reason) in reasons.iter().enumerate() {
        assert!(!reasons[..at].contains(reason), "{reason}");
        assert!(!reason.tried.is_empty() && reason.remedy.len() > 10, "{reason}");
        assert!(reason.errno.name().is_some(), "{reason}");
    }
    // At the process provider a system call cannot wait, wherever this runs.
    assert!(reasons.iter().any(|reason| reason.errno == Errno::EFAULT && reason.remedy.contains("populate")));
    let lines = report.to_string();
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.lines().nth(1).unwrap().starts_with("process: works"), "{lines}");
}

const NOTHING: Refuse = Refuse::Calls(&[
    (libc::SYS_userfaultfd, libc::ENOSYS),
    (libc::SYS_ioctl, libc::EPERM),
    (libc::SYS_pwrite64, libc::EIO),
    (libc::SYS_mremap, libc::EPERM),
]);

#[test]
fn where_nothing_works_everything_says_why() {
    let path = path_of(&where_nothing_works_everything_says_why);
    if role().is_none() {
        let mut command = again(&path, "confined");
        refuse(&mut command, NOTHING);
        let Some(output) = run(command) else { return };
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    let report = examine();
    assert!(!report.works(Provider::Linux) && !report.works(Provider::Process));
    for answer in report.operations.iter().chain(&report.features).flat_map(|row| &row.answers) {
        assert!(matches!(answer, Answer::Refused(reason) if !reason.remedy.is_empty()), "{answer:?}");
    }
    let lines = report.to_string();
    assert!(lines.lines().all(|line| line.contains(": no: E")), "{lines}");
}

#[test]
fn a_program_that_forks_meanwhile_neither_stops_it_nor_is_stopped() {
    let path = path_of(&a_program_that_forks_meanwhile_neither_stops_it_nor_is_stopped);
    if role().is_none() {
        let output = run(again(&path, "alone")).unwrap();
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let forks = scope.spawn(|| {
            let mut forks = 0;
            while !is_done.load(Relaxed) {
                let mut command = Command::new("true");
                // With something to do before exec it is a fork in full, which holds the locks of malloc.
                refuse(&mut command, Refuse::Calls(&[]));
                let Ok(status) = command.status() else { break };
                assert!(status.success());
                forks += 1;
            }
            forks
        });
        let wrong: Vec<_> = (0..5)
            .flat_map(|_| examine().operations)
            .flat_map(|row| row.answers.map(|answer| (row.name, answer)))
            .filter(|(_, answer)| matches!(answer, Answer::Wrong(_)))
            .collect();
        is_done.store(true, Relaxed);
        assert_eq!(wrong, []);
        println!("{} forks meanwhile", forks.join().unwrap());
    });
}
