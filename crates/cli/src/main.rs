//! The `userfault` command.
fn main() {}
