//! Manual pages and completions, made of the definition of the command line.
//!
//! Kernel counterpart: none.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::Args;
use crate::fail::Unusable;

/// Prints the manual page of `name`, a command of ours, or of all.
pub(crate) fn man(name: Option<&str>) -> Result<ExitCode> {
    let mut all = Args::command();
    // Fills in what subcommands inherit.
    all.build();
    let page = match name {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            let commands: Vec<&str> = all.get_subcommands().map(clap::Command::get_name).collect();
            found.ok_or_else(|| {
                Unusable(format!("`{name}` is no command: write one of {}, or none for all", commands.join(", ")))
            })?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the completions for `shell`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "userfault", &mut text);
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; whoever stops reading has seen enough.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
