//! Where messages come from: lines, JSON lines, directories and the clock.

mod item;

pub use item::{Entry, Line, Tick};
