//! Faults that the faulting thread answers itself, on both providers, and the monitor behind it.
//!
//! 1. The source of this file is one of the library's, asked for even pages only.
#![expect(unsafe_code, reason = "a program's own source for handlers; the invariant above is this file's proof")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use userfault::prelude::*;
use userfault::{
    AlternateStack, AnswerInline, AskMonitor, Builder, Bytes, Choice, FileSource, InlineSource, KernelFaults, Monitor,
    MonitorBuilder, MonitorError, Protocol, Region, RegisterModes, Source, SourceError, Uffd, UffdError, Zeros,
};

use crate::support::{again, both_with, byte_at, first_wrong, name, path_of, pattern, role, run, text};

const PAGES: usize = 67;

fn both() -> Vec<Uffd> {
    both_with(&Builder::new().answer_inline())
}

/// All but the last half page, which is zeros.
fn contents() -> Vec<u8> {
    (0..PAGES * 4096 - 2048).map(byte_at).collect()
}

fn file(name: &str) -> FileSource {
    let path = std::env::temp_dir().join(format!("userfault-facade-{name}-{}", std::process::id()));
    std::fs::write(&path, contents()).unwrap();
    let source = FileSource::new(File::open(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    source
}

/// In a thread that can answer itself.
fn large<R>(body: impl FnOnce() -> R) -> R {
    let _stack = AlternateStack::ensure(0).unwrap();
    body()
}

/// Every byte of every page, page by page in steps of `step`.
fn compare(region: &Region, step: usize, expected: &[u8]) {
    let size = region.page_size();
    let shared = region.shared(0..region.pages()).unwrap();
    for page in (0..region.pages()).map(|at| at * step % region.pages()) {
        let mut bytes = vec![0; size];
        let known = expected.get(page * size..).unwrap_or_default();
        let known = known.get(..size).unwrap_or(known);
        bytes[..known.len()].copy_from_slice(known);
        assert_eq!(shared.compare(page * size, &bytes), None, "page {page}");
    }
}

fn check(serve: impl Fn(MonitorBuilder<Uffd>) -> Result<Monitor, MonitorError>, expected: &[u8]) {
    for window in [1, 3, 16] {
        for step in [1, 29] {
            for uffd in both() {
                let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
                let monitor = serve(uffd.monitor(&region).with_window(window)).unwrap();
                large(|| compare(&region, step, expected));
                let stats = monitor.join().unwrap();
                let faults = PAGES.div_ceil(window) as u64;
                let found = (stats.faults_inline, stats.faults, stats.pages_filled, stats.errors);
                assert_eq!(found, (faults, 0, PAGES as u64, 0), "{} by {window}: {stats:?}", name(&uffd));
            }
        }
    }
}

#[test]
fn every_byte_of_a_file_comes_inline() {
    let source = file("inline");
    check(|builder| builder.serve_inline(source.clone()), &contents());
}

#[test]
fn bytes_and_zeros_come_inline() {
    check(|builder| builder.serve_inline(Bytes::from(contents())), &contents());
    check(|builder| builder.serve_inline_with_threads(3, Zeros), &[]);
}

#[test]
fn threads_with_small_stacks_are_answered_by_monitors_beside_the_others() {
    for uffd in both() {
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let monitor = uffd.monitor(&region).with_window(2).serve_inline_with_threads(2, file("beside")).unwrap();
        std::thread::scope(|scope| {
            for step in [3, 7, 11] {
                let region = &region;
                scope.spawn(move || compare(region, step, &contents()));
                scope.spawn(move || large(|| compare(region, step, &contents())));
            }
        });
        let stats = monitor.join().unwrap();
        assert_eq!((stats.pages_filled, stats.errors), (PAGES as u64, 0), "{}: {stats:?}", name(&uffd));
        assert!(stats.faults + stats.faults_inline >= PAGES.div_ceil(2) as u64, "{stats:?}");
    }
    for uffd in both() {
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let monitor = uffd.monitor(&region).serve_inline(file("small")).unwrap();
        compare(&region, 1, &contents());
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults, stats.faults_inline), (PAGES as u64, 0), "{}", name(&uffd));
    }
}

