//! What an acknowledged write survives.

use crate::{BrokerError, ErrorKind, Result};

/// What an acknowledged write survives. The later ones survive more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing but a proper end. The backlog is on disk all the same, so that it does not fill the memory.
    Memory,
    /// The end of the process at any time (`kill -9`). The loss of power may cost whatever the operating system had not written by itself.
    Process,
    /// The end of the process at any time, and the loss of power but for the last [`EmbeddedOptions::sync_interval`](crate::EmbeddedOptions::sync_interval).
    Interval,
    /// The loss of power: it is synced before it is acknowledged.
    #[default]
    Power,
}

impl Durability {
    /// All of them, the strongest first.
    pub const ALL: [Self; 4] = [Self::Power, Self::Interval, Self::Process, Self::Memory];

    /// Its name: `power`, `interval`, `process` or `memory`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Interval => "interval",
            Self::Process => "process",
            Self::Memory => "memory",
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = BrokerError;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|level| level.name() == name);
        let unknown = || format!("durability `{name}` is none of `power`, `interval`, `process`, `memory`");
        found.ok_or_else(|| BrokerError::new(ErrorKind::Invalid, unknown()))
    }
}
