//! The words of the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::size::Size;

/// Page faults, handled in userland.
#[derive(Debug, Parser)]
#[command(name = "userfault", bin_name = "userfault", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Map(Map),
}

/// Maps a file as memory that a monitor brings in page by page, reads all of it through faults, and
/// compares every byte with the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Map {
    /// A regular file of any size, also larger than memory.
    pub(crate) file: PathBuf,
    /// Who makes the faults; `auto`: linux, and where that is refused, process.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) provider: Provider,
    /// The userfaultfd protocol; `original` (of May 2015) needs the process provider.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) protocol: Protocol,
    /// Who answers a fault: `monitor`, a thread of its own.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) answer: Answer,
    /// Threads that read the memory; as many as there are processors, unless given.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Threads that answer faults.
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub(crate) monitors: NonZeroUsize,
    /// In which order the file is read.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: Order,
    /// Which random order.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Pages that one fault brings.
    #[arg(long, value_name = "PAGES", default_value = "16", value_parser = positive)]
    pub(crate) window: NonZeroUsize,
    /// Memory for pages and buffers, such as 64K, 512M or 2G; a quarter of what is free, unless given.
    #[arg(long, value_name = "SIZE")]
    pub(crate) resident: Option<Size>,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
    text.parse().map_err(|_| format!("`{text}` is not a number from 1 on: write one such as 4"))
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
