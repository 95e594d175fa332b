//! What rustc and clippy cannot check. Each finding reads `path:line: what is wrong: what to do`.

mod arrows;
mod citations;
mod examples;
mod sources;
mod spec;
#[cfg(test)]
mod tests;

use crate::tree::Tree;

/// What the checks found, one line each.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, path: &str, line: usize, what: impl std::fmt::Display) {
        self.0.push(format!("{path}:{line}: {what}"));
    }
}

pub(crate) fn run() -> Result<(), String> {
    let tree = Tree::load()?;
    let mut findings = Findings::default();
    sources::check(&tree, &mut findings);
    arrows::check(&tree, &mut findings);
    examples::check(&tree, &mut findings);
    spec::check(&tree, &mut findings);
    for finding in &findings.0 {
        println!("{finding}");
    }
    match findings.0.len() {
        0 => {
            println!("tidy: {} files, nothing to say", tree.files.len());
            Ok(())
        }
        n => Err(format!("tidy: {n} findings")),
    }
}

pub(crate) fn list_unsafe() -> Result<(), String> {
    let tree = Tree::load()?;
    for file in tree.ending(".rs").filter(|file| sources::expects_unsafe(file)) {
        println!("{}", file.path);
    }
    Ok(())
}
