//! How long each stage takes.

use anyhow::{Context as _, Result};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The stages that were timed, in order.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    times: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    /// Does something under a name, which an error then tells.
    pub(super) fn time<T>(&mut self, name: &'static str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("---- {name} ----");
        let began = Instant::now();
        let result = act();
        self.times.push((name, began.elapsed()));
        result.with_context(|| format!("in the stage `{name}`"))
    }
}

impl fmt::Display for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---- how long each stage took ----")?;
        for (name, time) in &self.times {
            writeln!(f, "{name:<10} {:>7.1} s", time.as_secs_f64())?;
        }
        Ok(())
    }
}
