//! Each deviation is used, and used only where it is listed.

use std::collections::BTreeMap;

use userfault_conformance::deviations;
use userfault_conformance::place::Kind;
use userfault_conformance::scenarios;

/// Deviations that no call shows, and the test that pins what we do instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("m/copy/shared", "crates/process: room_that_is_reserved_in_a_file_and_not_written_is_missing"),
    ("o/fault/preconditions", "testing/sim: names_that_outlived_what_they_named_do_nothing"),
    ("o/fault/reference", "testing/sim: a_page_that_arrives_before_the_sleeper_joins_means_retry"),
    ("o/read/sleep", "testing/sim: one_blocked_reader_is_woken_per_word_and_one_that_leaves_hands_it_on"),
    ("o/wake/all-and-order", "testing/sim: sleepers_are_woken_oldest_first"),
];

/// How often each rule was excused at a place.
fn excuses(kind: Kind) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for scenario in scenarios::ALL.iter().filter(|scenario| scenario.places().contains(&kind)) {
        for protocol in scenario.protocols() {
            let record = match kind {
                Kind::Simulator => scenario.simulate(*protocol, 0),
                Kind::Process => scenario.host(*protocol),
                Kind::Kernel => continue,
            };
            for rule in record.excuses {
                *counts.entry(rule).or_insert(0) += 1;
            }
        }
    }
    counts
}

fn check(kind: Kind) {
    let counts = excuses(kind);
    let mut idle = Vec::new();
    for deviation in deviations::all().iter().filter(|deviation| deviation.applies_at(kind)) {
        let elsewhere = ELSEWHERE.iter().find(|(rule, _)| *rule == deviation.rule);
        match (counts.get(deviation.rule), elsewhere) {
            (Some(count), _) => println!("{:<32} excused {count} times", deviation.rule),
            (None, Some((_, test))) => println!("{:<32} shown by {test}", deviation.rule),
            (None, None) => idle.push(deviation.rule),
        }
    }
    assert!(idle.is_empty(), "{}: these deviations excuse nothing: {idle:?}", kind.word());
}

#[test]
fn every_deviation_of_the_simulator_excuses_something() {
    check(Kind::Simulator);
}

#[test]
fn every_deviation_of_the_process_excuses_something() {
    check(Kind::Process);
}
