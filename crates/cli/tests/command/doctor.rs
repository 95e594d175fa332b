//! `userfault doctor` tells the truth: each of its answers is compared with what the kernel says in the same sandbox.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use userfault::Errno;

use crate::raw;
use crate::sandbox::{Refuse, as_nobody, copy_program, ignore_children, refuse};
use crate::support::{Place, skip, stderr, stdout, text};

/// Who asks, and what is refused.
#[derive(Clone, Copy, Debug)]
struct Sandbox {
    nobody: bool,
    refuse: Option<Refuse>,
}

const PLAIN: Sandbox = Sandbox { nobody: false, refuse: None };
const NO_CALL: Refuse = Refuse::Calls(&[(libc::SYS_userfaultfd, libc::ENOSYS)]);
const NO_FORCED_WRITES: Refuse = Refuse::Calls(&[(libc::SYS_pwrite64, libc::EIO)]);
const NOTHING: Refuse = Refuse::Calls(&[
    (libc::SYS_userfaultfd, libc::EPERM),
    (libc::SYS_ioctl, libc::EPERM),
    (libc::SYS_pwrite64, libc::EIO),
    (libc::SYS_mremap, libc::EPERM),
]);

fn all() -> Vec<Sandbox> {
    let refusals = [None, Some(Refuse::Userfaultfd), Some(NO_CALL), Some(NO_FORCED_WRITES), Some(NOTHING)];
    [false, true].iter().flat_map(|nobody| refusals.map(|refuse| Sandbox { nobody: *nobody, refuse })).collect()
}

/// Copies of the command and of this binary, which everybody may run.
struct Programs {
    place: Place,
}

impl Programs {
    fn new(test: &str) -> Self {
        let place = Place::new(test);
        copy_program(env!("CARGO_BIN_EXE_userfault"), &place.path.join("userfault"));
        copy_program(std::env::current_exe().unwrap(), &place.path.join("tests"));
        Self { place }
    }

    /// Runs one of them in a sandbox; `None` where the kernel has no filters.
    fn run(&self, sandbox: Sandbox, program: &str, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new(self.place.path.join(program));
        command.args(arguments).env(ROLE, "raw").current_dir("/").stdin(Stdio::null());
        if let Some(what) = sandbox.refuse {
            refuse(&mut command, what);
        }
        if sandbox.nobody {
            as_nobody(&mut command);
        }
        match command.output() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                skip("the kernel has no seccomp filters");
                None
            }
            output => Some(output.unwrap()),
        }
    }

    fn doctor(&self, sandbox: Sandbox, arguments: &[&str]) -> Option<Output> {
        self.run(sandbox, "userfault", &[&["doctor"], arguments].concat())
    }

    fn report(&self, sandbox: Sandbox) -> Option<(Value, Output)> {
        let output = self.doctor(sandbox, &["--json"])?;
        assert_eq!(stdout(&output).lines().count(), 1, "{}", text(&output));
        assert_eq!(stderr(&output), "");
        Some((serde_json::from_str(&stdout(&output)).unwrap(), output))
    }

    /// What the kernel answers to each call in a sandbox.
    fn kernel(&self, sandbox: Sandbox) -> Option<impl Fn(&str) -> String + use<>> {
        let arguments = ["doctor::the_kernel_is_asked", "--exact", "--nocapture", "--test-threads=1"];
        let output = self.run(sandbox, "tests", &arguments)?;
        assert!(output.status.success(), "{}", text(&output));
        Some(move |what: &str| {
            let said = stdout(&output);
            let line = said.lines().find_map(|line| line.strip_prefix(&format!("kernel: {what}=")));
            line.unwrap_or_else(|| panic!("{what}: {}", text(&output))).to_owned()
        })
    }
}

const ROLE: &str = "USERFAULT_ROLE";

fn name(errno: i32) -> String {
    Errno::from_raw(errno).name().unwrap().to_owned()
}