/// Its form for handlers has the even pages only.
#[derive(Clone)]
struct Even(Bytes);

struct EvenInline(<Bytes as AnswerInline>::Inline);

impl Source for Even {
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        pattern(pages, into)
    }
}

impl AnswerInline for Even {
    type Inline = EvenInline;

    fn inline(&self) -> EvenInline {
        EvenInline(self.0.inline())
    }
}

// SAFETY: invariant 1.
unsafe impl InlineSource for EvenInline {
    fn fill(&self, pages: Range<usize>, into: &mut [u8]) -> Result<(), AskMonitor> {
        if pages.start.is_multiple_of(2) { self.0.fill(pages, into) } else { Err(AskMonitor) }
    }
}

#[test]
fn what_a_programs_own_source_cannot_say_in_a_handler_the_monitor_asks_it_again() {
    for uffd in both() {
        let region = uffd.map(10, RegisterModes::MISSING).unwrap();
        let all: Vec<u8> = (0..10 * 4096).map(byte_at).collect();
        let monitor = uffd.monitor(&region).serve_inline(Even(Bytes::from(all))).unwrap();
        let window = region.window(0..10).unwrap();
        assert_eq!(large(|| first_wrong(window.as_ref())), None, "{}", name(&uffd));
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults_inline, stats.faults, stats.pages_filled), (5, 5, 10), "{}", name(&uffd));
    }
}

/// Its monitor looks at a page of the very region it answers for.
#[derive(Clone)]
struct Nosy<S>(Even, S);

impl<S: userfault::client::Shared + Send + Sync + 'static> Source for Nosy<S> {
    fn fill(&mut self, pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
        let mut seen = [0; 8];
        self.1.read(0, &mut seen);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7].map(byte_at));
        self.0.fill(pages, into)
    }
}

impl<S: userfault::client::Shared + Send + Sync + 'static> AnswerInline for Nosy<S> {
    type Inline = EvenInline;

    fn inline(&self) -> EvenInline {
        self.0.inline()
    }
}

#[test]
fn a_monitor_that_touches_its_own_region_answers_itself() {
    for uffd in both() {
        let region = uffd.map(2, RegisterModes::MISSING).unwrap();
        let all: Vec<u8> = (0..2 * 4096).map(byte_at).collect();
        let source = Nosy(Even(Bytes::from(all)), region.shared(0..1).unwrap());
        let monitor = uffd.monitor(&region).serve_inline(source).unwrap();
        let odd = region.window(1..2).unwrap();
        assert_eq!(odd.as_ref()[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(|at| byte_at(4096 + at)), "{}", name(&uffd));
        let stats = monitor.join().unwrap();
        assert_eq!((stats.faults_inline, stats.faults, stats.pages_filled), (1, 1, 2), "{}", name(&uffd));
    }
}

#[test]
fn discarded_pages_come_inline_again_and_again() {
    for uffd in both() {
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let monitor = uffd.monitor(&region).with_window(4).serve_inline(file("again")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let region = &region;
                scope.spawn(move || {
                    large(|| {
                        for turn in 0..30 {
                            compare(region, 1 + turn % 5, &contents());
                            let shared = region.shared(0..PAGES).unwrap();
                            region.discard_shared(&shared, 0..PAGES).unwrap();
                        }
                    });
                });
            }
        });
        let stats = monitor.join().unwrap();
        assert!(stats.faults_inline >= 30 && stats.pages_filled >= 30 * PAGES as u64 && stats.errors == 0, "{stats:?}");
    }
}

