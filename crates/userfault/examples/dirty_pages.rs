//! Which pages of a region were written, found by write protection.
//!
//! `cargo run -p userfault --example dirty_pages -- [--provider auto|linux|process]`
//!
//! Protects a region, writes to some of its pages, and draws a map of those that raised a fault. Exit status 1
//! if they are not the ones that were written.

mod arguments;

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use userfault::prelude::*;
use userfault::{Builder, RegisterModes, WriteProtect};

const COLUMNS: usize = 64;
const ROWS: usize = 16;
const PAGES: usize = COLUMNS * ROWS;

fn main() -> ExitCode {
    arguments::status(run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (provider, _) = arguments::read()?;
    let uffd = Builder::new().provider(provider).open()?;
    let region = uffd.map(PAGES, RegisterModes::MISSING | RegisterModes::WP)?;
    region.zeropage(0..PAGES)?.complete()?;

    let dirty = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&dirty);
    let note = move |page| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).insert(page);
    };
    let nothing_is_missing = |_, _: &mut [u8]| Ok(());
    let monitor = uffd.monitor(&region).on_write(note).serve(nothing_is_missing)?;

    region.writeprotect(0..PAGES, WriteProtect::Protect)?;
    let memory = region.shared(0..PAGES)?;
    let written: BTreeSet<usize> = (0..PAGES).filter(|page| is_in_picture(*page)).collect();
    for page in &written {
        // Twice: only the first write to a page is a fault.
        memory.write(page * region.page_size(), b"changed!");
        memory.write(page * region.page_size() + 100, b"changed!");
    }
    let faults = monitor.join()?.write_faults;

    let dirty = dirty.lock().unwrap_or_else(PoisonError::into_inner);
    for row in 0..ROWS {
        let pages = row * COLUMNS..(row + 1) * COLUMNS;
        println!("{}", pages.map(|page| if dirty.contains(&page) { '█' } else { '·' }).collect::<String>());
    }
    println!("{} of {PAGES} pages written, {faults} faults, by provider `{}`", dirty.len(), uffd.provider());
    if *dirty != written {
        eprintln!("{} pages were written", written.len());
        return Ok(false);
    }
    Ok(true)
}

/// A ring, so that the map shows at a glance whether it is right.
fn is_in_picture(page: usize) -> bool {
    // A character is twice as high as it is wide.
    let (across, down) = ((page % COLUMNS).abs_diff(COLUMNS / 2), 2 * (page / COLUMNS).abs_diff(ROWS / 2));
    (120..=240).contains(&(across * across + down * down))
}