/// Not a test of its own: what [`Programs::kernel`] starts this binary for.
#[test]
fn the_kernel_is_asked() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let tell = |what: &str, answer: Result<String, i32>| {
        println!("\nkernel: {what}={}", answer.unwrap_or_else(name));
    };
    let word = |()| "works".to_owned();
    tell("userfaultfd(2) for user mode only", raw::call(true).map(drop).map(word));
    tell("userfaultfd(2)", raw::call(false).map(drop).map(word));
    tell("/dev/userfaultfd for user mode only", raw::device(true).map(drop).map(word));
    tell("/dev/userfaultfd", raw::device(false).map(drop).map(word));
    tell("forced-write", raw::forced_write().map(word));
    tell("guard", raw::guard().map(word));
    tell("mremap", raw::mremap().map(word));
    let open = || raw::call(true).or_else(|_| raw::device(true));
    let fork = open().and_then(|descriptor| raw::handshake(&descriptor, 1 << 1));
    tell("EVENT_FORK", fork.map(drop).map(word));
    tell("features", open().and_then(|descriptor| raw::handshake(&descriptor, 0)).map(|bits| bits.to_string()));
}

/// `works`, `offered`, or the name of the errno.
fn word(answer: &Value) -> &str {
    assert!(matches!(answer["answer"].as_str(), Some("works" | "offered" | "refused")), "{answer}");
    let errno = answer["errno"].as_str();
    if errno.is_some() {
        assert!(answer["remedy"].as_str().unwrap().len() > 10 && !answer["tried"].as_str().unwrap().is_empty());
    }
    errno.unwrap_or_else(|| answer["answer"].as_str().unwrap())
}

#[test]
fn each_way_of_opening_is_what_the_kernel_answers_in_the_same_sandbox() {
    let programs = Programs::new("doctor-openings");
    for sandbox in all() {
        let (Some((report, output)), Some(kernel)) = (programs.report(sandbox), programs.kernel(sandbox)) else {
            return;
        };
        let openings = report["openings"].as_array().unwrap();
        let of_linux: Vec<_> = openings.iter().filter(|opening| opening["provider"] == "linux").collect();
        assert_eq!(of_linux.len(), 4);
        for opening in of_linux {
            let way = opening["way"].as_str().unwrap();
            assert_eq!(word(opening), kernel(way), "{sandbox:?}: {way}\n{}", text(&output));
        }
        let ways = ["userfaultfd(2) for user mode only", "/dev/userfaultfd for user mode only"];
        let is_open = ways.iter().any(|way| kernel(way) == "works");
        assert_eq!(report["linux"], is_open, "{sandbox:?}");
        assert_eq!(word(&report["operations"]["missing"]["linux-user"]) == "works", is_open, "{sandbox:?}");
        let is_open = ["userfaultfd(2)", "/dev/userfaultfd"].iter().any(|way| kernel(way) == "works");
        for operation in ["missing", "system-call"] {
            let answer = word(&report["operations"][operation]["linux-kernel"]);
            assert_eq!(answer == "works", is_open, "{sandbox:?}: {operation}");
        }
        if report["linux"] == true && !is_open {
            assert_eq!(word(&report["operations"]["system-call"]["linux-user"]), "EFAULT");
        }
    }
}

#[test]
fn each_feature_is_what_the_kernels_handshake_answers_in_the_same_sandbox() {
    let programs = Programs::new("doctor-features");
    for sandbox in all() {
        let (Some((report, _)), Some(kernel)) = (programs.report(sandbox), programs.kernel(sandbox)) else { return };
        let Ok(bits) = kernel("features").parse::<u64>() else {
            assert_eq!(report["linux"], false, "{sandbox:?}");
            continue;
        };
        let features = report["features"].as_object().unwrap();
        assert_eq!(features.len(), 17);
        for (name, answers) in features {
            let answer = word(&answers["linux-user"]);
            let bit = userfault_bit(name);
            match (name.as_str(), bits & bit != 0) {
                // Offered to all, given to some.
                ("EVENT_FORK", true) => assert_eq!(answer, kernel("EVENT_FORK"), "{sandbox:?}"),
                ("MISSING_HUGETLBFS" | "MINOR_HUGETLBFS", true) => assert_eq!(answer, "offered"),
                // Contents are put into the file by the same call.
                ("MINOR_SHMEM", true) => assert_eq!(answer, kernel("forced-write"), "{sandbox:?}"),
                (_, true) => assert_eq!(answer, "works", "{sandbox:?}: {name}"),
                (_, false) => assert_eq!(answer, "EINVAL", "{sandbox:?}: {name}"),
            }
        }
    }
}

/// The bit of a feature, as in the kernel's header.
fn userfault_bit(name: &str) -> u64 {
    let names = [
        "PAGEFAULT_FLAG_WP",
        "EVENT_FORK",
        "EVENT_REMAP",
        "EVENT_REMOVE",
        "MISSING_HUGETLBFS",
        "MISSING_SHMEM",
        "EVENT_UNMAP",
        "SIGBUS",
        "THREAD_ID",
        "MINOR_HUGETLBFS",
        "MINOR_SHMEM",
        "EXACT_ADDRESS",
        "WP_HUGETLBFS_SHMEM",
        "WP_UNPOPULATED",
        "POISON",
        "WP_ASYNC",
        "MOVE",
    ];
    1 << names.iter().position(|known| *known == name).unwrap()
}

