//! The specification and the tests, held together in both directions. The formats: `spec/README.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use super::citations::{self, Citation};
use crate::tree::Tree;

const COVERAGE: &str = "spec/coverage.txt";
const DEVIATIONS: &str = "spec/deviations.txt";

/// The texts that define rules, in the order of the specification.
const TEXTS: [&str; 3] = ["spec/original.md", "spec/modern.md", "spec/host.md"];

/// What may be built later than everything else; the reason of a `later` begins with one of them.
#[rustfmt::skip]
const LATER: [&str; 8] = ["MINOR", "MOVE", "events", "WP_ASYNC", "shmem", "hugetlb", "fork", "adoption"];

/// What a place may lack.
#[rustfmt::skip]
const LACKS: [&str; 6] = ["descriptor", "device", "other-process", "kernel-access", "compat", "mapping-kind"];

/// Rules in the order of the specification, each with the file and line of its definition.
type Rules<'a> = Vec<(&'a str, &'a str, usize)>;

/// A line of one of the two lists: number, three words, the rest.
type Entry<'a> = (usize, [&'a str; 3], &'a str);

pub(super) fn check(tree: &Tree, findings: &mut Findings) {
    let rules: Rules = TEXTS
        .iter()
        .filter_map(|path| tree.get(path))
        .flat_map(|file| file.lines().filter_map(|(line, text)| Some((defined(text)?, file.path.as_str(), line))))
        .collect();
    let known: BTreeSet<&str> = rules.iter().map(|(id, ..)| *id).collect();
    let covers = entries(tree, COVERAGE);
    let cited = citations::of(tree, findings);
    mentions(tree, &known, findings);
    lines(&rules, &covers, findings);
    for cover in &covers {
        status(cover, findings);
        shown(cover, &cited, findings);
    }
    excuses(&known, &covers, &entries(tree, DEVIATIONS), findings);
    for citation in cited.iter().filter(|citation| !known.contains(citation.rule)) {
        let what = format!("no rule `{}`: cite an id of spec/*.md", citation.rule);
        findings.add(citation.path, citation.line, what);
    }
}

/// The id that a line of the specification defines: an item of a list or the first cell of a row.
pub(super) fn defined(line: &str) -> Option<&str> {
    let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("| "))?;
    if let Some(id) = item.strip_prefix('`').and_then(|rest| rest.split('`').next()) {
        return is_rule_path(id).then_some(id);
    }
    let id = item.trim_start_matches("**").split(' ').next()?;
    let number = id.strip_prefix(['W', 'H'])?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
}

/// Whether a word has the form `o/…` or `m/…`.
fn is_rule_path(word: &str) -> bool {
    let path = word.strip_prefix("o/").or_else(|| word.strip_prefix("m/"));
    path.is_some_and(|path| !path.is_empty() && !path.contains(is_outside_ids))
}

fn is_outside_ids(character: char) -> bool {
    !matches!(character, 'a'..='z' | '/' | '-')
}

fn entries<'a>(tree: &'a Tree, path: &str) -> Vec<Entry<'a>> {
    let lines = tree.get(path).into_iter().flat_map(|file| file.lines());
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let mut rest = line;
            let words = std::array::from_fn(|_| {
                let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
                rest = after.trim_start();
                word
            });
            (number, words, rest)
        })
        .collect()
}

/// What the specification mentions in passing must exist too.
fn mentions(tree: &Tree, known: &BTreeSet<&str>, findings: &mut Findings) {
    for file in tree.files.iter().filter(|file| file.path.starts_with("spec/")) {
        for (line, text) in file.lines() {
            for word in text.split(is_outside_ids) {
                if is_rule_path(word) && !known.contains(word) {
                    findings.add(&file.path, line, format!("no rule `{word}`: correct the id"));
                }
            }
        }
    }
}

/// The places at which a rule has a line. The original protocol exists in no kernel.
fn places(rule: &str) -> &'static [&'static str] {
    match rule.as_bytes().first() {
        Some(b'o') => &["simulator", "process"],
        Some(b'm') => &["simulator", "process", "kernel"],
        Some(b'H') => &["process"],
        _ => &["any"],
    }
}

