//! The report of who sleeps, as somebody sees it who asks a hanging process for it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use userfault::prelude::*;
use userfault::{RegisterModes, Wait, report_sleepers_on};

use crate::support::{again, both, path_of, role};

const QUIT: i32 = 3;

/// A thread asleep at each provider, its message read; until somebody closes standard input.
fn hang() {
    let _report = report_sleepers_on(QUIT).unwrap();
    let all: Vec<_> = both().into_iter().map(|uffd| (uffd.map(3, RegisterModes::MISSING).unwrap(), uffd)).collect();
    std::thread::scope(|scope| {
        let mut reading = Vec::new();
        for (region, uffd) in &all {
            let window = region.window(1..2).unwrap();
            let name = format!("at-{}", uffd.provider());
            let sleeper = std::thread::Builder::new().name(name);
            reading.push(sleeper.spawn_scoped(scope, move || window.as_ref()[0]).unwrap());
            assert_eq!(uffd.read(Wait::Forever, &mut Vec::new()).unwrap(), 1);
            // Queued before it sleeps.
            while uffd.sleepers().unwrap().iter().all(|sleeper| sleeper.thread.is_none()) {
                std::thread::yield_now();
            }
        }
        eprintln!("ready: {}", all.len());
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        for (region, _) in &all {
            region.copy(1, &vec![7; region.page_size()]).unwrap().complete().unwrap();
        }
        reading.into_iter().for_each(|reading| assert_eq!(reading.join().unwrap(), 7));
    });
}

#[test]
fn a_hanging_process_that_is_sent_the_signal_prints_who_sleeps_where() {
    if role().is_some() {
        return hang();
    }
    let path = path_of(&a_hanging_process_that_is_sent_the_signal_prints_who_sleeps_where);
    let mut command = again(&path, "hang");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find(|line| line.starts_with("ready: ")).unwrap();
    let sleepers: usize = ready["ready: ".len()..].parse().unwrap();
    for _twice in 0..2 {
        let kill = format!("kill -QUIT {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let report: Vec<_> = lines.by_ref().take(sleepers + 1).collect();
        let process = report.iter().find(|line| line.contains("(at-process)")).unwrap();
        assert!(process.contains(", page 1 of the region at 0x"), "{report:?}");
        assert!(process.ends_with(", missing: message read, not answered"), "{report:?}");
        assert_eq!(report.iter().any(|line| line.contains("(at-linux)")), sleepers == 2, "{report:?}");
        let count = if sleepers == 2 { "2 threads sleep in faults" } else { "1 thread sleeps in a fault" };
        assert_eq!(report.last().unwrap(), &format!("userfault: {count}"));
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let binary = std::path::PathBuf::from(command.get_program());
    std::fs::remove_dir_all(binary.parent().unwrap()).unwrap();
}
