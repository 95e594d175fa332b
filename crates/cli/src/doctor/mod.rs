//! `userfault doctor`: what works on this machine, in words and for programs.
//!
//! What is tried, and what came of it, is the facade's; here it is printed.

mod json;
mod text;

use std::process::{Command, ExitCode};

use anyhow::Result;
use userfault::Provider;
use userfault::doctor::{Report, examine_with};

use crate::args::Doctor;
use crate::words;

pub(crate) fn run(doctor: &Doctor) -> Result<ExitCode> {
    let report = examine_with(&again);
    let text = if doctor.json { format!("{}\n", json::of(&report)) } else { text::of(&report, text::width()) };
    words::print(text.as_bytes())?;
    Ok(if is_any_at_work(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_any_at_work(report: &Report) -> bool {
    report.works(Provider::Linux) || report.works(Provider::Process)
}

/// This program, to do in a process of its own what ends one.
fn again() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "userfault".into()));
    command.arg("trial");
    command
}
