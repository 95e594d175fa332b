//! What the tests share: both providers, skipping, patterns, processes of their own.

use std::ops::Range;
use std::process::{Command, Output, Stdio};

use userfault::prelude::*;
use userfault::{Builder, Choice, Errno, SourceError, Uffd};

use crate::sandbox::{copy_program, folder};

pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("USERFAULT_REQUIRE_KERNEL").is_none_or(|value| value != "1"), "cannot run here: {why}");
    println!("skipped: because {why}");
}

/// A descriptor of each provider that this machine has.
pub(crate) fn both() -> Vec<Uffd> {
    both_with(&Builder::new())
}

pub(crate) fn both_with(builder: &Builder) -> Vec<Uffd> {
    let process = builder.clone().provider(Choice::Process).open().unwrap();
    match builder.clone().provider(Choice::Linux).open() {
        Ok(linux) => vec![process, linux],
        Err(error) => {
            skip(&error.to_string());
            vec![process]
        }
    }
}

/// A byte that tells its place.
pub(crate) fn byte_at(offset: usize) -> u8 {
    u8::try_from((offset / 4096 * 31 + offset % 251) % 255 + 1).unwrap()
}

/// The source of a region full of [`byte_at`].
pub(crate) fn pattern(pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
    let start = pages.start * (into.len() / pages.len());
    for (at, byte) in into.iter_mut().enumerate() {
        *byte = byte_at(start + at);
    }
    Ok(())
}

/// The first byte that is not [`byte_at`] its place.
pub(crate) fn first_wrong(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|at| bytes[*at] != byte_at(*at))
}

/// The name libtest has for a test.
pub(crate) fn path_of<F>(_: &F) -> String {
    let path = std::any::type_name::<F>();
    path.split_once("::").map_or(path, |(_, rest)| rest).to_owned()
}

/// What a process of its own is to do, if this is one.
pub(crate) fn role() -> Option<String> {
    std::env::var("USERFAULT_ROLE").ok()
}

/// This binary, once more, for one test and one role in it; readable for everybody.
pub(crate) fn again(test: &str, role: &str) -> Command {
    let place = folder(&format!("{}-{role}", test.replace("::", "-")));
    let binary = place.join("tests");
    copy_program(std::env::current_exe().unwrap(), &binary);
    let mut command = Command::new(binary);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("USERFAULT_ROLE", role);
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Runs it; `None`, and a word about it, if it is to run in a filter and the kernel has none.
pub(crate) fn run(mut command: Command) -> Option<Output> {
    let output = command.output();
    let binary = std::path::PathBuf::from(command.get_program());
    std::fs::remove_dir_all(binary.parent().unwrap()).unwrap();
    match output {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL.raw()) => {
            skip("the kernel has no seccomp filters");
            None
        }
        output => Some(output.unwrap()),
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The provider's name, for messages.
pub(crate) fn name(uffd: &Uffd) -> String {
    uffd.provider().to_string()
}
