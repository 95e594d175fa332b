//! `cargo xtask ci`: the project's checks, cheapest first, stopping at the first failure.
//!
//! The steps are data. A new one is one line in [`STEPS`]; a step stands there only if its subject exists, so that none
//! is green for want of something to check. A step with flags of its own builds apart, `--target-dir target/<name>`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::tree;

#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    command: &'static str,
    environment: &'static [(&'static str, &'static str)],
    /// A command and the word that it prints where the step can run; elsewhere the step is skipped, and that is said.
    probe: Option<(&'static str, &'static str)>,
}

const fn step(name: &'static str, command: &'static str) -> Step {
    Step { name, command, environment: &[], probe: None }
}

#[rustfmt::skip]
const STEPS: &[Step] = &[
    step("setup", "scripts/setup"),
    step("fmt", "cargo fmt --all --check"),
    step("tidy", "cargo xtask tidy"),
    step("clippy", "cargo clippy --workspace --all-targets -- -D warnings"),
    step("no-panic", "cargo build -p userfault-bare-metal --target x86_64-unknown-none --profile bare-metal"),
    step("test", "cargo test --workspace"),
    step("unoptimised", "cargo test -p userfault-process --test process --config profile.dev.opt-level=0 --config profile.test.opt-level=0 --target-dir target/unoptimised -- foreign:: instructions::an_ nest:: monitors:: shared::mapped"),
    step("storm", "cargo test -p userfault-process --test process in_a_storm_of_signals_forks_and_jumps").env(&[("USERFAULT_STORM_SECONDS", "60")]),
    step("rustdoc", "cargo doc --workspace --no-deps --lib").env(&[("RUSTDOCFLAGS", "-D warnings")]),
    step("aarch64", "cargo check -p userfault-linux -p userfault-client -p userfault-memory --target aarch64-unknown-linux-gnu").where_installed("rustup target list --installed", "aarch64-unknown-linux-gnu"),
    step("miri", "cargo +nightly miri test -p userfault-abi -p userfault-engine -p userfault-client").where_installed("rustup component list --toolchain nightly --installed", "miri"),
    step("loom", "cargo test -p userfault-engine --release --test loom --target-dir target/loom").env(&[("RUSTFLAGS", "--cfg loom")]),
    step("mutants", "cargo xtask mutants"),
];

impl Step {
    const fn env(self, environment: &'static [(&'static str, &'static str)]) -> Self {
        Self { environment, ..self }
    }

    const fn where_installed(self, probe: &'static str, word: &'static str) -> Self {
        Self { probe: Some((probe, word)), ..self }
    }

    /// The step as one would type it.
    fn shown(&self) -> String {
        let variables = self.environment.iter().map(|(name, value)| format!("{name}='{value}' "));
        variables.chain([self.command.to_owned()]).collect()
    }

    /// Runs the step; answers what there is to say in one line.
    fn execute(&self) -> Result<String, String> {
        if let Some((probe, word)) = self.probe {
            let output = command(probe)?.output().map_err(|error| format!("{probe}: {error}"))?;
            if !String::from_utf8_lossy(&output.stdout).contains(word) {
                return Ok(format!("SKIPPED: no {word} here; see scripts/setup"));
            }
        }
        let started = Instant::now();
        let mut command = command(self.command)?;
        let status = command.envs(self.environment.iter().copied()).status();
        let status = status.map_err(|error| format!("{}: {error}", self.command))?;
        let after = started.elapsed();
        if status.success() {
            return Ok(format!("ok, {after:.1?}"));
        }
        let again = format!("again: cargo xtask ci --only {}", self.name);
        Err(format!("\n==== {} FAILED after {after:.1?}: {status}; {again}", self.name))
    }
}

pub(crate) fn list() -> Result<(), String> {
    for step in STEPS {
        println!("{:<12} {}", step.name, step.shown());
    }
    Ok(())
}

/// Runs the steps named in `only`, separated by commas, or all of them.
pub(crate) fn run(only: Option<&str>) -> Result<(), String> {
    let names: Vec<&str> = only.into_iter().flat_map(|names| names.split(',')).collect();
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("no step `{name}`; `cargo xtask ci --list` prints them"));
    }
    let mut summary = String::new();
    for step in STEPS.iter().filter(|step| only.is_none() || names.contains(&step.name)) {
        println!("\n==== {}: {}", step.name, step.shown());
        let outcome = step.execute()?;
        println!("==== {} {outcome}", step.name);
        summary += &format!("\n{:<12} {outcome}", step.name);
    }
    println!("\n==== passed; {}{summary}", kernel().1);
    Ok(())
}

/// A command of words separated by blanks, at the root.
fn command(line: &str) -> Result<Command, String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(tree::root()?);
    if kernel().0 {
        command.env("USERFAULT_REQUIRE_KERNEL", "1");
    }
    Ok(command)
}

/// Whether tests against the kernel must run here instead of reporting "skipped", and why.
fn kernel() -> (bool, &'static str) {
    // A kernel that has userfaultfd shows its sysctl; a filter may still forbid the call.
    let has_it = Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_free = status.lines().any(|line| line == "Seccomp:\t0");
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match (is_ci, has_it, is_free) {
        (true, ..) => (true, "the kernel's userfaultfd was required, because CI is set"),
        (_, true, true) => (true, "the kernel's userfaultfd was required, because it is there"),
        (_, true, false) => (false, "system calls are filtered: tests of the kernel may be skipped"),
        (_, false, _) => (false, "this kernel has no userfaultfd: its tests were skipped"),
    }
}