#[test]
fn a_monitor_that_is_dropped_under_faulting_threads_loses_none_of_them() {
    for uffd in both() {
        let region = uffd.map(PAGES, RegisterModes::MISSING).unwrap();
        let (turns, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let monitor = uffd.monitor(&region).with_window(4).serve_inline(file("dropped")).unwrap();
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (region, turns, is_over) = (&region, &turns, &is_over);
                    scope.spawn(move || {
                        large(|| {
                            let shared = region.shared(0..PAGES).unwrap();
                            while !is_over.load(SeqCst) {
                                compare(region, 5, &contents());
                                region.discard_shared(&shared, 0..PAGES).unwrap();
                                turns.fetch_add(1, SeqCst);
                            }
                        });
                    })
                })
                .collect();
            while turns.load(SeqCst) < 8 {
                std::thread::yield_now();
            }
            drop(monitor);
            is_over.store(true, SeqCst);
            // They sleep by now, or will: whoever fills the pages lets them go.
            let mut bytes = contents();
            bytes.resize(PAGES * region.page_size(), 0);
            while threads.iter().any(|thread| !thread.is_finished()) {
                let _done = region.copy_missing(0, &bytes).unwrap();
                std::thread::yield_now();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}

#[test]
fn what_became_shorter_is_reported_and_then_sigbus_and_never_zeros() {
    if let Some(role) = role() {
        let choice = if role == "linux" { Choice::Linux } else { Choice::Process };
        let uffd = Builder::new().provider(choice).answer_inline().open().unwrap();
        let region = uffd.map(4, RegisterModes::MISSING).unwrap();
        let path = std::env::temp_dir().join(format!("userfault-shorter-{}", std::process::id()));
        std::fs::write(&path, vec![7; 4 * 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let source = FileSource::new(file.try_clone().unwrap()).unwrap();
        let told = |error: &MonitorError| eprintln!("told: {error}");
        let _monitor = uffd.monitor(&region).with_window(2).on_error(told).serve_inline(source).unwrap();
        file.set_len(3 * 4096).unwrap();
        let window = region.window(0..4).unwrap();
        large(|| {
            assert!(window.as_ref()[..3 * 4096].iter().all(|byte| *byte == 7));
            println!("three pages");
            println!("read {} and lived", window.as_ref()[3 * 4096]);
        });
        return;
    }
    let path = path_of(&what_became_shorter_is_reported_and_then_sigbus_and_never_zeros);
    for uffd in both() {
        let output = run(again(&path, &name(&uffd))).unwrap();
        let text = text(&output);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{text}");
        let report = "told: no contents for page 3: it had 16384 bytes when it was opened and has 12288 now";
        assert!(text.contains("three pages") && text.contains(report) && !text.contains("and lived"), "{text}");
    }
}

#[test]
fn what_cannot_be_answered_inline_is_refused_with_the_reason() {
    for (builder, reason) in [
        (Builder::new().protocol(Protocol::Original { fills: false }), "the original protocol"),
        (Builder::new().kernel_faults(KernelFaults::Require), "faults that the kernel takes"),
    ] {
        let error = builder.answer_inline().open().unwrap_err().to_string();
        assert!(error.contains("cannot be answered inline") && error.contains(reason), "{error}");
    }
    let refused = |uffd: &Uffd, modes, part: &str| {
        let region = uffd.map(1, modes).unwrap();
        let error = uffd.monitor(&region).serve_inline(Zeros).unwrap_err();
        let MonitorError::Inline(UffdError::NotInline { reason }) = error else { panic!("{error}") };
        assert!(reason.contains(part), "{reason}");
        // Nothing was begun: an ordinary monitor can serve it.
        let monitor = uffd.serve(&region, Zeros).unwrap();
        assert!(matches!(uffd.monitor(&region).serve_inline(Zeros), Err(MonitorError::AlreadyServed)));
        drop(monitor);
    };
    for uffd in both() {
        refused(&uffd, RegisterModes::MISSING | RegisterModes::WP, "write protection");
    }
    for uffd in both_with(&Builder::new().provider(Choice::Linux)).iter().filter(|uffd| name(uffd) == "linux") {
        refused(uffd, RegisterModes::MISSING, "SIGBUS feature");
    }
}
