//! The `userfault` command: memory that lives somewhere else, for people who write no code.
//!
//! Here are words, wiring and exit codes: 0 for success, 1 for a failure or a wrong byte, 2 for a command
//! that cannot be carried out as given.
//!
//! Kernel counterpart: none.
#![forbid(unsafe_code)]

mod args;
mod fail;
mod map;
mod memory;
mod size;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use fail::Unusable;

fn main() -> ExitCode {
    let Args { command: Command::Map(map) } = Args::parse();
    match map::run(&map) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("userfault: {error:#}");
            if error.is::<Unusable>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
