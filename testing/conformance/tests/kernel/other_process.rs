//! A context whose address space is another process's, or nobody's any more.
//!
//! The other process is this test program, started again with a part to play.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use userfault_conformance::place::Thread;
use userfault_conformance::real::sys;
use userfault_conformance::real::worker::Worker;

use super::common::*;

const PART: &str = "USERFAULT_PART";
const MEMORY: u64 = 0x3700_0000_0000;

/// Another process, and its two descriptors: one that has shaken hands and one that has not.
struct Other {
    child: Child,
    ready: RawFd,
    early: RawFd,
}

impl Other {
    /// Starts it: four pages are registered, and with `sleeper` one of its threads sleeps on the first.
    fn start(part: &str) -> Option<Self> {
        sys::close(ready(0)?);
        let mut child = again(part).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| Some(line.ok()?.split_once("descriptors ")?.1.to_owned())).unwrap();
        let numbers: Vec<RawFd> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let take = |number| sys::take_descriptor(child.id(), number).unwrap();
        let (ready, early) = (take(numbers[0]), take(numbers[1]));
        Some(Self { child, ready, early })
    }

    fn end(&mut self) {
        sys::kill(self.child.id(), libc::SIGKILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        sys::kill(self.child.id(), libc::SIGCONT);
        self.end();
        sys::close(self.ready);
        sys::close(self.early);
    }
}

fn again(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kernel::other_process::the_other_process_plays_its_part", "--nocapture"]);
    command.env(PART, part);
    command
}

#[test]
fn the_other_process_plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    if let Some(fd) = part.strip_prefix("after exec ") {
        let fd = fd.parse().unwrap();
        let results = (zeropage(fd, MEMORY, 1), register(fd, MEMORY, 1, 1), wake(fd, MEMORY, 1), messages(fd));
        println!("results {results:?}");
        return;
    }
    let fd = ready(0).unwrap();
    let early = sys::userfaultfd(0x800).unwrap();
    let _memory = sys::map(MEMORY, 4 * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    register(fd, MEMORY, 4, 1).unwrap();
    if part == "exec" {
        let open = sys::dup(fd).unwrap();
        let error = again(&format!("after exec {open}")).exec();
        panic!("exec: {error}");
    }
    let worker = Worker::spawn();
    if part == "sleeper" {
        assert_eq!(loads(&worker, MEMORY), Thread::Asleep);
    }
    println!("descriptors {fd} {early}");
    let _end_of_input = std::io::stdin().read(&mut [0]);
}

// spec(kernel): m/open/mm, m/api/gone, m/poll/exit, m/close/exit
#[test]
fn a_context_outlives_its_address_space_without_holding_it() {
    let Some(mut other) = Other::start("idle") else { return };
    assert_eq!(register(other.ready, MEMORY, 4, 1), Ok(()), "it means the memory of its creator");
    other.end();
    assert_eq!(zeropage(other.ready, MEMORY, 1), Err(libc::ESRCH));
    assert_eq!(writeprotect(other.ready, MEMORY, 1, 1), Err(libc::ESRCH));
    assert_eq!(register(other.ready, MEMORY, 1, 1), Err(libc::ENOMEM));
    assert_eq!(unregister(other.ready, MEMORY, 1), Err(libc::ENOMEM));
    assert_eq!(wake(other.ready, MEMORY, 1), Ok(()));
    assert_eq!(wake(other.ready, MEMORY, 0), Err(libc::EINVAL), "validation comes first");
    assert_eq!(sys::poll(other.ready), 0, "no hang-up");
    assert_eq!(messages(other.ready), 0);
    assert_eq!(api(other.ready, 0), Err(libc::EINVAL));
    assert_eq!(api(other.early, 0), Ok(()), "the handshake still works");
}

// spec(kernel): m/unregister/other-process, m/register/mm, m/fork/received
#[test]
fn any_holder_unregisters_in_the_contexts_address_space() {
    let Some(other) = Other::start("sleeper") else { return };
    assert_eq!(counts(other.ready), (1, 1));
    // Only this process has that: it is nothing to the context.
    let ours = map(1);
    assert_eq!(register(other.ready, ours, 1, 1), Err(libc::EINVAL));
    assert_eq!(unregister(other.ready, MEMORY, 4), Ok(()));
    until("the sleeper is gone", || counts(other.ready) == (0, 0));
    assert_eq!(zeropage(other.ready, MEMORY + PAGE, 1), Err(libc::ENOENT));
}

// spec(kernel): m/fault/killed
#[test]
fn a_killed_sleeper_is_forgotten() {
    for read in [false, true] {
        let Some(mut other) = Other::start("sleeper") else { return };
        assert_eq!(counts(other.ready), (1, 1));
        if read {
            assert_eq!(messages(other.ready), 1);
        }
        other.end();
        until("the sleeper is gone", || counts(other.ready) == (0, 0));
        assert_eq!(messages(other.ready), 0);
    }
}

// spec(kernel): m/fault/stopped
#[test]
fn a_stopped_sleeper_withdraws_its_message_and_sends_a_new_one() {
    let Some(other) = Other::start("sleeper") else { return };
    assert_eq!(messages(other.ready), 1);
    assert_eq!(counts(other.ready), (0, 1));
    sys::kill(other.child.id(), libc::SIGSTOP);
    until("the message is withdrawn", || counts(other.ready) == (0, 0));
    sys::kill(other.child.id(), libc::SIGCONT);
    until("there is a new one", || counts(other.ready) == (1, 1));
    assert_eq!(messages(other.ready), 1);
}

// spec(kernel): m/close/exec
#[test]
fn after_exec_a_descriptor_names_the_vanished_address_space() {
    let Some(fd) = ready(0) else { return };
    sys::close(fd);
    let output = again("exec").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("results (Err({}), Err({}), Ok(()), 0)", libc::ESRCH, libc::ENOMEM);
    assert!(text.contains(&expected), "{text}");
}
