//! The project's own commands: `cargo xtask tidy`, `cargo xtask ci`, `cargo xtask mutants`.
//!
//! Separate from the crates because nothing shipped may depend on it; std alone, so that it builds at once.

mod ci;
mod mutants;
mod tidy;
mod tree;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy                  check what rustc and clippy cannot: headers, unsafe files, arrows, the specification
  tidy --list-unsafe    print the files that may contain unsafe code
  ci                    run every check, in order, stopping at the first failure
  ci --list             print the steps
  ci --only a,b         run only these steps
  mutants               take each step of the ordering argument away and see its loom test fail
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["tidy"] => tidy::run(),
        ["tidy", "--list-unsafe"] => tidy::list_unsafe(),
        ["ci"] => ci::run(None),
        ["ci", "--list"] => ci::list(),
        ["ci", "--only", names] => ci::run(Some(names)),
        ["mutants"] => mutants::run(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
