//! Sources that fail: a report first, then SIGBUS; never a hang, never zeros.

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use userfault::prelude::*;
use userfault::{Builder, Choice, FileSource, MonitorError, Protocol, RegisterModes, SourceError, Uffd};

use crate::sandbox::{Refuse, refuse};
use crate::support::{again, both, name, path_of, role, run, text};

fn fails(_: Range<usize>, _: &mut [u8]) -> Result<(), SourceError> {
    Err(SourceError::from("the store is closed"))
}

fn panics(_: Range<usize>, _: &mut [u8]) -> Result<(), SourceError> {
    panic!("index out of ideas")
}

/// Opens what a role names.
fn open(role: &str) -> Uffd {
    let builder = Builder::new();
    let builder =
        if role.contains("linux") { builder.provider(Choice::Linux) } else { builder.provider(Choice::Process) };
    let original = Protocol::Original { fills: false };
    if role.contains("original") { builder.protocol(original) } else { builder }.open().unwrap()
}

/// Touches memory whose contents cannot be had.
fn touch_in_vain(role: &str) {
    let uffd = open(role);
    let region = uffd.map(4, RegisterModes::MISSING).unwrap();
    let exits = role.contains("exits");
    let builder = uffd.monitor(&region).with_window(2).on_error(move |error| {
        eprintln!("told: {error}");
        if exits {
            std::process::exit(3);
        }
    });
    let _monitor = if role.contains("panics") { builder.serve(panics) } else { builder.serve(fails) }.unwrap();
    let window = region.window(0..4).unwrap();
    println!("read {} and lived", window.as_ref()[region.page_size()]);
}

#[test]
fn who_waits_for_a_page_that_cannot_be_had_gets_sigbus_after_the_report() {
    if let Some(role) = role() {
        return touch_in_vain(&role);
    }
    let path = path_of(&who_waits_for_a_page_that_cannot_be_had_gets_sigbus_after_the_report);
    let fails = "told: no contents for page 1: the store is closed";
    let panics = "told: no contents for page 1: the source panicked: index out of ideas";
    for uffd in both() {
        let provider = name(&uffd);
        for (what, report, signal, code) in [
            ("fails", fails, Some(libc::SIGBUS), None),
            ("panics", panics, Some(libc::SIGBUS), None),
            ("fails-exits", fails, None, Some(3)),
            ("panics-exits", panics, None, Some(3)),
        ] {
            let output = run(again(&path, &format!("{provider}-{what}"))).unwrap();
            let text = text(&output);
            assert_eq!((output.status.signal(), output.status.code()), (signal, code), "{provider} {what}: {text}");
            assert!(text.contains(report), "{provider} {what}: {text}");
            assert!(!text.contains("and lived"), "{text}");
        }
    }
}

#[test]
fn where_pages_cannot_be_poisoned_the_process_ends() {
    if let Some(role) = role() {
        return touch_in_vain(&role);
    }
    let path = path_of(&where_pages_cannot_be_poisoned_the_process_ends);
    let output = run(again(&path, "original-fails")).unwrap();
    let text = text(&output);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{text}");
    assert!(text.contains("told: no contents for page 1: the store is closed"), "{text}");
    assert!(text.contains("page 1 has no contents"), "{text}");
    let output = run(again(&path, "original-fails-exits")).unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_file_that_cannot_be_read_is_reported_with_the_place() {
    if role().is_some() {
        let uffd = open("process");
        let source = FileSource::open("/proc/self/exe").unwrap();
        let pages = source.pages(4096);
        let region = uffd.map(pages, RegisterModes::MISSING).unwrap();
        let on_error = |error: &MonitorError| {
            eprintln!("told: {error}");
            std::process::exit(3);
        };
        let _monitor = uffd.monitor(&region).with_window(16).on_error(on_error).serve(source).unwrap();
        let window = region.window(0..pages).unwrap();
        println!("read {} and lived", window.as_ref().iter().fold(0, |sum, byte| sum ^ byte));
        return;
    }
    let path = path_of(&a_file_that_cannot_be_read_is_reported_with_the_place);
    let mut command = again(&path, "eio");
    refuse(&mut command, Refuse::ReadsFrom(16 * 4096));
    let Some(output) = run(command) else { return };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("told: no contents for page 16: reading at byte 65536 failed: Input/output error"), "{text}");
}

#[test]
fn join_tells_the_first_error_and_the_callback_comes_before_the_poison() {
    for uffd in both() {
        let region = uffd.map(2, RegisterModes::MISSING).unwrap();
        let rescue = region.clone();
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        // Brings the page itself, so that the poison comes too late and the reader lives.
        let on_error = move |error: &MonitorError| {
            let MonitorError::Source { page, .. } = error else { panic!("{error}") };
            count.fetch_add(1, SeqCst);
            assert!(rescue.copy(*page, &vec![8; rescue.page_size()]).is_ok());
        };
        let monitor = uffd.monitor(&region).on_error(on_error).serve(fails).unwrap();
        let window = region.window(0..2).unwrap();
        assert!(window.as_ref().iter().all(|byte| *byte == 8), "{}", name(&uffd));
        assert_eq!((monitor.stats().errors, told.load(SeqCst)), (2, 2));
        let error = monitor.join().unwrap_err();
        assert_eq!(error.to_string(), "no contents for page 0: the store is closed");
    }
}

#[test]
fn a_source_that_panicked_is_not_asked_again() {
    for uffd in both() {
        let region = uffd.map(2, RegisterModes::MISSING).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = move |_: Range<usize>, _: &mut [u8]| -> Result<(), SourceError> {
            counted.fetch_add(1, SeqCst);
            panic!("once")
        };
        let rescue = region.clone();
        let on_error = move |error: &MonitorError| {
            let MonitorError::SourcePanicked { page, .. } = error else { panic!("{error}") };
            assert!(rescue.copy(*page, &vec![8; rescue.page_size()]).is_ok());
        };
        let monitor = uffd.monitor(&region).on_error(on_error).serve(source).unwrap();
        assert!(region.window(0..2).unwrap().as_ref().iter().all(|byte| *byte == 8));
        let error = monitor.join().unwrap_err();
        assert!(matches!(&error, MonitorError::SourcePanicked { page: 0, message } if message == "once"), "{error}");
        assert_eq!(calls.load(SeqCst), 1, "{}", name(&uffd));
    }
}
