//! `cargo xtask mutants`: a proof is trusted once it has been seen to fail.
//!
//! Each `testing/mutants/*.patch` takes one step of the ordering argument away; its first line says which, and which
//! loom test must notice: `# J2, the second look at the page; killed by the_name_of_the_test`. The patch is applied to a
//! copy of the tree. A mutant that no longer applies, does not build, hangs or survives is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tree;

/// Longest run of one test; only a hang meets it.
const SECONDS: &str = "900";

pub(crate) fn run() -> Result<(), String> {
    let root = tree::root()?;
    let listing = fs::read_dir(root.join("testing/mutants"));
    let listing = listing.map_err(|error| format!("testing/mutants: {error}"))?;
    let mut patches: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|end| end == "patch"));
    patches.sort();
    if patches.is_empty() {
        return Err("testing/mutants holds no patches".to_owned());
    }
    let bench = Bench { root: root.clone(), home: root.join("target/mutants") };
    println!("mutants: first the tests as they are");
    bench.fresh()?;
    if let (Some(_), printed) = bench.loom(&[])? {
        return Err(format!("they fail without any mutant:\n{printed}"));
    }
    let mut survivors = 0;
    for patch in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let verdict = bench.judge(patch);
        survivors += usize::from(verdict.is_err());
        println!("{name:<28} {}", verdict.unwrap_or_else(|error| format!("ERROR: {error}")));
    }
    match survivors {
        0 => Ok(()),
        n => Err(format!("mutants: {n} of {} are not killed", patches.len())),
    }
}

/// What a patch takes away, and the test that must fail.
fn header(text: &str) -> Option<(&str, &str)> {
    let (removes, test) = text.lines().next()?.strip_prefix("# ")?.split_once("; killed by ")?;
    (!removes.is_empty() && !test.is_empty() && !test.contains(' ')).then_some((removes, test))
}

/// Where mutants are built: one place for all, so that only what a patch touches is built again.
struct Bench {
    root: PathBuf,
    home: PathBuf,
}

impl Bench {
    fn judge(&self, patch: &Path) -> Result<String, String> {
        let text = fs::read_to_string(patch).map_err(|error| error.to_string())?;
        let wanted = "the first line must read `# <what is gone>; killed by <test>`";
        let (removes, test) = header(&text).ok_or(wanted)?;
        self.fresh()?;
        self.apply(patch)?;
        if let (Some(_), printed) = self.loom(&["--no-run"])? {
            return Err(format!("does not build, which kills nothing:\n{printed}"));
        }
        let (failure, printed) = self.loom(&["--", test])?;
        let failed = printed.lines().any(|line| line.ends_with("... FAILED") && line.contains(test));
        match failure {
            None => Err(format!("{removes}: survives {test}, or there is no such test")),
            Some(124) => Err(format!("hangs: {test} has no end in {SECONDS} s")),
            // A second panic, while loom unwinds, ends the process before the line is printed.
            Some(_) if failed || printed.contains("SIGABRT") => Ok(format!("{removes}: killed by {test}")),
            Some(_) => Err(format!("fails otherwise than by {test}:\n{printed}")),
        }
    }

    /// Makes the copy anew.
    fn fresh(&self) -> Result<(), String> {
        let tree = self.home.join("tree");
        let fail = |error: std::io::Error| format!("{}: {error}", tree.display());
        if tree.exists() {
            fs::remove_dir_all(&tree).map_err(fail)?;
        }
        for path in tree::paths()? {
            let to = tree.join(&path);
            fs::create_dir_all(to.parent().unwrap_or(&tree)).map_err(fail)?;
            fs::copy(self.root.join(&path), &to).map_err(fail)?;
        }
        Ok(())
    }

    fn apply(&self, patch: &Path) -> Result<(), String> {
        let mut git = Command::new("git");
        git.arg("apply").arg(fs::canonicalize(patch).map_err(|error| error.to_string())?);
        // Inside a repository git would take the paths as relative to its root, and quietly change nothing.
        let home = fs::canonicalize(&self.home).map_err(|error| error.to_string())?;
        git.env("GIT_CEILING_DIRECTORIES", &home).current_dir(home.join("tree"));
        let output = git.output().map_err(|error| format!("git: {error}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or(format!("does not apply: {complaint}"))
    }

    /// Runs the loom tests of the copy: the exit code if they fail, and what they print.
    fn loom(&self, arguments: &[&str]) -> Result<(Option<i32>, String), String> {
        let mut command = Command::new("timeout");
        command.args([SECONDS, "cargo", "test", "-p", "userfault-engine", "--release"]);
        command.args(["--test", "loom", "--target-dir", "../build"]).args(arguments);
        command.env("RUSTFLAGS", "--cfg loom").current_dir(self.home.join("tree"));
        let output = command.output().map_err(|error| format!("timeout: {error}"))?;
        let failure = (!output.status.success()).then(|| output.status.code().unwrap_or(-1));
        let printed = [output.stdout, output.stderr].concat();
        Ok((failure, String::from_utf8_lossy(&printed).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn a_patch_opens_with_what_it_removes_and_who_notices() {
        assert_eq!(header("# J2, look; killed by a_fill\n--- a\n"), Some(("J2, look", "a_fill")));
        for wrong in ["", "J2; killed by a", "# J2", "# J2; killed by ", "# J2; killed by a or b"] {
            assert_eq!(header(wrong), None, "{wrong}");
        }
    }
}
