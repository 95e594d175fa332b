//! A file as memory of which only the pages exist that somebody looked at.
//!
//! `cargo run -p userfault --example lazy_file -- FILE [--provider auto|linux|process]`
//!
//! Prints lines from its beginning, middle and end, and how many pages that took. Exit status 1 if a line is
//! not that of the file.

mod arguments;

use std::error::Error;
use std::process::ExitCode;

use userfault::prelude::*;
use userfault::{Builder, FileSource, RegisterModes};

const SHOWN: usize = 100;

fn main() -> ExitCode {
    arguments::status(run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (provider, others) = arguments::read()?;
    let path = others.first().ok_or("which file? `cargo run -p userfault --example lazy_file -- FILE`")?;
    let file = FileSource::open(path)?;
    let len = usize::try_from(file.len_bytes())?;
    if len == 0 {
        println!("{path} is empty");
        return Ok(true);
    }

    let uffd = Builder::new().provider(provider).open()?;
    let region = uffd.map(file.pages(uffd.capabilities().page_size), RegisterModes::MISSING)?;
    let monitor = uffd.serve(&region, file)?;
    let window = region.window(0..region.pages())?;
    let memory = &window.as_ref()[..len];

    let places = [("beginning", 0), ("middle", len / 2), ("end", len.saturating_sub(SHOWN))];
    let lines: Vec<&[u8]> = places.iter().map(|(_, at)| line_after(memory, *at)).collect();
    for ((place, _), line) in places.iter().zip(&lines) {
        let shown = String::from_utf8_lossy(line).replace(char::is_control, "·");
        println!("{place:>9}  {shown}");
    }
    let touched = monitor.stats().faults;
    println!("{touched} of {} pages touched, answered by provider `{}`", region.pages(), uffd.provider());

    let contents = std::fs::read(path)?;
    let is_right = places.iter().zip(&lines).all(|((_, at), line)| line_after(&contents, *at) == *line);
    monitor.join()?;
    if !is_right {
        eprintln!("a line differs from that of the file");
    }
    Ok(is_right)
}

/// The first line that begins at `at` or behind it; at most [`SHOWN`] bytes of it.
fn line_after(bytes: &[u8], at: usize) -> &[u8] {
    let rest = &bytes[at..];
    let skipped =
        if at == 0 { 0 } else { rest.iter().take(SHOWN).position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
    let line = &rest[skipped..];
    let end = line.iter().take(SHOWN).position(|byte| *byte == b'\n').unwrap_or(SHOWN.min(line.len()));
    &line[..end]
}
