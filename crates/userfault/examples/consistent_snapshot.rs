//! A copy of memory as it was at one moment, taken while threads go on writing to it.
//!
//! `cargo run -p userfault --example consistent_snapshot -- [--provider auto|linux|process]`
//!
//! For that moment the writers are held; then everything is write-protected, and they go on. A page is copied
//! before its first change, by the monitor, or when its turn comes. A checksum of the memory from that moment
//! proves the copy. Exit status 1 if it differs.

mod arguments;

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use userfault::prelude::*;
use userfault::{Builder, Region, RegisterModes, Shared, WriteProtect};

const PAGES: usize = 4096;
const WRITERS: u64 = 4;

/// Copies of pages; each is made once, whoever comes first.
struct Snapshot {
    memory: Shared,
    page_size: usize,
    pages: Vec<OnceLock<Vec<u8>>>,
}

impl Snapshot {
    /// True if the page was not saved before.
    fn save(&self, page: usize) -> bool {
        let mut is_first = false;
        self.pages[page].get_or_init(|| {
            is_first = true;
            self.read(page)
        });
        is_first
    }

    fn read(&self, page: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.page_size];
        self.memory.read(page * self.page_size, &mut bytes);
        bytes
    }
}

/// What threads that write have in common.
#[derive(Default)]
struct Writing {
    /// Held by who writes, one write at a time; taken alone, it stops all.
    gate: RwLock<()>,
    writes: AtomicU64,
    is_over: AtomicBool,
}

fn main() -> ExitCode {
    arguments::status(run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (provider, _) = arguments::read()?;
    let uffd = Builder::new().provider(provider).open()?;
    let region = uffd.map(PAGES, RegisterModes::MISSING | RegisterModes::WP)?;
    region.zeropage(0..PAGES)?.complete()?;
    let memory = region.shared(0..PAGES)?;
    let pages = (0..PAGES).map(|_| OnceLock::new()).collect();
    let snapshot = Arc::new(Snapshot { memory: memory.clone(), page_size: region.page_size(), pages });

    let saved_first = Arc::new(AtomicU64::new(0));
    let (saving, count) = (Arc::clone(&snapshot), Arc::clone(&saved_first));
    let save = move |page| {
        count.fetch_add(u64::from(saving.save(page)), Relaxed);
    };
    let nothing_is_missing = |_, _: &mut [u8]| Ok(());
    let monitor = uffd.monitor(&region).on_write(save).serve(nothing_is_missing)?;

    let writing = Writing::default();
    let (checksum, during) = std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (writing, memory) = (&writing, &memory);
            scope.spawn(move || write_on(writing, memory, writer));
        }
        let taken = take(&region, &snapshot, &writing, &saved_first);
        writing.is_over.store(true, Relaxed);
        taken
    })?;
    monitor.join()?;

    let copy = checksum_of(snapshot.pages.iter().map(|page| page.get().cloned().unwrap_or_default()));
    let now = checksum_of((0..PAGES).map(|page| snapshot.read(page)));
    println!("provider `{}`, {PAGES} pages, {WRITERS} writers", uffd.provider());
    println!("{during} writes while the snapshot was taken; {} pages saved before a write", saved_first.load(Relaxed));
    println!(
        "memory at that moment  {checksum:016x}\nthe snapshot           {copy:016x}\nmemory now             {now:016x}"
    );
    Ok(copy == checksum && now != checksum)
}

/// Writes numbers all over the memory until it is over.
fn write_on(writing: &Writing, memory: &Shared, writer: u64) {
    let mut random = writer;
    while !writing.is_over.load(Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = usize::try_from(random >> 33).unwrap_or(0) % (memory.len_bytes() / 8);
        let _open = writing.gate.read().unwrap_or_else(PoisonError::into_inner);
        memory.write(8 * word, &random.to_ne_bytes());
        writing.writes.fetch_add(1, Relaxed);
    }
}

/// Takes the snapshot; the checksum of the memory at that moment, and how much was written meanwhile.
fn take(
    region: &Region,
    snapshot: &Snapshot,
    writing: &Writing,
    saved_first: &AtomicU64,
) -> Result<(u64, u64), userfault::UffdError> {
    // The writers have begun.
    while writing.writes.load(Relaxed) < 1000 {
        std::thread::yield_now();
    }
    let held = writing.gate.write().unwrap_or_else(PoisonError::into_inner);
    let checksum = checksum_of((0..PAGES).map(|page| snapshot.read(page)));
    let before = writing.writes.load(Relaxed);
    region.writeprotect(0..PAGES, WriteProtect::Protect)?;
    drop(held);
    // Some pages are to be saved by their writers, or this would prove little.
    while saved_first.load(Relaxed) < 10 {
        std::thread::yield_now();
    }
    for page in 0..PAGES {
        snapshot.save(page);
        region.writeprotect(page..page + 1, WriteProtect::Lift)?;
    }
    Ok((checksum, writing.writes.load(Relaxed) - before))
}

/// FNV-1a, 8 bytes at a time.
fn checksum_of(pages: impl Iterator<Item = Vec<u8>>) -> u64 {
    pages.fold(0xcbf2_9ce4_8422_2325, |sum, page| {
        let words = page.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        words.fold(sum, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
    })
}
