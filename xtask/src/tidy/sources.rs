//! Headers, listed unsafe files, sizes, unfinished work, and the paths that documents name.

use super::Findings;
use crate::tree::{File, Tree};

const MOST_LINES: usize = 500;
const MOST_TEST_LINES: usize = 900;

/// Spelled in pieces, so that this file does not find itself.
#[rustfmt::skip]
const UNFINISHED: [&str; 5] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("to", "do!"), concat!("unimple", "mented!")];

const FOLDERS: [&str; 8] = ["crates/", "testing/", "xtask/", "spec/", "docs/", "examples/", "fuzz/", "bench/"];

pub(super) fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.ending(".rs") {
        shape(file, findings);
        unsafe_code(tree, file, findings);
    }
    for file in tree.ending(".md") {
        named_paths(tree, file, findings);
    }
}

fn shape(file: &File, findings: &mut Findings) {
    if !file.text.starts_with("//! ") {
        findings.add(&file.path, 1, "no header: open the file with a `//!` sentence");
    }
    let is_tests = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
    let most = if is_tests { MOST_TEST_LINES } else { MOST_LINES };
    let count = file.text.lines().count();
    if count > most {
        let what = format!("more than {most} lines: split by subject; unit tests go to tests.rs");
        findings.add(&file.path, count, what);
    }
    for (line, text) in file.lines() {
        if let Some(word) = UNFINISHED.iter().find(|word| text.contains(**word)) {
            findings.add(&file.path, line, format!("`{word}`: finish it, or leave it out"));
        }
    }
}

pub(super) fn expects_unsafe(file: &File) -> bool {
    // In one line or, where that is too long for the formatter, in several.
    let forms = ["\n#![expect(unsafe_code", "\n#![expect(\n    unsafe_code"];
    forms.iter().any(|form| file.text.contains(form))
}

fn unsafe_code(tree: &Tree, file: &File, findings: &mut Findings) {
    let mut listed = expects_unsafe(file);
    let mut header = file.text.lines().map_while(|line| line.strip_prefix("//!"));
    if listed && !header.any(|line| line.trim_start().starts_with("1. ")) {
        let what = "unsafe code without invariants: number them in the header (`//! 1. …`)";
        findings.add(&file.path, 1, what);
    }
    // The root of an integration test speaks for the modules beside it.
    let root = file.path.rsplit_once('/').filter(|(folder, _)| folder.contains("/tests/"));
    let root = root.and_then(|(folder, _)| tree.get(&format!("{folder}/main.rs")));
    listed |= root.is_some_and(expects_unsafe);
    for (line, text) in file.lines() {
        let code = text.split("//").next().unwrap_or_default();
        let attribute = code.trim_start();
        let is_usual = ["#![expect(", "#![deny(", "#![forbid("].iter().any(|form| attribute.starts_with(form));
        if attribute.starts_with('#') && attribute.contains("(unsafe_code") && !is_usual {
            let what = "unsafe code admitted in another form: `#![expect(unsafe_code, reason = …)]`";
            findings.add(&file.path, line, what);
        }
        if !listed && uses_unsafe(code) {
            let what = "unsafe code in a file that is not listed: move it to one that is \
                        (`cargo xtask tidy --list-unsafe`), or list this one by \
                        `#![expect(unsafe_code, reason = …)]` and numbered invariants";
            findings.add(&file.path, line, what);
            // One finding says it for the file.
            break;
        }
    }
}

/// The keyword in use, followed by what may follow it; not the word in a string or a name.
fn uses_unsafe(code: &str) -> bool {
    code.trim_start().starts_with("#[unsafe(")
        || code.match_indices("unsafe").any(|(at, word)| {
            let rest = code[at + word.len()..].trim_start();
            !code[..at].ends_with(['_', '"', '-'])
                && ["{", "fn ", "impl", "trait ", "extern "].iter().any(|next| rest.starts_with(next))
        })
}

/// A document may name only files that exist.
fn named_paths(tree: &Tree, file: &File, findings: &mut Findings) {
    for (line, text) in file.lines() {
        // Every second piece stands between backticks.
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder))
                && [".rs", ".md", ".toml", ".txt"].iter().any(|end| name.ends_with(end))
                && !name.contains(['*', '{', '<', ' ']);
            if is_path && tree.get(name).is_none() {
                findings.add(&file.path, line, format!("no file `{name}`: name one that exists"));
            }
        }
    }
}