#[test]
fn what_the_process_provider_uses_is_what_the_kernel_answers_in_the_same_sandbox() {
    let programs = Programs::new("doctor-mechanisms");
    for sandbox in all() {
        let (Some((report, _)), Some(kernel)) = (programs.report(sandbox), programs.kernel(sandbox)) else { return };
        let mechanism = |name: &str| word(&report["mechanisms"][name]).to_owned();
        assert_eq!(mechanism("forced-write"), kernel("forced-write"), "{sandbox:?}");
        assert_eq!(mechanism("guard"), kernel("guard"), "{sandbox:?}");
        assert_eq!((mechanism("mirror"), mechanism("alias")), (kernel("mremap"), kernel("mremap")), "{sandbox:?}");
        let has_pages = [kernel("forced-write"), kernel("mremap")].contains(&"works".to_owned());
        assert_eq!(report["process"], has_pages, "{sandbox:?}");
        for (operation, answers) in report["operations"].as_object().unwrap() {
            let expected = match operation.as_str() {
                _ if !has_pages => "EPERM",
                "system-call" => "EFAULT",
                // It is filled through a second mapping.
                "missing-shared" => &kernel("mremap"),
                "adopt" => &kernel("forced-write"),
                "move" | "minor" | "wp-shared" | "wp-async" | "event-fork" | "event-layout" => "EINVAL",
                _ => "works",
            };
            assert_eq!(word(&answers["process"]), expected, "{sandbox:?}: {operation}");
        }
    }
}

#[test]
fn the_status_is_0_if_one_provider_works_1_if_none_does_and_2_for_bad_usage() {
    let programs = Programs::new("doctor-status");
    for sandbox in all() {
        let Some((report, output)) = programs.report(sandbox) else { return };
        let works = report["linux"] == true || report["process"] == true;
        assert_eq!(output.status.code(), Some(i32::from(!works)), "{sandbox:?}");
        assert_eq!(programs.doctor(sandbox, &[]).unwrap().status.code(), output.status.code());
    }
    let none = programs.report(Sandbox { nobody: true, refuse: Some(NOTHING) }).unwrap();
    assert_eq!(none.1.status.code(), Some(1), "this sandbox leaves nothing");
    assert_eq!(programs.doctor(PLAIN, &["--jsn"]).unwrap().status.code(), Some(2));
}

#[test]
fn who_is_refused_is_told_what_to_type() {
    let programs = Programs::new("doctor-refused-told");
    let nobody = Sandbox { nobody: true, refuse: Some(Refuse::Userfaultfd) };
    let (Some(output), Some(kernel)) = (programs.doctor(nobody, &[]), programs.kernel(nobody)) else { return };
    let said = stdout(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("linux: no: E"), "{said}");
    assert_eq!(lines[1], "process: works; system calls on missing pages fail with EFAULT");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for typed in ["sysctl vm.unprivileged_userfaultfd=1", "--security-opt seccomp=", "use the process provider"] {
        assert!(words.contains(typed), "{typed}: {said}");
    }
    let device = match kernel("/dev/userfaultfd").as_str() {
        "EACCES" => "chgrp GROUP /dev/userfaultfd",
        _ => "--device /dev/userfaultfd",
    };
    assert!(words.contains(device), "{said}");
    assert!(words.contains("the process provider does not have it yet"), "{said}");
}

#[test]
fn what_ends_a_process_is_done_in_one_that_ends_by_that_signal_and_leaves_no_core() {
    let trial = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_userfault"));
        command.arg("trial").args(words).output().unwrap()
    };
    for operation in ["poison", "sigbus"] {
        let ended = trial(&[operation, "process"]);
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{}", text(&ended));
        assert!(!ended.status.core_dumped());
        assert_eq!((stdout(&ended), stderr(&ended)), ("touching\n".to_owned(), String::new()));
    }
    for words in [["missing", "process"], ["poison", "elsewhere"]] {
        let refused = trial(&words);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(words[0]), "{}", text(&refused));
    }
    let help = Command::new(env!("CARGO_BIN_EXE_userfault")).arg("--help").output().unwrap();
    assert!(!stdout(&help).contains("trial"), "it is nobody's command");
}

