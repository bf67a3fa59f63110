//! `[trace]`: whether what is done with each message is written down, and where.

use super::{Fault, jobs::location, values};
use leatworks_jobs::Location;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path, time::Duration};

/// How long it is kept, unless the configuration says otherwise: long enough to ask in the morning what went wrong in the night, and at a thousand messages a
/// second already some ten gigabytes.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Whether what is done with each message is written down, and where.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Whether it is. It costs a few hundred bytes for each message on each edge.
    pub enabled: bool,
    /// Where to.
    pub place: Location,
    /// How long it is kept.
    pub keep: Duration,
}

impl TraceConfig {
    /// As it is without any configuration.
    pub(crate) fn new(data: &Path) -> Self {
        let folder = data.join("trace");
        // An address that cannot be made is told when it is opened.
        let place = Location::folder(&folder)
            .unwrap_or_else(|_| Location { url: folder.display().to_string(), options: BTreeMap::new() });
        Self { enabled: false, place, keep: KEEP }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TraceTable {
    enabled: Option<bool>,
    #[serde(deserialize_with = "values::text")]
    to: Option<String>,
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "values::keep")]
    keep: Option<Duration>,
}

impl TraceTable {
    /// This, over what was there.
    pub(super) fn over(self, mut trace: TraceConfig) -> Result<TraceConfig, Fault> {
        trace.enabled = self.enabled.unwrap_or(trace.enabled);
        if let Some(place) = self.to {
            trace.place = location("trace.to", place, self.options)?;
        }
        if let Some(keep) = self.keep {
            trace.keep = keep;
        }
        Ok(trace)
    }
}
