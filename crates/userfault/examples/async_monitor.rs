//! A monitor in async code: one thread waits for faults and for the network, with tokio's `AsyncFd`.
//!
//! `cargo run -p userfault --example async_monitor -- [--provider auto|linux|process]`
//!
//! The memory lives at the other end of a socket: a fault becomes a request, its answer fills the page. Exit status 1
//! if a byte is not the one that the other end has.
//!
//! A thread that runs async code must not touch a missing page, since it may be the one that would bring it. So the
//! memory is read in threads for what blocks (`spawn_blocking`).
//!
//! Invariants:
//!
//! 1. A `BorrowedFd` is open, and one and the same file, for as long as it is lent.
#![expect(unsafe_code, reason = "tokio takes whatever says that it has a descriptor, so the caller answers for that")]

mod arguments;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use userfault::prelude::*;
use userfault::{Builder, Event, Region, RegisterModes, Uffd, Wait};

const READERS: usize = 4;
const PAGES: usize = READERS * 64;

fn main() -> ExitCode {
    arguments::status(run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (provider, _) = arguments::read()?;
    let uffd = Builder::new().provider(provider).open()?;
    let region = uffd.map(PAGES, RegisterModes::MISSING)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let outcome = runtime.block_on(read_all(&uffd, &region));
    // If the monitor failed, readers sleep on: not to be waited for.
    runtime.shutdown_background();
    let is_right = outcome?;
    println!("{PAGES} pages came over a socket to {READERS} threads, by provider `{}`", uffd.provider());
    Ok(is_right)
}

/// Whether every byte in memory is the one at the other end.
async fn read_all(uffd: &Uffd, region: &Region) -> Result<bool, Box<dyn Error>> {
    let contents: Arc<[u8]> = (0..PAGES * region.page_size()).map(byte_at).collect();
    let (near, far) = UnixStream::pair()?;
    tokio::spawn(other_end(far, Arc::clone(&contents), region.page_size()));

    let mut readers = Vec::new();
    for pages in (0..READERS).map(|reader| reader * PAGES / READERS..(reader + 1) * PAGES / READERS) {
        let memory = region.shared(pages.clone())?;
        let expected = Arc::clone(&contents);
        let bytes = pages.start * region.page_size()..pages.end * region.page_size();
        readers.push(spawn_blocking(move || memory.compare(0, &expected[bytes]).is_none()));
    }
    let all_read = async {
        for reader in readers {
            if !reader.await? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    tokio::select! {
        is_right = all_read => is_right,
        failed = answer(uffd, region, near) => match failed? {},
    }
}

/// Answers faults until it is dropped, or until something fails.
async fn answer(uffd: &Uffd, region: &Region, mut source: UnixStream) -> Result<Infallible, Box<dyn Error>> {
    let descriptor = uffd.descriptor()?;
    // SAFETY: invariant 1; `descriptor` is lent until this function returns or is dropped, and the `AsyncFd` with it.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    let descriptor = registered.map_err(io::Error::from)?;
    let mut events = Vec::new();
    let mut bytes = vec![0; region.page_size()];
    loop {
        // Readiness may be spurious, and tokio hears of its edges only: read until nothing is left, then say so.
        let mut ready = descriptor.readable().await?;
        while uffd.read(Wait::Never, &mut events)? > 0 {
            for event in events.drain(..) {
                let Event::Fault(fault) = event else { continue };
                let page = region.page_at(fault.address).ok_or("a fault outside the region")?;
                source.write_u64(page as u64).await?;
                source.read_exact(&mut bytes).await?;
                // Two threads may have touched the page at once: the second finds it present.
                region.copy_missing(page, &bytes)?.complete()?;
            }
        }
        ready.clear_ready();
    }
}

/// Sends each page that is asked for, until nobody asks any more.
async fn other_end(mut socket: UnixStream, contents: Arc<[u8]>, page_size: usize) {
    while let Ok(page) = socket.read_u64().await {
        let start = usize::try_from(page).map_or(usize::MAX, |page| page.saturating_mul(page_size));
        let Some(bytes) = contents.get(start..).and_then(|rest| rest.get(..page_size)) else { return };
        if socket.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Differs from page to page and within a page; never 0, which a missing page might show.
fn byte_at(offset: usize) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9) >> 16).to_le_bytes()[0] | 1
}
