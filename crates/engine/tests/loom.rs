//! The engine under loom: every interleaving of joining, page states, fills, waking, reading and closing.
//!
//! What runs is the shipped code; only the embedder is a double (`host.rs`): loom's mutex and atomics, a futex
//! and an eventfd of a few lines each, and pages whose protection is a flag. A lost wake-up shows as loom's
//! "deadlock". For each step of the argument in `src/wait/mod.rs` there is a patch under `testing/mutants/`
//! that removes it and that one of these tests kills.
//!
//! With one sleeper the exploration is unbounded; with two it is bounded by three preemptions. It is never
//! ended by a limit of time or of permutations, since a run cut short would end green.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p userfault-engine --test loom --release
//! ```
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "loom/context.rs"]
mod context;
#[path = "loom/fill.rs"]
mod fill;
#[path = "loom/host.rs"]
mod host;
#[path = "loom/monitor.rs"]
mod monitor;
#[path = "loom/wake.rs"]
mod wake;
