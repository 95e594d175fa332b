//! `// spec: id, id` comments: which rule, at which places, and whether a test makes them.

use super::Findings;
use crate::tree::{File, Tree};

const PLACES: [&str; 3] = ["simulator", "process", "kernel"];

/// One id of one comment.
pub(super) struct Citation<'a> {
    pub(super) path: &'a str,
    pub(super) line: usize,
    pub(super) rule: &'a str,
    pub(super) places: Vec<&'a str>,
    pub(super) is_test: bool,
}

pub(super) fn of<'a>(tree: &'a Tree, findings: &mut Findings) -> Vec<Citation<'a>> {
    // xtask speaks about citations and makes none.
    let files = tree.ending(".rs").filter(|file| !file.path.starts_with("xtask/"));
    files.flat_map(|file| of_file(file, findings)).collect()
}

fn of_file<'a>(file: &'a File, findings: &mut Findings) -> Vec<Citation<'a>> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut citations = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        let comment = text.split_once("// spec").and_then(|(_, comment)| comment.split_once(':'));
        let Some((stated, ids)) = comment else {
            continue;
        };
        let stated = stated.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let stated: Option<Vec<&str>> = stated.map(|list| list.split(',').map(str::trim).collect());
        let is_free = is_in(file, &["testing/", "crates/userfault/"]);
        if stated.as_ref().is_some_and(|list| !is_free || !list.iter().all(|p| PLACES.contains(p))) {
            let what = "places stated wrongly: `// spec(simulator,process,kernel): …`, in testing/ \
                        and crates/userfault only";
            findings.add(&file.path, index + 1, what);
        }
        let is_test = is_in(file, &["testing/conformance/"]) || belongs_to_a_test(&lines, index);
        for rule in ids.split(',').map(str::trim) {
            let places = stated.clone().unwrap_or_else(|| located(file, rule));
            citations.push(Citation { path: &file.path, line: index + 1, rule, places, is_test });
        }
    }
    citations
}

fn is_in(file: &File, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.path.starts_with(folder))
}

/// The places that a citation speaks for by where it stands.
fn located(file: &File, rule: &str) -> Vec<&'static str> {
    if is_in(file, &["crates/engine/", "testing/sim/"]) {
        vec!["simulator"]
    } else if is_in(file, &["crates/process/", "crates/signal/", "crates/memory/"]) {
        vec!["process"]
    } else if is_in(file, &["crates/linux/"]) {
        vec!["kernel"]
    } else if is_in(file, &["testing/conformance/"]) {
        PLACES.into_iter().filter(|place| *place != "kernel" || rule.starts_with("m/")).collect()
    } else {
        Vec::new()
    }
}

/// Whether line `at` stands directly above a `#[test]` function or inside one, in formatted code.
fn belongs_to_a_test(lines: &[&str], at: usize) -> bool {
    let mut below = lines[at..].iter().map(|line| line.trim_start());
    let mut prelude = below.by_ref().take_while(|line| line.starts_with("//") || line.starts_with("#["));
    if prelude.any(|line| line == "#[test]") {
        return true;
    }
    let attribute = lines[..at].iter().rposition(|line| line.trim_start() == "#[test]");
    attribute.is_some_and(|attribute| {
        let closing = lines[attribute].replace("#[test]", "}");
        !lines[attribute..at].contains(&closing.as_str())
    })
}
