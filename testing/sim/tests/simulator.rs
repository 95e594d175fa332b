//! The engine in the simulator: the weaknesses of the original, one by one, and what became of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot go on fails the test")]

#[path = "weaknesses/common.rs"]
mod common;
#[path = "weaknesses/cost.rs"]
mod cost;
#[path = "weaknesses/life.rs"]
mod life;
#[path = "weaknesses/listing.rs"]
mod listing;
#[path = "weaknesses/reading.rs"]
mod reading;
#[path = "weaknesses/registering.rs"]
mod registering;
#[path = "weaknesses/verdicts.rs"]
mod verdicts;
#[path = "weaknesses/waking.rs"]
mod waking;
