//! Runs a closure of a test in a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};

use userfault_process::{Tuning, tune};

use crate::os;

const VARIABLE: &str = "USERFAULT_PROCESS_CHILD";
/// Ends a child that hangs.
const WATCHDOG_S: u32 = 100;
const WATCHDOG_VARIABLE: &str = "USERFAULT_WATCHDOG";

/// Set in a child that is to work without forced writes.
const MIRRORS: &str = "USERFAULT_WITHOUT_FORCED_WRITES";

/// How the host of this child is to work, but for what its test changes.
pub(crate) fn tuning() -> Tuning {
    Tuning { without_forced_writes: std::env::var_os(MIRRORS).is_some(), ..Tuning::default() }
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    pub(crate) has_core: bool,
    pub(crate) output: String,
}

/// In the test: runs it again as a child, and says how that ended. In the child: runs `body`, and ends.
pub(crate) fn child<F: FnOnce()>(body: F) -> Ended {
    in_child(body);
    run(&mut command::<F>())
}

/// In the child: runs `body`, and ends. In the test: nothing.
pub(crate) fn in_child(body: impl FnOnce()) {
    if std::env::var_os(VARIABLE).is_some() {
        os::no_core_files();
        let given = std::env::var(WATCHDOG_VARIABLE).ok().and_then(|text| text.parse().ok());
        os::alarm(given.unwrap_or(WATCHDOG_S));
        fail_at_once();
        if tuning() != Tuning::default() {
            tune(tuning()).unwrap();
        }
        body();
        exit(0);
    }
}

/// Runs a [`command`].
pub(crate) fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Ended {
        signal: output.status.signal(),
        code: output.status.code(),
        has_core: output.status.core_dumped(),
        output: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// This test binary, to run the test whose closure is `F` as a child.
pub(crate) fn command<F>() -> Command {
    // `process::module::test::{{closure}}`, of which libtest knows `module::test`.
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").unwrap().1.split_once("::{{closure}}").unwrap().0;
    // Not by its path: a child that changed its user may not be allowed to walk there.
    let mut command = Command::new("/proc/self/exe");
    command.args([name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]).env(VARIABLE, "1");
    command
}

/// As [`child`], for a body that is to come to its end.
pub(crate) fn alone<F: FnOnce()>(body: F) {
    check(&child(body));
}

/// As [`alone`], twice: with forced writes, and without, where pages are made ready in a mirror (M4).
pub(crate) fn alone_both_ways<F: FnOnce()>(body: F) {
    let ended = child(body);
    println!("with forced writes:");
    check(&ended);
    println!("by mirrors:");
    check(&run(command::<F>().env(MIRRORS, "1")));
}

fn check(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "signal {:?}\n{}", ended.signal, ended.output);
    // libtest puts the first line behind the name of the test.
    for at in ended.output.match_indices("measured: ").map(|(at, _)| at) {
        println!("{}", ended.output[at..].lines().next().unwrap_or_default());
    }
}

/// A failed assertion ends the child, whatever its other threads wait for.
fn fail_at_once() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        os::exit_now(101);
    }));
}
