//! Checks and tasks of the project.
fn main() {}
