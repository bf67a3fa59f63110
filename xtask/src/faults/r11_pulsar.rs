//! R11 on a Pulsar service: messages are given up, looked at, and given back by a command that is killed again and again.

use super::{Finding, Setting, far, product, random::Random, rig::Rig, service, workload::Parcel};
use anyhow::{Result, bail};
use leatworks::topics::DEAD_LETTER_SUBSCRIPTION;
use leatworks_broker::{Broker, Message, Position};
use leatworks_pulsar::PulsarBroker;
use std::{collections::BTreeSet, fs, time::Duration};
use tokio::{
    process::Child,
    time::{sleep, timeout},
};

/// Where the letters are, and where they go back to.
const LETTERS: &str = "faults-start.out-right-DLQ";
const BACK: &str = "faults-start.out-right-RETRY";

/// Roots in one publish, and how many may be in flight: no fault comes while the letters are written, so more of them than elsewhere.
const BATCH: u64 = 100;
const WINDOW: u64 = 2_000;

/// Letters that are read at once.
const READ_MAX: usize = 10_000;

/// How often is looked how many letters have gone back.
const LOOK: Duration = Duration::from_millis(2);

/// How long after it was seen at work the command is killed at most: a step of it takes about as long, and a kill is to come anywhere in it.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

/// How long it may take when nobody kills it: 391 steps for 100,000 letters, and beside other work.
const REDRIVEN_BY: Duration = Duration::from_secs(400);

/// How the command ends when it has given letters back, and when there is none.
const DONE: i32 = 0;
const NOTHING: i32 = 4;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (letters, kills) = setting.pick((10_000, 4), (100_000, 50));
    let mut random = Random::new(setting.seed, "R11");
    let server = service::start()?;
    let mut rig = service::rig(&setting.folder, &server, server.port)?;
    (rig.job.batch, rig.job.window) = (BATCH, WINDOW);
    (rig.job.roots, rig.job.orders.permanent_each) = (letters, 1);
    rig.drain().await?;
    let parked = rig.judge(0)?;
    let mut finding = Finding::default();
    finding.objections.extend(parked.objections());
    let broker = PulsarBroker::connect(far::options(service::at(&server, server.port))).await?;
    let Parked { found, whole, roots } = look(&broker).await?;
    finding.require(whole == found && found == letters && roots.len() as u64 == letters, || {
        format!("{whole} of {found} letters of {} roots tell what they must", roots.len())
    });
    let cut = killed(&rig, &broker, &mut random, (letters, kills)).await?;
    let last = redrive(&rig).await?;
    finding.require(last == DONE, || format!("the last command ended with {last}, as if the kills had left it nothing"));
    let left = look(&broker).await?.found;
    finding.require(left == 0, || format!("{left} letters were left"));
    let back = given_back(&broker).await?;
    finding.require(back == letters, || format!("{back} of {letters} letters have gone back: some of them twice, or not at all"));
    let again = redrive(&rig).await?;
    finding.require(again == NOTHING, || format!("a second command ended with {again}, as if there were letters"));
    broker.close().await?;
    rig.job.orders.permanent_each = 0;
    rig.drain().await?;
    let verdict = rig.judge(0)?;
    finding.seen = format!(
        "{found} messages given up, {whole} of the letters with payload, cause and attempts as they must be; {back} given back by a command that was killed at work {cut} times, and by one more; {}",
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(cut * 2 >= kills, || format!("only {cut} of {kills} kills met the command at work"));
    Ok(finding)
}

/// The letters that lie there.
#[derive(Default)]
struct Parked {
    found: u64,
    /// Those that are as they must be.
    whole: u64,
    roots: BTreeSet<u128>,
}

async fn look(broker: &PulsarBroker) -> Result<Parked> {
    let mut parked = Parked::default();
    let mut from = Some(Position(0));
    while let Some(position) = from {
        let found = broker.peek(LETTERS, DEAD_LETTER_SUBSCRIPTION, position, READ_MAX).await?;
        from = found.last().map(|(last, _)| Position(last.0 + 1));
        parked.found += found.len() as u64;
        parked.whole += found.iter().filter(|(_, message)| is_whole(message)).count() as u64;
        parked.roots.extend(found.iter().map(|(_, message)| message.root.0));
    }
    Ok(parked)
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

/// Starts the command so many times, and kills it when it has given back some of the letters. Gives how often it was at work then, and had not ended by itself.
async fn killed(rig: &Rig, broker: &PulsarBroker, random: &mut Random, (letters, kills): (u64, u64)) -> Result<u64> {
    // Half of the letters are for what is given back between two looks, and for the command that nobody kills.
    let share = letters / kills / 2;
    let mut cut = 0;
    for _ in 0..kills {
        let (enough, then) = (given_back(broker).await? + random.within(1..share + 1), random.below(KILLED_WITHIN));
        let mut running = start(rig)?;
        let at_work = async {
            while given_back(broker).await? < enough {
                sleep(LOOK).await;
            }
            sleep(then).await;
            anyhow::Ok(())
        };
        tokio::select! {
            ended = code(rig, &mut running) => drop(ended?),
            killed = timeout(REDRIVEN_BY, at_work) => {
                killed??;
                cut += 1;
                running.kill().await?;
            }
        }
    }
    Ok(cut)
}

/// How many letters have gone back so far, also those that go back once more.
async fn given_back(broker: &PulsarBroker) -> Result<u64> {
    Ok(broker.topic_stats(BACK).await?.map_or(0, |topic| topic.published))
}

/// Has the letters given back, and gives how the command ended.
async fn redrive(rig: &Rig) -> Result<i32> {
    let mut running = start(rig)?;
    match timeout(REDRIVEN_BY, code(rig, &mut running)).await {
        Ok(code) => code,
        Err(_) => bail!("the letters were not given back within {REDRIVEN_BY:?}"),
    }
}

fn start(rig: &Rig) -> Result<Child> {
    let Some(service) = &rig.job.service else { bail!("letters are given back on a service") };
    let mut command = product::on_service(&rig.folder, &service.url, &service.admin_url)?;
    Ok(command.args(["dlq", "redrive"]).spawn()?)
}

/// How the command ends by itself.
async fn code(rig: &Rig, running: &mut Child) -> Result<i32> {
    match running.wait().await?.code() {
        Some(code @ (DONE | NOTHING)) => Ok(code),
        _ => bail!("the command failed: {}", fs::read_to_string(rig.folder.join("said"))?),
    }
}
