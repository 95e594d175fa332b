//! Examples: what a published crate shows to the public has one, or says where one is.
//!
//! For types, traits and free functions, which are a page each in the documentation; not for methods, which stand on the
//! page of their type. `unreachable_pub` is denied, so a `pub` item is public. A pointer is a line that begins with
//! `Example: ` and links to an item with an example, or to `crate`; that links lead somewhere is rustdoc's to check.

use std::collections::BTreeSet;

use super::Findings;
use crate::tree::{File, Tree};

/// A public item and its documentation, without the `///`.
struct Item<'a> {
    path: &'a str,
    line: usize,
    name: &'a str,
    docs: Vec<&'a str>,
    /// It is a page of its own, and has to show something.
    is_page: bool,
}

pub(super) fn check(tree: &Tree, findings: &mut Findings) {
    let is_published = |file: &&File| {
        file.path.starts_with("crates/") && !file.path.starts_with("crates/cli/") && file.path.contains("/src/")
    };
    let files: Vec<&File> = tree.ending(".rs").filter(is_published).filter(|file| !is_hidden(tree, file)).collect();
    let items: Vec<Item<'_>> = files.iter().flat_map(|file| items(file)).collect();
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    shown.extend(items.iter().filter(|item| has_code(&item.docs)).map(|item| item.name));
    for file in files.iter().copied() {
        let header: Vec<&str> = file.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        if has_code(&header) {
            shown.extend(module(&file.path));
        } else if file.path.ends_with("/src/lib.rs") && !file.text.contains("#![doc = include_str!(") {
            findings.add(&file.path, 1, "no example in the crate's own documentation: show its purpose in a few lines");
        }
    }
    for item in items.iter().filter(|item| item.is_page && !has_code(&item.docs)) {
        match item.docs.iter().find_map(|line| line.trim().strip_prefix("Example: ")) {
            None => {
                let what = "without an example: add a code block, or a last line `Example: [`Other`].` \
                            that links to an item which has one";
                findings.add(item.path, item.line, format!("`{}` {what}", item.name));
            }
            Some(pointer) if !linked(pointer).any(|name| name == "crate" || shown.contains(name)) => {
                findings.add(item.path, item.line, format!("`{}` points to no example: {pointer}", item.name));
            }
            Some(_) => {}
        }
    }
}

/// The name of the module that a file holds.
fn module(path: &str) -> Option<&str> {
    path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs"))?.rsplit('/').next()
}

/// Whether the crate hides the module from its documentation.
fn is_hidden(tree: &Tree, file: &File) -> bool {
    let root = file.path.split_once("/src/").and_then(|(folder, _)| tree.get(&format!("{folder}/src/lib.rs")));
    let declared = module(&file.path).map(|name| format!("#[doc(hidden)]\npub mod {name};"));
    root.zip(declared).is_some_and(|(root, declared)| root.text.contains(&declared))
}

/// The last segments of the paths that a pointer links to.
fn linked(pointer: &str) -> impl Iterator<Item = &str> {
    let names = pointer.split("[`").skip(1).filter_map(|rest| rest.split_once('`'));
    names.map(|(path, _)| path.rsplit("::").next().unwrap_or(path))
}

/// Whether there is a block of Rust that is meant to work.
fn has_code(docs: &[&str]) -> bool {
    let fences = docs.iter().filter_map(|line| line.trim().strip_prefix("```"));
    // Every second fence ends a block.
    fences.step_by(2).any(|kind| ["", "rust", "no_run", "should_panic"].contains(&kind))
}

fn items(file: &File) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut docs = Vec::new();
    let mut in_attribute = false;
    for (line, text) in file.lines() {
        let code = text.trim_start();
        if let Some(doc) = code.strip_prefix("///") {
            docs.push(doc);
        } else if in_attribute || code.starts_with("#[") {
            in_attribute = !code.ends_with(']');
        } else {
            let docs = std::mem::take(&mut docs);
            items.extend(name(text).map(|(name, is_page)| Item { path: &file.path, line, name, docs, is_page }));
        }
    }
    items
}

/// The name of the public item that begins in this line, and whether it has to show something: types and traits wherever
/// they stand, functions and aliases outside of blocks, since inside they are methods and associated types; not modules.
fn name(text: &str) -> Option<(&str, bool)> {
    let mut rest = text.trim_start().strip_prefix("pub ")?;
    while let Some(more) = rest.strip_prefix("unsafe ").or_else(|| rest.strip_prefix("const ")) {
        rest = more;
    }
    let (kind, rest) = rest.split_once(' ')?;
    let is_type = ["struct", "enum", "union", "trait"].contains(&kind);
    let is_other = ["fn", "type", "mod"].contains(&kind);
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    // Empty for the `$name` of a macro, whose uses are looked at instead.
    ((is_type || is_other) && !name.is_empty()).then_some((name, is_type || (kind != "mod" && !text.starts_with(' '))))
}
