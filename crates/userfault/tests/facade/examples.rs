//! The examples, run as a stranger runs them; each checks its own result.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{both, name, text};

/// Where cargo puts a built example; it builds them with the tests of the package.
fn built(example: &str) -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent()?.parent()?.join("examples").join(example);
    if !path.exists() {
        println!("skipped: because the examples are not built; `cargo test -p userfault` does");
        return None;
    }
    Some(path)
}

#[test]
fn each_example_finds_its_result_right_at_both_providers() {
    for uffd in both() {
        for (example, arguments, words) in [
            ("lazy_file", &[file!()][..], "pages touched"),
            ("lazy_file", &["/proc/self/exe"], " pages touched"),
            ("dirty_pages", &[], "182 of 1024 pages written, 182 faults"),
            ("consistent_snapshot", &[], "the snapshot"),
            ("adopt_array", &[], "pages written: {3, 7, 500, "),
            ("async_monitor", &[], "256 pages came over a socket to 4 threads"),
        ] {
            let Some(path) = built(example) else { return };
            // `file!()` counts from the root of the workspace.
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            let provider = name(&uffd);
            let output =
                Command::new(path).args(arguments).args(["--provider", &provider]).current_dir(root).output().unwrap();
            let text = text(&output);
            assert!(output.status.success(), "{example}: {text}");
            assert!(text.contains(words) && text.contains(&provider), "{example}: {text}");
        }
    }
}

#[test]
fn an_example_says_what_it_lacks() {
    let Some(path) = built("lazy_file") else { return };
    for (arguments, words) in [
        (&[][..], "which file?"),
        (&["--provider", "kernel"], "`kernel` is no provider"),
        (&["/"], "it is a directory"),
        (&["/nothing/there"], "No such file"),
    ] {
        let output = Command::new(&path).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(words), "{}", text(&output));
    }
}
