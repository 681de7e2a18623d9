//! `cordis-server`.
fn main() {}