/// Every rule has its lines, once, in the order of the specification.
fn lines(rules: &Rules, covers: &[Entry], findings: &mut Findings) {
    let mut due = BTreeMap::new();
    for (id, path, line) in rules {
        for place in places(id) {
            if due.insert((*id, *place), (due.len(), *path, *line)).is_some() {
                findings.add(path, *line, format!("`{id}` is defined twice: an id names one rule"));
            }
        }
    }
    let mut found = BTreeSet::new();
    for (line, [rule, place, _], _) in covers {
        let what = match due.get(&(*rule, *place)) {
            None => "names no rule, or not a place of it: see spec/README.md",
            Some(due) if found.last().is_some_and(|last| last >= due) => {
                "is out of order or a duplicate: keep the order of the specification"
            }
            Some(due) => {
                found.insert(*due);
                continue;
            }
        };
        findings.add(COVERAGE, *line, format!("`{rule} {place}` {what}"));
    }
    for ((rule, place), at) in due.iter().filter(|(_, at)| !found.contains(at)) {
        findings.add(at.1, at.2, format!("no line for `{rule}` at {place}: add one to {COVERAGE}"));
    }
}

/// The status is one that this kind of rule may have, with the reason that it needs.
fn status((line, [rule, _, status], reason): &Entry, findings: &mut Findings) {
    let is_behaviour = rule.contains('/');
    let is_right = match *status {
        "test" => true,
        "deviation" => is_behaviour,
        "later" if is_behaviour => LATER.iter().any(|topic| reason.starts_with(topic)),
        "later" => !reason.is_empty(),
        "note" => rule.starts_with('W') && !reason.is_empty(),
        "not-here" => rule.starts_with('H') && !reason.is_empty(),
        other => is_behaviour && other.strip_prefix("lacks:").is_some_and(|what| LACKS.contains(&what)),
    };
    if !is_right {
        let what = format!("`{rule}` cannot be `{status} {reason}`: see spec/README.md");
        findings.add(COVERAGE, *line, what);
    }
}

/// What a line claims, the tests show.
fn shown((line, [rule, place, status], _): &Entry, cited: &[Citation], findings: &mut Findings) {
    let mut tests = cited.iter().filter(|citation| citation.is_test && citation.rule == *rule);
    let here = |citation: &&Citation| *place == "any" || citation.places.contains(place);
    if *status == "test" && tests.find(here).is_none() {
        let what = format!("no test of `{rule}` at {place}: write one, below `// spec: {rule}`");
        findings.add(COVERAGE, *line, what);
    } else if *status == "deviation" && tests.next().is_none() {
        let what = format!("no test of what we do instead of `{rule}`: write one that cites it");
        findings.add(COVERAGE, *line, what);
    } else if status.starts_with("lacks:") || *status == "not-here" {
        for test in tests.filter(here) {
            let what = format!(
                "cites `{rule}` at {place}, where {COVERAGE} says `{status}`: correct the \
                 status, or state the places, `// spec(simulator): …`"
            );
            findings.add(test.path, test.line, what);
        }
    }
}

/// A deviation is written down on both sides or on neither.
fn excuses(known: &BTreeSet<&str>, covers: &[Entry], deviations: &[Entry], findings: &mut Findings) {
    let mut claimed = BTreeMap::new();
    for (line, [rule, place, status], _) in covers {
        if *status == "deviation" {
            claimed.insert((*rule, *place), *line);
        }
    }
    for (line, [rule, at, why], text) in deviations {
        let is_known = known.contains(rule) && (!why.starts_with(['W', 'H']) || known.contains(why));
        if !is_known || text.is_empty() {
            let what = "not `rule places why text`, with ids that exist: correct it";
            findings.add(DEVIATIONS, *line, what);
        }
        for place in at.split(',').filter(|place| claimed.remove(&(*rule, *place)).is_none()) {
            let what = format!("excuses `{rule}` at {place} without need, or twice: see {COVERAGE}");
            findings.add(DEVIATIONS, *line, what);
        }
    }
    for ((rule, place), line) in claimed {
        let what = format!("`{rule}` deviates at {place} unexcused: add a line to {DEVIATIONS}");
        findings.add(COVERAGE, line, what);
    }
}
