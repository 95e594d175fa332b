//! The places that scenarios run in.

pub mod kernel;
pub mod process;
pub mod simulator;
