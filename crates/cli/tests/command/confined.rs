//! Without privilege and behind a filter, as in a container.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::sandbox::{Refuse, as_nobody, refuse};
use crate::support::{Place, bytes, map, number, readable, skip, stderr, stdout, text, value};

/// As nobody, with userfaultfd refused; `None` where the kernel has no filters.
fn confined(place: &Place, arguments: &[&str]) -> Option<Output> {
    let file = place.path.join("contents");
    let mut command = readable(&map(file, arguments), place);
    refuse(&mut command, Refuse::Userfaultfd);
    as_nobody(&mut command);
    match command.output() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            skip("the kernel has no seccomp filters");
            None
        }
        output => Some(output.unwrap()),
    }
}

#[test]
fn where_the_kernel_refuses_the_process_provider_takes_over() {
    let place = Place::new("confined");
    let path = place.file("contents", &bytes(5_000_001));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for protocol in ["modern", "original"] {
        for arguments in [&[][..], &["--provider", "process"], &["--threads", "8", "--order", "random"]] {
            let arguments = [arguments, &["--json", "--protocol", protocol]].concat();
            let Some(output) = confined(&place, &arguments) else { return };
            assert!(output.status.success(), "{arguments:?}: {}", text(&output));
            assert_eq!((value(&output, "provider"), value(&output, "protocol")), ("process".into(), protocol.into()));
            assert_eq!((number(&output, "pages"), number(&output, "mismatches")), (1221, 0));
        }
    }
    for order in ["sequential", "random"] {
        for threads in ["1", "8"] {
            let arguments = ["--json", "--answer", "inline", "--order", order, "--threads", threads];
            let Some(output) = confined(&place, &arguments) else { return };
            assert!(output.status.success(), "{arguments:?}: {}", text(&output));
            assert_eq!(value(&output, "provider"), "process");
            assert_eq!(["faults", "faults_inline", "mismatches"].map(|field| number(&output, field)), [77, 77, 0]);
        }
    }
    let Some(output) = confined(&place, &[]) else { return };
    assert!(
        stdout(&output).contains("refused: linux: userfaultfd(2) for user mode only: EPERM (1); "),
        "{}",
        text(&output)
    );
}

#[test]
fn where_the_kernel_refuses_each_way_is_told() {
    let place = Place::new("refused");
    place.file("contents", &bytes(4096));
    let Some(output) = confined(&place, &["--provider", "linux"]) else { return };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let lines = stderr(&output);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], "userfault: no userfaultfd can be opened here:");
    assert!(
        lines[1].starts_with("  linux: userfaultfd(2) for user mode only: EPERM (1); a seccomp filter"),
        "{lines:?}"
    );
    let device = "  linux: /dev/userfaultfd for user mode only: ";
    let answer = lines[2].strip_prefix(device).unwrap();
    if !std::path::Path::new("/dev/userfaultfd").exists() {
        assert!(answer.starts_with("ENOENT (2); in a container, add `--device"), "{answer}");
    } else if std::fs::metadata("/dev/userfaultfd").unwrap().permissions().mode() & 0o004 == 0 {
        assert!(answer.starts_with("EACCES (13); give the user's group the device"), "{answer}");
    } else {
        assert!(answer.starts_with("EPERM (1); a device filter"), "{answer}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_file_that_may_not_be_read_is_refused_with_the_reason() {
    let place = Place::new("unreadable");
    let path = place.file("contents", &bytes(4096));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let Some(output) = confined(&place, &[]) else { return };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(stderr(&output).contains("contents cannot be mapped: Permission denied"), "{}", text(&output));
}
