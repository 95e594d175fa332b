//! Which crate may depend on which: the table of `ARCHITECTURE.md`, as data.
//!
//! It holds for what is built and shipped. Dev-dependencies are free, and so are the crates outside `crates/`, on which
//! nothing in the table may depend.

use super::Findings;
use crate::tree::{File, Tree};

/// Package, what it may use of ours, what it may use of others.
#[rustfmt::skip]
const ARROWS: &[(&str, &str, &str)] = &[
    ("userfault-abi",     "", ""),
    ("userfault-signal",  "", "libc rustix"),
    ("userfault-memory",  "", "libc rustix"),
    ("userfault-engine",  "userfault-abi", ""),
    ("userfault-client",  "userfault-abi userfault-memory", ""),
    ("userfault-process", "userfault-engine userfault-client userfault-signal userfault-memory userfault-abi", "libc rustix"),
    ("userfault-linux",   "userfault-client userfault-signal userfault-memory userfault-abi", "libc rustix linux-raw-sys"),
    ("userfault",         "userfault-linux userfault-process userfault-client userfault-signal userfault-memory", "rustix"),
    ("userfault-cli",     "userfault", "anyhow clap clap_complete clap_mangen hdrhistogram indicatif serde_json terminal_size"),
];

const TABLE: &str = "the table in xtask/src/tidy/arrows.rs and ARCHITECTURE.md";

pub(super) fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.ending("/Cargo.toml").filter(|file| file.path.starts_with("crates/")) {
        let name = file.text.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.unwrap_or_default().trim_matches('"');
        let Some((_, ours, others)) = ARROWS.iter().find(|(package, ..)| *package == name) else {
            findings.add(&file.path, 1, format!("`{name}` is unknown: give it a row in {TABLE}"));
            continue;
        };
        for (line, on) in dependencies(file) {
            if !ours.split(' ').chain(others.split(' ')).any(|allowed| allowed == on) {
                let what = format!("`{name}` may not use `{on}`: remove it, or change {TABLE}");
                findings.add(&file.path, line, what);
            }
        }
    }
}

/// What a package uses when built, not when tested.
pub(super) fn dependencies(file: &File) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_table = false;
    for (number, line) in file.lines().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            let counts = section.contains("dependencies") && !section.contains("dev-dependencies");
            in_table = counts && section.ends_with("dependencies");
            let single = section.split("dependencies.").nth(1);
            found.extend(single.filter(|_| counts).map(|package| (number, package)));
        } else if in_table {
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let renamed = line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            found.push((number, renamed.unwrap_or(key)));
        }
    }
    found
}
