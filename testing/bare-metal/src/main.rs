//! The engine on bare metal, to prove that it cannot panic: see `bare.rs`.
//!
//! Elsewhere than on `x86_64-unknown-none` this is an empty program, so that the workspace builds.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare;

#[cfg(not(target_os = "none"))]
const fn main() {}
