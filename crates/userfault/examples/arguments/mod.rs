//! What the examples share: `[--provider auto|linux|process]` and other arguments, and the exit status.

use std::error::Error;
use std::process::ExitCode;

use userfault::Choice;

/// Status 0 if the example found its result right; an error is printed.
pub(crate) fn status(result: Result<bool, Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The provider asked for, and the other arguments.
///
/// # Errors
///
/// A sentence about what cannot be understood.
pub(crate) fn read() -> Result<(Choice, Vec<String>), String> {
    let mut choice = Choice::Auto;
    let mut others = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--provider" {
            choice = arguments.next().unwrap_or_default().parse()?;
        } else {
            others.push(argument);
        }
    }
    Ok((choice, others))
}
