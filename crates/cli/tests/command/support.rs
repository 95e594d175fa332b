//! What the tests share: the binary, files, and what is read of the answers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::sandbox::{copy_program, folder};

/// Provider, protocol and who answers, as arguments.
pub(crate) type Way = &'static [&'static str];

const PROCESS: [Way; 3] = [
    &["--provider", "process"],
    &["--provider", "process", "--protocol", "original"],
    &["--provider", "process", "--answer", "inline"],
];
const ALL: [Way; 5] =
    [PROCESS[0], PROCESS[1], PROCESS[2], &["--provider", "linux"], &["--provider", "linux", "--answer", "inline"]];

pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("USERFAULT_REQUIRE_KERNEL").is_none_or(|value| value != "1"), "cannot run here: {why}");
    println!("skipped: because {why}");
}

/// What works on this machine.
pub(crate) fn ways() -> &'static [Way] {
    static LINUX: OnceLock<Option<String>> = OnceLock::new();
    let refused = LINUX.get_or_init(|| {
        let place = Place::new("probe");
        let output = map(place.file("empty", &[]), &["--provider", "linux"]).output().unwrap();
        (!output.status.success()).then(|| text(&output))
    });
    match refused {
        None => &ALL,
        Some(why) => {
            skip(why);
            &PROCESS
        }
    }
}

/// `userfault map FILE …`.
pub(crate) fn map(file: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_userfault"));
    command.arg("map").arg(file).args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same command, of a copy of the binary that everybody may run.
pub(crate) fn readable(command: &Command, place: &Place) -> Command {
    let binary = place.path.join("userfault");
    copy_program(command.get_program(), &binary);
    let mut copy = Command::new(binary);
    copy.args(command.get_args()).current_dir("/").stdin(Stdio::null());
    copy.stdout(Stdio::piped()).stderr(Stdio::piped());
    copy
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}{}", output.status, stdout(output), stderr(output))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A number in the line of JSON.
pub(crate) fn number(output: &Output, field: &str) -> u64 {
    value(output, field).parse().unwrap_or_else(|_| panic!("{field} is no whole number: {}", text(output)))
}

/// A value in the line of JSON, without quotes.
pub(crate) fn value(output: &Output, field: &str) -> String {
    let line = stdout(output);
    let name = format!("\"{field}\":");
    let rest = line.split(&name).nth(1).unwrap_or_else(|| panic!("no {field}: {}", text(output)));
    rest.split([',', '}']).next().unwrap().trim_matches('"').to_owned()
}

/// A folder of its own for files, gone at the end.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        Self { path: folder(name) }
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.path);
    }
}

/// Bytes that differ from page to page, none of them 0.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 4096 * 31 + at % 251) % 255 + 1).unwrap()).collect()
}

/// Bytes that a process has read so far.
pub(crate) fn bytes_read(process: u32) -> Option<u64> {
    let io = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).and_then(|number| number.parse().ok())
}
