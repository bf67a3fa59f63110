//! R1: the process is killed with `kill -9` at random moments, again and again.

use super::{Finding, Setting, random::Random, rig::Rig};
use anyhow::Result;
use leatworks_broker::Durability;
use std::time::Duration;

/// One kill in this many comes at a random moment after the start, so that opening and recovery are hit too.
const EARLY_EACH: u64 = 5;

/// How long after its start such a kill comes at most: starting takes about half of it.
const EARLY_MAX: Duration = Duration::from_millis(120);

/// How long after the progress it has waited for a kill comes at most: several commit groups.
const LATE_MAX: Duration = Duration::from_millis(30);

/// How many kills there are at most, in percent of those that must land with messages in flight.
const MOST_PERCENT: u64 = 200;

/// Letters in a message: with its envelope it has about 200 bytes.
const PAYLOAD: usize = 120;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (kills, roots) = setting.pick((20, 30_000), (600, 600_000));
    let mut finding = phase(setting, "waiting", true, kills, roots).await?;
    if !setting.teeth {
        let (kills, roots) = setting.pick((10, 20_000), (400, 400_000));
        let eager = phase(setting, "eager", false, kills, roots).await?;
        finding.seen += &format!("; with a sink that does not wait for the disk: {}", eager.seen);
        finding.objections.extend(eager.objections.into_iter().map(|objection| format!("without waiting: {objection}")));
    }
    Ok(finding)
}

async fn phase(setting: &Setting, name: &str, sink_waits: bool, kills: u64, roots: u64) -> Result<Finding> {
    let mut rig = Rig::new(&setting.folder.join(name), None)?;
    (rig.job.roots, rig.job.bytes, rig.job.sink_waits) = (roots, PAYLOAD, sink_waits);
    if setting.teeth {
        rig.job.durability = Durability::Memory.name().to_owned();
    }
    let mut random = Random::new(setting.seed, name);
    let (mut landed, mut pending, mut done) = (0, 0, 0);
    let mut finding = Finding::default();
    // One that comes when nothing is in flight shows nothing, so others take its place.
    while landed < kills && done < kills * MOST_PERCENT / 100 {
        let mut running = rig.start()?;
        let early = random.within(0..EARLY_EACH) == 0;
        let wanted = (landed * 1_000 + random.within(0..1_000)) * roots / (kills * 1_000);
        let ended = if early {
            running.wait(random.below(EARLY_MAX)).await?.is_some()
        } else {
            let going = running.until_open().await? && running.until("progress", |rig| rig.acked() >= wanted).await?;
            !going || running.wait(random.below(LATE_MAX)).await?.is_some()
        };
        if ended {
            finding.objections.push(format!("the child ended by itself: {}", rig.last_words()));
            break;
        }
        running.kill().await?;
        done += 1;
        pending += 1;
        // What was in flight when the kill came is what the next opening finds.
        if running.is_open() && done > 1 && rig.last_opening()?.get(3).is_some_and(|in_flight| *in_flight > 0) {
            landed += pending - 1;
            pending = 1;
        }
    }
    rig.drain().await?;
    if rig.last_opening()?.get(3).is_some_and(|in_flight| *in_flight > 0) {
        landed += pending;
    }
    let verdict = rig.judge(done)?;
    finding.seen = format!("{done} kills, {landed} of them with messages in flight; {}", verdict.figures());
    finding.objections.extend(verdict.objections());
    finding
        .require(landed >= kills, || format!("only {landed} of {done} kills landed with messages in flight, and {kills} should"));
    let enough = verdict.acked * 100 >= roots * 90;
    finding.require(enough, || format!("only {} of {roots} roots were acknowledged", verdict.acked));
    Ok(finding)
}
