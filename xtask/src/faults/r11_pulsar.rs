//! R11 on a Pulsar service: messages are given up, looked at, and given back by a command that is killed again and again.

use super::{Finding, Setting, far, product, random::Random, rig::Rig, service, workload::Parcel};
use anyhow::{Result, bail};
use leatworks::topics::DEAD_LETTER_SUBSCRIPTION;
use leatworks_broker::{Broker, Message, Position};
use leatworks_pulsar::PulsarBroker;
use std::{collections::BTreeSet, fs, time::Duration};
use tokio::time::timeout;

/// Where the letters are.
const LETTERS: &str = "faults-start.out-right-DLQ";

/// How long after its start the command is killed at most: it needs some tenths of a second until the first letter.
const KILLED_BY: Duration = Duration::from_secs(3);

/// How long it may take when nobody kills it. A letter takes some ten milliseconds.
const REDRIVEN_BY: Duration = Duration::from_secs(400);

/// How the command ends when there is no letter.
const NOTHING: i32 = 4;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (letters, kills) = setting.pick((200, 4), (5_000, 50));
    let mut random = Random::new(setting.seed, "R11");
    let server = service::start()?;
    let mut rig = service::rig(&setting.folder, &server, server.port)?;
    (rig.job.roots, rig.job.orders.permanent_each) = (letters, 1);
    rig.drain().await?;
    let parked = rig.judge(0)?;
    let mut finding = Finding::default();
    finding.objections.extend(parked.objections());
    let broker = PulsarBroker::connect(far::options(service::at(&server, server.port))).await?;
    let found = broker.peek(LETTERS, DEAD_LETTER_SUBSCRIPTION, Position(0), usize::MAX).await?;
    let whole = found.iter().filter(|(_, message)| is_whole(message)).count();
    let roots: BTreeSet<u128> = found.iter().map(|(_, message)| message.root.0).collect();
    finding.require(whole == found.len() && roots.len() as u64 == letters, || {
        format!("{whole} of {} letters of {} roots tell what they must", found.len(), roots.len())
    });
    let cut = killed(&rig, &mut random, kills).await?;
    if !redrive(&rig, REDRIVEN_BY).await? {
        bail!("the letters were not given back within {REDRIVEN_BY:?}");
    }
    let left = broker.peek(LETTERS, DEAD_LETTER_SUBSCRIPTION, Position(0), usize::MAX).await?.len();
    finding.require(left == 0, || format!("{left} letters were left"));
    // Nothing is there to be given back a second time.
    redrive(&rig, REDRIVEN_BY).await?;
    broker.close().await?;
    rig.job.orders.permanent_each = 0;
    rig.drain().await?;
    let verdict = rig.judge(0)?;
    finding.seen = format!(
        "{} messages given up, {whole} of the letters with payload, cause and attempts as they must be; given back by a command that was killed {cut} times, and by one more; {}",
        found.len(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(cut * 2 >= kills, || format!("only {cut} of {kills} kills met the command at work"));
    Ok(finding)
}

/// Whether a letter has the payload that was sent, and tells why it was given up and after how many attempts.
fn is_whole(message: &Message) -> bool {
    let property = |name: &str| message.properties.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let parcel: Option<Parcel> = serde_json::from_slice(&message.payload).ok();
    let is_sent = parcel.is_some_and(|parcel| parcel.is_whole() && u128::from(parcel.sequence) == message.root.0);
    let told = (property("leat-cause"), property("leat-attempts"), property("leat-edge"));
    let error = property("leat-error").is_some_and(|error| error.contains("poison"));
    is_sent && error && told == (Some("permanent"), Some("1"), Some("start-->right"))
}

/// Starts the command so many times and kills it. Gives how often it had not ended by itself.
async fn killed(rig: &Rig, random: &mut Random, kills: u64) -> Result<u64> {
    let mut cut = 0;
    for _ in 0..kills {
        cut += u64::from(!redrive(rig, random.below(KILLED_BY)).await?);
    }
    Ok(cut)
}

/// Has the letters given back, for so long at most; `false` if it was killed then.
async fn redrive(rig: &Rig, limit: Duration) -> Result<bool> {
    let Some(service) = &rig.job.service else { bail!("letters are given back on a service") };
    let mut command = product::on_service(&rig.folder, &service.url, &service.admin_url)?;
    let mut running = command.args(["dlq", "redrive"]).spawn()?;
    match timeout(limit, running.wait()).await {
        Ok(Ok(status)) if status.success() || status.code() == Some(NOTHING) => Ok(true),
        Ok(_) => bail!("the command failed: {}", fs::read_to_string(rig.folder.join("said"))?),
        Err(_) => {
            running.kill().await?;
            Ok(false)
        }
    }
}
