//! The files of the project, as git lists them: tracked ones, and new ones that are not ignored.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// One text file; `path` is relative to the root.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The text files that the checks look at, sorted by path.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    pub(crate) fn load() -> Result<Self, String> {
        let root = root()?;
        let mut files = Vec::new();
        for path in paths()? {
            if [".rs", ".md", ".toml", ".txt"].iter().any(|end| path.ends_with(end)) {
                let bytes = fs::read(root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                files.push(File { path, text });
            }
        }
        Ok(Self { files })
    }

    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    /// Lines with their numbers, counted from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().zip(1..).map(|(line, number)| (number, line))
    }
}

/// The root of the workspace that this run was started in.
pub(crate) fn root() -> Result<PathBuf, String> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("start this with `cargo xtask`")?;
    Ok(PathBuf::from(package).join(".."))
}

/// Every file of the project, relative to the root, also those that are not text.
pub(crate) fn paths() -> Result<Vec<String>, String> {
    let root = root()?;
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(&root).output();
    let output = output.map_err(|error| format!("git cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    // The index still lists a file whose deletion is not staged.
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    Ok(paths)
}
