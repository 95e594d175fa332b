//! The `userfault` command: memory that lives somewhere else, for people who write no code.
//!
//! Here are words, wiring and exit codes: 0 for success, 1 for a failure or a wrong byte, 2 for a command
//! that cannot be carried out as given.
//!
//! Kernel counterpart: none.
#![forbid(unsafe_code)]

mod args;
mod doctor;
mod fail;
mod map;
mod memory;
mod size;
mod words;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use fail::{Unusable, said};

fn main() -> ExitCode {
    // Nobody's command: not among the words that help, manual pages and completions are made of.
    if let Some(ended) = doctor::trial(std::env::args_os().skip(1)) {
        return ended;
    }
    let done = match Args::parse().command {
        Command::Map(map) => map::run(&map),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Man(man) => words::man(man.command.as_deref()),
        Command::Completions(completions) => words::completions(completions.shell),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("userfault: {}", said(&error));
            if error.is::<Unusable>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
