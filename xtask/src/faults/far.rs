//! The workload on a Pulsar service, which keeps no account: what is in flight follows from the logs, and rest from the service's statistics.

use super::{
    child::Job,
    log::{self, LINE_BYTES},
    rig::Rig,
    workload::Orders,
};
use anyhow::{Context, Result, bail};
use leatworks::topics::DEAD_LETTER_SUBSCRIPTION;
use leatworks_broker::{Broker, BrokerError};
use leatworks_pulsar::{PulsarBroker, PulsarOptions};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// How long a service that is away is waited for: one that starts on a machine with other work was seen to need 80 s.
const AWAY_MAX: Duration = Duration::from_secs(240);

/// How long between two tries, and between two looks at the statistics of all topics.
const LOOK: Duration = Duration::from_millis(200);

/// How often it is told what is not settled, for who looks into a run that is stuck.
const TELL: Duration = Duration::from_secs(20);

/// Where the service is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    /// `pulsar://HOST:PORT`.
    pub(crate) url: String,
    /// `http://HOST:PORT`.
    pub(crate) admin_url: String,
    /// Where what is on its way to it about attempts is kept, if it is.
    pub(crate) notes: Option<PathBuf>,
}

/// How it is reached.
pub(super) fn options(Service { url, admin_url, notes }: Service) -> PulsarOptions {
    PulsarOptions { url, admin_url: Some(admin_url), notes, ..PulsarOptions::default() }
}

/// Connects, as soon as the service is there.
pub(super) async fn open(service: &Service) -> Result<PulsarBroker> {
    let options = options(service.clone());
    until_there(async || PulsarBroker::connect(options.clone()).await.map_err(BrokerError::from)).await
}

/// Asks again as long as the service is away, or is just moving what is asked about.
pub(super) async fn until_there<T>(mut ask: impl AsyncFnMut() -> Result<T, BrokerError>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && start.elapsed() < AWAY_MAX => tokio::time::sleep(LOOK).await,
            answer => return Ok(answer?),
        }
    }
}

/// Waits until two looks in a row find nothing unsettled but dead letters, and nothing published between them.
pub(super) async fn rest(broker: &dyn Broker) -> Result<()> {
    let mut before = None;
    let mut told = Instant::now();
    loop {
        let stats = until_there(async || broker.stats().await).await?;
        let subscriptions = stats.iter().flat_map(|topic| topic.subscriptions.iter().map(|found| (&topic.spec.name, found)));
        let working = subscriptions.filter(|(_, (name, _))| *name != DEAD_LETTER_SUBSCRIPTION);
        let waiting: Vec<_> = working.filter(|(_, (_, found))| found.backlog + found.in_flight > 0).collect();
        let pending: u64 = waiting.iter().map(|(_, (_, found))| found.backlog + found.in_flight).sum();
        if pending > 0 && told.elapsed() > TELL {
            told = Instant::now();
            eprintln!("not settled: {waiting:?}");
        }
        let published: u64 = stats.iter().map(|topic| topic.published).sum();
        if pending == 0 && before == Some(published) {
            return Ok(());
        }
        before = (pending == 0).then_some(published);
        tokio::time::sleep(LOOK).await;
    }
}

/// A log that is read on where it was: from the front again each time would take seconds in the end.
struct Follow {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Follow {
    fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), file: None, rest: Vec::new() }
    }

    /// The lines that have come, as words.
    fn lines(&mut self, mut each: impl FnMut(&[&str]) -> Result<()>) -> Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("reading {}", self.path.display())),
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.rest)?;
        }
        let whole = self.rest.len() / LINE_BYTES * LINE_BYTES;
        for line in self.rest[..whole].chunks(LINE_BYTES) {
            let Ok(line) = std::str::from_utf8(line) else { bail!("{} holds what is no line", self.path.display()) };
            each(&line.split_whitespace().collect::<Vec<_>>())?;
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

/// What has come to the sink, by roots and their ways: a repetition is no arrival.
pub(super) struct Arrivals {
    log: Follow,
    seen: HashSet<(u64, char)>,
}

impl Arrivals {
    pub(super) fn new(folder: &Path) -> Self {
        Self { log: Follow::new(folder, log::OBSERVED), seen: HashSet::new() }
    }

    /// How many there are.
    pub(super) fn count(&mut self) -> Result<u64> {
        let seen = &mut self.seen;
        self.log.lines(|words| {
            if let ["s", sequence, way, ..] = words {
                seen.insert((sequence.parse()?, way.chars().next().unwrap_or('?')));
            }
            Ok(())
        })?;
        Ok(seen.len() as u64)
    }

    /// How many messages of the roots up to this one have not come yet, those left out that are given up on the way.
    pub(super) fn missing(&mut self, last: u64, orders: &Orders) -> Result<u64> {
        let named = orders.poison.iter().filter(|(sequence, _)| *sequence <= last).count() as u64;
        let given_up = named + last.checked_div(orders.permanent_each).unwrap_or(0);
        Ok((2 * last).saturating_sub(given_up + self.count()?))
    }
}

/// How many messages are on their way: of roots whose receipt has come, and not yet at the sink.
pub(super) struct InFlight {
    acked: Follow,
    last: u64,
    arrivals: Arrivals,
}

impl InFlight {
    pub(super) fn new(rig: &Rig) -> Self {
        Self { acked: Follow::new(&rig.folder, log::ACKED), last: 0, arrivals: Arrivals::new(&rig.folder) }
    }

    /// How many there are.
    pub(super) fn count(&mut self, rig: &Rig) -> Result<u64> {
        // What is new in the longer log is read before, so that little comes to the sink between the two looks.
        self.arrivals.count()?;
        let last = &mut self.last;
        self.acked.lines(|words| {
            if let ["a", from, count, ..] = words {
                *last = (*last).max(from.parse::<u64>()? + count.parse::<u64>()? - 1);
            }
            Ok(())
        })?;
        self.arrivals.missing(self.last, &rig.job.orders)
    }
}

/// Waits until there is room for more roots behind the last one that was sent.
pub(super) async fn room(arrivals: &mut Arrivals, last: u64, job: &Job, look: Duration) -> Result<()> {
    while arrivals.missing(last, &job.orders)? > 2 * job.window {
        tokio::time::sleep(look).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::log::Log;

    #[test]
    fn what_has_not_come_is_counted_without_repetitions_and_what_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut arrivals = Arrivals::new(folder.path());
        let orders = Orders { permanent_each: 3, ..Orders::default() };
        assert_eq!(arrivals.missing(4, &orders).unwrap(), 7);
        let log = Log::open(folder.path(), log::OBSERVED).unwrap();
        for (line, missing) in
            [("o 0", 7), ("s 1 L a 1 5", 6), ("s 1 L a 2 6", 6), ("s 1 R b 1 7", 5), ("c 2", 5), ("s 3 L c 1 8", 4)]
        {
            log.append(line);
            assert_eq!(arrivals.missing(4, &orders).unwrap(), missing, "{line}");
        }
    }
}
