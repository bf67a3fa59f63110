//! `leat`, the command.
fn main() {}
