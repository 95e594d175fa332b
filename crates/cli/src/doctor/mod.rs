//! `userfault doctor`: what works on this machine, in words and for programs.
//!
//! What is tried, and what came of it, is the facade's; here it is printed.

mod json;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use userfault::Provider;
use userfault::doctor::{Report, attempt, examine, examine_with, let_children_be_waited_for};

use crate::args::Doctor;
use crate::words;

pub(crate) fn run(doctor: &Doctor) -> Result<ExitCode> {
    let_children_be_waited_for();
    let report = match program(std::fs::read_link(ITSELF).is_ok(), std::env::args_os().next()) {
        Some(program) => examine_with(&|| again(&program)),
        None => examine(),
    };
    let text = if doctor.json { format!("{}\n", json::of(&report)) } else { text::of(&report, text::width()) };
    words::print(text.as_bytes())?;
    Ok(if is_any_at_work(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_any_at_work(report: &Report) -> bool {
    report.works(Provider::Linux) || report.works(Provider::Process)
}

/// Starts this program for what ends a process; its first word.
const TRIAL: &str = "trial";
/// The program itself, also where its file was replaced or removed meanwhile.
const ITSELF: &str = "/proc/self/exe";

/// Does what [`run`] has started this process for, if that is what the words say.
pub(crate) fn trial(words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let words: Vec<OsString> = words.collect();
    match words.iter().map(|word| word.to_str()).collect::<Vec<_>>()[..] {
        [Some(TRIAL), Some(operation), Some(column)] => Some(attempt(operation, column)),
        _ => None,
    }
}

/// The file of this program, and never another one of its name that is found in PATH: what that answered would be
/// said of this machine. `None` where nobody tells.
fn program(has_itself: bool, called: Option<OsString>) -> Option<PathBuf> {
    if has_itself {
        return Some(ITSELF.into());
    }
    called.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// This program, to do in a process of its own what ends one.
fn again(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(TRIAL);
    command
}

#[cfg(test)]
mod tests {
    use super::{ITSELF, program};

    #[test]
    fn the_program_is_itself_or_where_it_was_called_and_never_looked_for() {
        for (has_itself, called, expected) in [
            (true, Some("userfault"), Some(ITSELF)),
            (true, None, Some(ITSELF)),
            (false, Some("/usr/bin/userfault"), Some("/usr/bin/userfault")),
            // Relative to another folder by now, or looked for in PATH.
            (false, Some("./userfault"), None),
            (false, Some("userfault"), None),
            (false, Some(""), None),
            (false, None, None),
        ] {
            assert_eq!(program(has_itself, called.map(Into::into)), expected.map(Into::into), "{called:?}");
        }
    }
}
