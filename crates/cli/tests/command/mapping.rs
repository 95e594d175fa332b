//! Files that are mapped and found equal.

use crate::support::{Place, bytes, map, number, stderr, stdout, text, value, ways};

#[test]
fn every_byte_of_a_file_of_any_length_is_that_of_the_file() {
    let place = Place::new("lengths");
    for (len, pages) in [(0, 0_u64), (1, 1), (4095, 1), (4096, 1), (4097, 2), (5_000_001, 1221)] {
        let file = place.file("contents", &bytes(len));
        for way in ways() {
            for order in ["sequential", "random"] {
                for threads in ["1", "8"] {
                    let mut command = map(&file, way);
                    command.args(["--json", "--order", order, "--threads", threads]);
                    let output = command.output().unwrap();
                    let why = format!("{len} bytes, {way:?}, {order}, {threads}: {}", text(&output));
                    assert!(output.status.success(), "{why}");
                    assert_eq!(stdout(&output).lines().count(), 1, "{why}");
                    assert_eq!(stderr(&output), "", "{why}");
                    let found = ["pages", "faults", "mismatches"].map(|field| number(&output, field));
                    assert_eq!(found, [pages, pages.div_ceil(16), 0], "{why}");
                    let protocol = if way.contains(&"original") { "original" } else { "modern" };
                    assert_eq!(value(&output, "provider"), way[1], "{why}");
                    let answer = if way.contains(&"inline") { "inline" } else { "monitor" };
                    assert_eq!(
                        (value(&output, "protocol"), value(&output, "answer")),
                        (protocol.into(), answer.into())
                    );
                    // Each reader has a window of its own at a time, and fewer than there are buffers.
                    let inline = if answer == "inline" { pages.div_ceil(16) } else { 0 };
                    assert_eq!(number(&output, "faults_inline"), inline, "{why}");
                    assert!(value(&output, "seconds").parse::<f64>().unwrap() >= 0.0);
                    assert!(number(&output, "p50_ns") <= number(&output, "p99_ns"));
                    assert_eq!(number(&output, "p50_ns") > 0, pages > 0);
                    assert!(number(&output, "resident_peak_bytes") > 0);
                }
            }
        }
    }
}

#[test]
fn each_page_is_one_fault_with_windows_of_one_page() {
    let place = Place::new("single");
    let file = place.file("contents", &bytes(3_000_001));
    for way in ways() {
        for order in ["sequential", "random"] {
            for threads in ["1", "4"] {
                let mut command = map(&file, way);
                command.args(["--json", "--window", "1", "--threads", threads, "--order", order]);
                let output = command.output().unwrap();
                assert!(output.status.success(), "{way:?}: {}", text(&output));
                assert_eq!(
                    (number(&output, "pages"), number(&output, "faults")),
                    (733, 733),
                    "{way:?} {order} {threads}"
                );
            }
        }
    }
}

#[test]
fn several_monitors_answer_together() {
    let place = Place::new("monitors");
    let file = place.file("contents", &bytes(5_000_001));
    for way in ways() {
        let mut command = map(&file, way);
        command.args(["--json", "--monitors", "4", "--threads", "8", "--window", "3"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{way:?}: {}", text(&output));
        assert_eq!((number(&output, "faults"), number(&output, "mismatches")), (407, 0), "{way:?}");
    }
}

#[test]
fn memory_stays_within_what_is_allowed() {
    // The program itself, the tables of the engine and the stacks of the threads.
    const REST: u64 = 24 << 20;
    let place = Place::new("resident");
    let file = place.file("contents", &bytes(100 << 20));
    for way in ways() {
        for order in ["sequential", "random"] {
            let mut command = map(&file, way);
            command.args(["--json", "--resident", "4M", "--threads", "2", "--order", order]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{way:?}: {}", text(&output));
            assert_eq!((number(&output, "pages"), number(&output, "mismatches")), (25_600, 0));
            let peak = number(&output, "resident_peak_bytes");
            assert!(peak < (4 << 20) + REST, "{way:?} {order}: {peak}");
        }
    }
}

#[test]
fn the_least_memory_that_is_accepted_suffices() {
    let place = Place::new("least");
    let file = place.file("contents", &bytes(1_000_001));
    for way in ways() {
        // 2 × 3 + 2 windows of 4 pages.
        // With three more where readers answer themselves.
        let resident = if way.contains(&"inline") { "176K" } else { "128K" };
        let arguments = ["--json", "--threads", "3", "--monitors", "2", "--window", "4", "--resident", resident];
        let output = map(&file, way).args(arguments).output().unwrap();
        assert!(output.status.success(), "{way:?}: {}", text(&output));
        assert_eq!(number(&output, "mismatches"), 0);
    }
}

#[test]
fn the_report_for_people_has_a_picture_and_says_that_all_is_well() {
    let place = Place::new("text");
    let file = place.file("contents", &bytes(1_000_001));
    for way in ways() {
        let output = map(&file, way).args(["--order", "random"]).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        for words in
            ["1000001 bytes in 245 pages", "every byte is that of the file", "seed 1", "█", "p50", "p99", way[1]]
        {
            assert!(text.contains(words), "no `{words}` in {text}");
        }
        assert_eq!(stderr(&output), "", "no progress where nobody watches");
    }
}
