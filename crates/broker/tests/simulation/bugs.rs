//! The bugs that are planted, and how many seeds it takes to find each.

use crate::{oracle::Finding, world};
use leatworks_broker::planted::{self, Bug};
use leatworks_journal::planted::{self as journal, Bug as JournalBug};

/// Seeds after which a bug must be found.
pub(crate) const SEEDS_MAX: u64 = 1_000;

/// A bug of the broker or of its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Broker(Bug),
    Journal(JournalBug),
}

/// Bugs of the journal that need damage, or two crashes within a few calls of each other, to show. Its own model test finds those.
const OTHERS: [JournalBug; 8] = [
    JournalBug::OpenWithoutDirectorySync,
    JournalBug::KeepCutOff,
    JournalBug::ReuseTooEarly,
    JournalBug::ReplaceDurableCheckpoint,
    JournalBug::LoseSilently,
    JournalBug::LostComesBack,
    JournalBug::SkipTorn,
    JournalBug::WrongBehind,
];

/// All that this simulation must find.
pub(crate) fn all() -> Vec<Planted> {
    let broker = Bug::ALL.iter().copied().map(Planted::Broker);
    let journal = JournalBug::ALL.iter().copied().filter(|bug| !OTHERS.contains(bug)).map(Planted::Journal);
    broker.chain(journal).collect()
}

impl Planted {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Broker(bug) => format!("{bug:?}"),
            Self::Journal(bug) => format!("{bug:?}"),
        }
    }

    /// What it breaks.
    fn about(self) -> &'static str {
        match self {
            Self::Broker(bug) => bug.about(),
            Self::Journal(bug) => bug.about(),
        }
    }

    fn plant(self) {
        match self {
            Self::Broker(bug) => planted::plant(Some(bug)),
            Self::Journal(bug) => journal::plant(Some(bug)),
        }
    }

    /// Plants the bug and runs seeds until one finds it: how many it took, and what was found.
    pub(crate) fn hunt(self) -> Option<(u64, Finding)> {
        self.plant();
        let found = (0..SEEDS_MAX).find_map(|seed| Some((seed + 1, world::run(seed).result.err()?)));
        planted::plant(None);
        journal::plant(None);
        found
    }
}

/// The table of the documentation.
pub(crate) fn table() -> String {
    let row = |bug: Planted| {
        let place = if matches!(bug, Planted::Broker(_)) { "broker" } else { "journal" };
        format!("| `{}` | {place} | {} |\n", bug.name(), bug.about())
    };
    let rows: String = all().into_iter().map(row).collect();
    format!("| bug | in the | what it is, and what it breaks |\n|---|---|---|\n{rows}")
}
