//! Files that cannot be mapped, or change meanwhile; commands that cannot be carried out.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::sandbox::{Refuse, refuse};
use crate::support::{Place, bytes, bytes_read, map, number, skip, stderr, stdout, text, ways};

#[test]
fn a_command_that_cannot_be_carried_out_is_refused_with_the_reason() {
    let place = Place::new("unusable");
    let file = place.file("contents", &bytes(1_000_000));
    for (arguments, reason) in [
        (
            &["--provider", "linux", "--protocol", "original"][..],
            "no released kernel speaks it; use --provider process",
        ),
        (&["--provider", "process", "--threads", "8", "--resident", "1M"], "need 1.06 MiB"),
        (
            &["--provider", "process", "--resident", "127K", "--threads", "3", "--monitors", "2", "--window", "4"],
            "need 128K",
        ),
        (&["--resident", "much"], "`much` is no size"),
        (&["--window", "0"], "--window"),
        (&["--threads", "0"], "--threads"),
        (&["--answer", "oneself"], "possible values: monitor, inline"),
        (&["--answer", "inline", "--protocol", "original"], "which knows no fills: leave one of them out"),
        (
            &["--answer", "inline", "--resident", "175K", "--threads", "3", "--monitors", "2", "--window", "4"],
            "each monitor and each reader that answers itself one to fill): give --resident 180224",
        ),
        (&["--provider", "process", "--seed", "3"], "add --order random or leave out --seed"),
        (&["--provider", "kernel"], "possible values: auto, linux, process"),
    ] {
        let output = map(&file, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", text(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_reason_is_printed_once() {
    let place = Place::new("no-threads");
    let file = place.file("contents", &bytes(1_000));
    let mut command = map(&file, &["--provider", "process"]);
    refuse(&mut command, Refuse::Calls(&[(libc::SYS_clone3, libc::EPERM), (libc::SYS_clone, libc::EPERM)]));
    let output = match command.output() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return skip("the kernel has no seccomp filters"),
        output => output.unwrap(),
    };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(stderr(&output).starts_with("userfault: a monitor thread cannot be started: "), "{}", text(&output));
    assert_eq!(stderr(&output).matches("os error 1").count(), 1, "{}", text(&output));
}

#[test]
fn what_is_no_readable_file_is_refused_with_the_reason() {
    let place = Place::new("no-file");
    let pipe = place.path.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, reason) in [
        (place.path.clone(), "it is a directory"),
        (pipe, "it is a pipe"),
        ("/dev/zero".into(), "it is a device"),
        ("/proc/meminfo".into(), "as files in /proc do; copy it first"),
        (place.path.join("nothing"), "No such file"),
    ] {
        let output = map(&path, &["--provider", "process"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let start = format!("userfault: {} cannot be mapped: ", path.display());
        assert!(stderr(&output).starts_with(&start) && stderr(&output).contains(reason), "{}", text(&output));
    }
}

#[test]
fn a_file_that_gives_errors_ends_the_command_with_the_place() {
    let place = Place::new("eio");
    let file = place.file("contents", &bytes(5_000_001));
    for way in ways() {
        for (order, threads, window) in [("sequential", "1", "16"), ("random", "8", "16"), ("sequential", "8", "1")] {
            // The loader reads the beginning of libraries in this way.
            for from in [65_536, 2_000_000, 4_900_000] {
                let mut command = map(&file, way);
                command.args(["--json", "--order", order, "--threads", threads, "--window", window]);
                refuse(&mut command, Refuse::ReadsFrom(from));
                let output = match command.output() {
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        return skip("the kernel has no seccomp filters");
                    }
                    output => output.unwrap(),
                };
                let why = format!("{way:?} {order} {threads} {window} {from}: {}", text(&output));
                assert_eq!(output.status.code(), Some(1), "{why}");
                assert_eq!(stdout(&output), "", "{why}");
                assert!(stderr(&output).contains("Input/output error"), "{why}");
                assert_eq!(stderr(&output).lines().count(), 1, "{why}");
                let told = stderr(&output)
                    .split("reading at byte ")
                    .nth(1)
                    .map(|rest| rest.split(' ').next().unwrap().to_owned());
                assert!(told.unwrap().parse::<u32>().unwrap() >= from / 4096 * 4096, "{why}");
            }
        }
    }
}

#[test]
fn a_file_that_shrinks_ends_the_command_with_both_lengths() {
    const LEN: u64 = 4 << 30;
    let place = Place::new("shrinks");
    for way in ways() {
        for order in ["sequential", "random"] {
            let path = place.path.join("contents");
            let file = File::create(&path).unwrap();
            file.set_len(LEN).unwrap();
            let mut command = map(&path, way);
            command.args(["--json", "--resident", "16M", "--window", "4", "--threads", "3", "--order", order]);
            let mut child = command.spawn().unwrap();
            // A part of it was read, and much is left.
            while bytes_read(child.id()).is_some_and(|bytes| bytes < 20 << 20) && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            file.set_len(4096).unwrap();
            let output = child.wait_with_output().unwrap();
            let why = format!("{way:?} {order}: {}", text(&output));
            assert_eq!(output.status.code(), Some(1), "{why}");
            assert_eq!(stdout(&output), "", "{why}");
            assert!(stderr(&output).contains("it had 4294967296 bytes when it was opened and has 4096 now"), "{why}");
        }
    }
}

#[test]
fn a_file_that_loses_its_name_is_read_to_its_end() {
    let place = Place::new("vanishes");
    for way in ways() {
        let path = place.file("contents", &bytes(20_000_001));
        let mut command = map(&path, way);
        command.args(["--json", "--window", "1", "--threads", "1"]);
        let child = command.spawn().unwrap();
        while bytes_read(child.id()).is_some_and(|bytes| bytes < 1 << 20) {
            std::thread::yield_now();
        }
        std::fs::remove_file(&path).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!((number(&output, "pages"), number(&output, "mismatches")), (4883, 0));
    }
}

#[test]
fn a_file_that_others_write_to_is_not_called_equal() {
    let place = Place::new("written");
    const LEN: usize = 4 << 20;
    let path = place.file("contents", &vec![0; LEN]);
    let file = File::options().write(true).open(&path).unwrap();
    for way in ways() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Each byte is another one from round to round.
                for round in (0..u8::MAX).cycle() {
                    for page in 0..LEN / 4096 {
                        file.write_all_at(&[round; 4096], page as u64 * 4096).unwrap();
                    }
                    if done.load(SeqCst) {
                        break;
                    }
                }
            });
            let mut differed = false;
            // The writer must get its turn between two reads of a window; so ask until it had one.
            while !differed {
                let output = map(&path, way).args(["--json", "--window", "64"]).output().unwrap();
                let mismatches = number(&output, "mismatches");
                differed = mismatches > 0;
                assert_eq!(output.status.code(), Some(i32::from(differed)), "{}", text(&output));
            }
            done.store(true, SeqCst);
        });
    }
}

#[test]
fn who_reads_only_the_beginning_of_the_report_is_no_error() {
    let place = Place::new("pipe");
    let file = place.file("contents", &bytes(1_000_000));
    let mut child = map(&file, &["--provider", "process"]).spawn().unwrap();
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(child.wait().unwrap().success(), "{complaint}");
    assert_eq!(complaint, "");
}