#[test]
fn in_a_user_namespace_nobody_is_told_to_give_a_capability_that_does_not_count_there() {
    let is_open = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|text| text.trim() != "0");
    let can = Command::new("unshare").args(["-Ur", "true"]).output().is_ok_and(|output| output.status.success());
    if is_open || !can || raw::call(true).is_err() {
        return skip("there is no user namespace, or nobody is refused in it");
    }
    let program = env!("CARGO_BIN_EXE_userfault");
    let output = Command::new("unshare").args(["-Ur", program, "doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let remedies: Vec<_> =
        report["reasons"].as_array().unwrap().iter().map(|reason| reason["remedy"].as_str()).collect();
    let named = remedies.iter().flatten().filter(|remedy| remedy.contains("CAP_SYS_PTRACE"));
    let named: Vec<_> = named.inspect(|remedy| assert!(remedy.contains("does not help"), "{remedy}")).collect();
    assert!(!named.is_empty(), "{}", text(&output));
}

/// The answers of a report at the process provider to what is done in a process of its own.
fn tried_elsewhere(report: &Value) -> Vec<&str> {
    let operations = ["poison", "sigbus", "inline"];
    operations.iter().map(|name| word(&report["operations"][name]["process"])).collect()
}

#[test]
fn it_starts_itself_wherever_it_is_and_whatever_it_has_inherited() {
    let programs = Programs::new("doctor-itself");
    let mut ignoring = Command::new(programs.place.path.join("userfault"));
    ignoring.args(["doctor", "--json"]);
    ignore_children(&mut ignoring);
    // Its own file is gone, and a stranger has its name.
    let mut gone = Command::new("sh");
    let script =
        "exec 9< userfault; rm userfault; ln -s /bin/true userfault; PATH=$PWD:$PATH; exec /proc/self/fd/9 \"$@\"";
    gone.args(["-c", script, "sh", "doctor", "--json"]);
    for command in [&mut ignoring, &mut gone] {
        let output = command.current_dir(&programs.place.path).stdin(Stdio::null()).output().unwrap();
        let report = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", text(&output)));
        assert_eq!(tried_elsewhere(&report), ["works"; 3], "{command:?}: {}", text(&output));
    }
}

#[test]
fn what_is_refused_to_its_own_threads_and_processes_is_no_wrong_result() {
    let programs = Programs::new("doctor-itself-refused");
    const NO_THREAD: Refuse = Refuse::Calls(&[(libc::SYS_clone3, libc::EPERM), (libc::SYS_clone, libc::EPERM)]);
    const NO_LIMIT: Refuse = Refuse::Calls(&[(libc::SYS_prlimit64, libc::EPERM)]);
    const NO_WAIT: Refuse = Refuse::Calls(&[(libc::SYS_ppoll, libc::EPERM)]);
    const NO_FCNTL: Refuse = Refuse::Calls(&[(libc::SYS_fcntl, libc::EPERM)]);
    for (what, elsewhere) in [
        (NO_THREAD, Some(["EPERM"; 3])),
        (NO_LIMIT, Some(["EPERM", "EPERM", "works"])),
        (NO_WAIT, None),
        (NO_FCNTL, None),
    ] {
        let Some((report, output)) = programs.report(Sandbox { nobody: false, refuse: Some(what) }) else { return };
        for operation in report["operations"].as_object().unwrap().values() {
            operation.as_object().unwrap().values().for_each(|answer| assert_ne!(word(answer), "wrong"));
        }
        if let Some(elsewhere) = elsewhere {
            assert_eq!(tried_elsewhere(&report), elsewhere, "{}", text(&output));
        }
        for operation in ["poison", "sigbus"] {
            let answer = &report["operations"][operation]["process"]["answer"];
            assert!(elsewhere.is_none() || answer == "offered", "{operation}: {}", text(&output));
        }
    }
}

#[test]
fn the_readme_shows_the_table_of_a_machine_that_has_everything() {
    let programs = Programs::new("doctor-readme");
    let (report, _) = programs.report(PLAIN).unwrap();
    if report["operations"]["move"]["linux-kernel"]["answer"] != "works" {
        return skip("this machine does not have everything");
    }
    let said = stdout(&programs.doctor(PLAIN, &[]).unwrap());
    let table = said.split("\n\n").find(|part| part.starts_with("| operation ")).unwrap();
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(table), "README.md is to show:\n{table}");
}
