//! Monitors in difficult places: regions that changed, a host that is short, events that come meanwhile.

use std::ops::Range;
use std::sync::{Mutex, mpsc};

use userfault::prelude::*;
use userfault::{Builder, Choice, MonitorError, RegisterModes, SourceError, process};

use crate::support::{again, both, name, path_of, role, run, text};

fn ones(_: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
    into.fill(1);
    Ok(())
}

#[test]
fn a_window_that_is_partly_unregistered_is_answered_page_by_page() {
    for uffd in both() {
        let region = uffd.map(16, RegisterModes::MISSING).unwrap();
        region.unregister(8..9).unwrap();
        let monitor = uffd.monitor(&region).with_window(16).serve(ones).unwrap();
        let window = region.window(0..16).unwrap();
        let size = region.page_size();
        for page in 0..16 {
            let expected = u8::from(page != 8);
            assert!(window.as_ref()[page * size..][..size].iter().all(|byte| *byte == expected), "{}", name(&uffd));
        }
        drop(window);
        assert_eq!(monitor.join().unwrap().errors, 0);
    }
}

#[test]
fn an_event_that_is_read_while_an_answer_waits_is_answered_next() {
    if role().is_none() {
        // Host calls fail for the whole process: one of its own.
        let path = path_of(&an_event_that_is_read_while_an_answer_waits_is_answered_next);
        let output = run(again(&path, "alone")).unwrap();
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    let uffd = Builder::new().provider(Choice::Process).open().unwrap();
    let region = uffd.map(16, RegisterModes::MISSING | RegisterModes::WP).unwrap();
    region.copy_protected(0, &vec![5; region.page_size()]).unwrap().complete().unwrap();
    let (asked, is_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let on_write = move |_| {
        asked.send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        // Short of mappings for as long as it takes to make the monitor wait once or twice.
        process::testing::fail_host_calls(0, 200);
    };
    let monitor = uffd.monitor(&region).on_write(on_write).serve(ones).unwrap();
    let (mut first, second) = (region.window(0..1).unwrap(), region.window(5..6).unwrap());
    let writer = std::thread::spawn(move || first.as_mut()[0] = 9);
    is_asked.recv().unwrap();
    let reader = std::thread::spawn(move || second.as_ref()[0]);
    while process::statistics().unwrap().asleep < 2 {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    writer.join().unwrap();
    assert_eq!(reader.join().unwrap(), 1);
    assert_eq!(monitor.join().unwrap().errors, 0);
}

#[test]
fn a_monitor_that_nobody_listens_to_says_what_failed() {
    if role().is_some() {
        let uffd = Builder::new().provider(Choice::Process).open().unwrap();
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        let source = |_: Range<usize>, _: &mut [u8]| Err(SourceError::from("the store is closed"));
        let _monitor = uffd.serve(&region, source).unwrap();
        println!("read {} and lived", region.window(0..1).unwrap().as_ref()[0]);
        return;
    }
    let output = run(again(&path_of(&a_monitor_that_nobody_listens_to_says_what_failed), "alone")).unwrap();
    let text = text(&output);
    assert!(text.contains("the store is closed") && !text.contains("and lived"), "{text}");
}

#[test]
fn a_second_monitor_of_a_descriptor_is_refused_instead_of_never_answered() {
    for uffd in both() {
        let (first, second) =
            (uffd.map(1, RegisterModes::MISSING).unwrap(), uffd.map(1, RegisterModes::MISSING).unwrap());
        let monitor = uffd.serve(&first, ones).unwrap();
        assert!(matches!(uffd.serve(&second, ones), Err(MonitorError::AlreadyServed)));
        assert_eq!(first.window(0..1).unwrap().as_ref()[0], 1);
        drop(monitor);
        assert!(matches!(uffd.serve(&first, ones), Err(MonitorError::AlreadyServed)));
    }
}
