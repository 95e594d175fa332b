//! The words of the command line: the one definition from which help, manual pages and completions come.

use std::num::{IntErrorKind, NonZeroUsize, ParseIntError};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::size::Size;

/// Page faults handled in userland, and memory that lives somewhere else.
#[derive(Debug, Parser)]
#[command(name = "userfault", bin_name = "userfault", version, after_help = EXIT_STATUS)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Map(Map),
    Doctor(Doctor),
    Man(Man),
    Completions(Completions),
}

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  it failed, or a byte was wrong
  2  the command cannot be carried out as given";

/// Maps a file as memory that a monitor brings in page by page, reads all of it through faults, and
/// compares every byte with the file.
#[derive(Debug, clap::Args)]
#[command(after_help = MAP_EXAMPLES)]
pub(crate) struct Map {
    /// A regular file of any size, also larger than memory.
    pub(crate) file: PathBuf,
    /// Who makes the faults; `auto`: linux, and where that is refused, process.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) provider: Provider,
    /// The userfaultfd protocol; `original` (of May 2015) needs the process provider.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) protocol: Protocol,
    /// Who answers a fault: `monitor`, a thread of its own; `inline`, the thread that has it (modern protocol).
    #[arg(long, value_enum, default_value_t)]
    pub(crate) answer: Answer,
    /// Threads that read the memory; as many as there are processors, unless given.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Threads that answer faults.
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) monitors: NonZeroUsize,
    /// In which order the file is read.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: Order,
    /// Which of the random orders; 1 unless given.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// Pages that one fault brings.
    #[arg(long, value_name = "PAGES", default_value = "16", allow_negative_numbers = true, value_parser = positive)]
    pub(crate) window: NonZeroUsize,
    /// Memory for pages and buffers, such as 64K, 512M or 2G; a quarter of what is free, unless given.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) resident: Option<Size>,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Map {
    /// The seed of the random order.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }
}

const MAP_EXAMPLES: &str = "\
Examples:
  userfault map disk.img
  userfault map disk.img --provider process --order random --seed 7
  userfault map disk.img --answer inline
  userfault map disk.img --threads 8 --window 1 --resident 64M --json";

/// Tells what works on this machine, for this user, found by doing it; and what to do about the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = DOCTOR_NOTES)]
pub(crate) struct Doctor {
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

const DOCTOR_NOTES: &str = "\
`works` was done here and its result was right; `offered` is what the machine says; `no` was tried and refused.

Exit status:
  0  at least one provider works
  1  none does
  2  the command cannot be carried out as given

Examples:
  userfault doctor
  userfault doctor --json | jq -r '.reasons[].remedy'";

/// Prints a manual page, for `man -l -`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  userfault man | man -l -\n  userfault man map > userfault-map.1")]
pub(crate) struct Man {
    /// Of this command; of all of `userfault`, unless given.
    pub(crate) command: Option<String>,
}

/// Prints a script that completes this command's words in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(userfault completions bash)\n  \
                        userfault completions zsh > ~/.zfunc/_userfault")]
pub(crate) struct Completions {
    /// The shell that is to read it.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Provider {
    #[default]
    Auto,
    /// The kernel's own userfaultfd.
    Linux,
    /// The engine hosted in this process; needs no privilege.
    Process,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    #[default]
    Modern,
    Original,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Answer {
    #[default]
    Monitor,
    /// In its signal handler; monitors answer where it cannot.
    Inline,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    #[default]
    Sequential,
    /// Windows in an order that depends on `--seed` alone.
    Random,
}

/// The word for a value, as it is typed.
pub(crate) fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|error: ParseIntError| {
        if *error.kind() == IntErrorKind::PosOverflow {
            return format!("`{text}` is too large: write at most {}", usize::MAX);
        }
        format!("`{text}` is not a number from 1 on: write one such as 4")
    })
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::{Arg, Command, CommandFactory};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    /// `[--order sequential|random]`, or `FILE`.
    fn shown(argument: &Arg) -> String {
        let names = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
        let values = argument.get_possible_values();
        let values: Vec<String> = values.iter().map(|value| value.get_name().to_owned()).collect();
        let value = if values.is_empty() { names.collect() } else { values.join("|") };
        match argument.get_long() {
            None if argument.is_required_set() => value,
            None => format!("[{value}]"),
            Some(long) if argument.get_action().takes_values() => format!("[--{long} {value}]"),
            Some(long) => format!("[--{long}]"),
        }
    }

    fn usage(command: &Command) -> String {
        let arguments = command.get_arguments().filter(|argument| argument.get_long() != Some("help"));
        let words: Vec<String> = arguments.map(shown).collect();
        format!("userfault {} {}", command.get_name(), words.join(" "))
    }

    #[test]
    fn the_readme_shows_the_words_there_are() {
        let readme = include_str!("../../../README.md");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let readme = words(readme);
        let mut args = Args::command();
        args.build();
        let commands = args.get_subcommands().filter(|command| !command.is_hide_set());
        for command in commands.filter(|command| command.get_name() != "help") {
            let usage = usage(command);
            assert!(readme.contains(&usage), "README.md is to show:\n{usage}");
        }
    }
}
