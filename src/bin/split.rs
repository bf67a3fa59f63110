//! A binary that Leatworks generates from `Project.toml`. This file is the same for every task: only whether it exists matters.

include!(concat!(env!("OUT_DIR"), "/", env!("CARGO_BIN_NAME"), ".rs"));
