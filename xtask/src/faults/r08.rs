//! R8: the broker of a Pulsar service is killed with `kill -9`, and its topics are unloaded, again and again, while messages cross the topology. The process
//! with the dispatchers lives on, and nobody helps it.

use super::{
    Finding, Setting, far, log,
    random::Random,
    rig::{Rig, Running},
    service::{self, Bookie},
    workload::TOPOLOGY,
};
use crate::services::pulsar::Pulsar;
use anyhow::Result;
use std::time::Duration;
use tokio::time::Instant;

/// How long after the progress it has waited for a fault comes at most.
const LATE_MAX: Duration = Duration::from_millis(50);

/// How long after the service answers again, and has its bookie, work must go on.
const RESUME_MAX: Duration = Duration::from_secs(10);

/// How long after the service answers, whether it has its bookie or not. Up to 122 s were seen to pass until it had.
const BOOKIE_MAX: Duration = Duration::from_secs(150);

/// How often what waits on an edge is thrown away, to show that the oracle sees it.
const THROWN_AWAY: u64 = 6;

/// What happens to the service.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Unload(&'static str),
    /// A broken product: what waits for this edge is gone.
    ThrowAway(&'static str, &'static str),
}

/// What the faults have met.
#[derive(Default)]
struct Met {
    kills: u64,
    unloads: u64,
    in_flight: u64,
    /// How long after each kill it took until the sink got something, from when the service had its bookie.
    resumed: Vec<Duration>,
    /// The same from when the service answered.
    answered: Vec<Duration>,
    /// How often the service answered before it had its bookie for good.
    bookies_lost: usize,
}

impl Met {
    fn went_on(&mut self, answered: Instant, bookie: &Bookie) {
        self.bookies_lost += usize::from(bookie.lost().is_some());
        self.resumed.push(bookie.lost().unwrap_or(answered).elapsed());
        self.answered.push(answered.elapsed());
    }
}

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let (kills, unloads, roots) = if setting.teeth { (0, 0, 3_000) } else { setting.pick((3, 6, 3_000), (100, 300, 200_000)) };
    let mut server = service::start()?;
    let mut rig = service::rig(&setting.folder, &server, server.port)?;
    (rig.job.roots, rig.job.goes_on, rig.job.drain) = (roots, true, true);
    let mut random = Random::new(setting.seed, "R8");
    let faults = if setting.teeth { thrown_away() } else { plan(kills, unloads, &mut random) };
    let mut finding = Finding::default();
    let mut met = Met::default();
    let mut in_flight = far::InFlight::new(&rig);
    let mut running = rig.start()?;
    running.until_open().await?;
    let count = faults.len() as u64;
    for fault in faults.into_iter().take_while(|_| !setting.is_over()) {
        let wanted = rig.acked() + random.within(0..2 * roots / (count + 1));
        let going = running.until("progress", |rig| rig.acked() > wanted).await?;
        if !going || running.wait(random.below(LATE_MAX)).await?.is_some() {
            finding.objections.push(format!("the child ended by itself: {}", rig.last_words()));
            break;
        }
        met.in_flight += u64::from(in_flight.count(&rig)? > 0);
        strike(fault, &mut server, &mut running, &mut met).await?;
    }
    rig.enough()?;
    running.until_drained().await?;
    judge(setting, &rig, met, (kills + unloads, roots), finding)
}

/// Kills and unloads in an order of the seed.
fn plan(kills: u64, unloads: u64, random: &mut Random) -> Vec<Fault> {
    let topics: Vec<&'static str> = TOPOLOGY.edges.iter().map(|edge| edge.topic).collect();
    let (mut kills, mut unloads) = (kills, unloads);
    let mut faults = Vec::new();
    while kills + unloads > 0 {
        if random.within(0..kills + unloads) < kills {
            kills -= 1;
            faults.push(Fault::Kill);
        } else {
            unloads -= 1;
            faults.push(Fault::Unload(topics[random.within(0..topics.len() as u64) as usize]));
        }
    }
    faults
}

fn thrown_away() -> Vec<Fault> {
    let edges = TOPOLOGY.edges.iter().skip(1).map(|edge| Fault::ThrowAway(edge.topic, edge.subscription));
    edges.cycle().take(THROWN_AWAY as usize).collect()
}

async fn strike(fault: Fault, server: &mut Pulsar, running: &mut Running<'_>, met: &mut Met) -> Result<()> {
    match fault {
        Fault::Unload(topic) => {
            service::unload(server, topic)?;
            met.unloads += 1;
        }
        Fault::ThrowAway(topic, subscription) => {
            service::act(server, "POST", topic, &format!("subscription/{subscription}/skip_all"))?;
            // What was handed out ahead and is in nobody's hands does not come again.
            service::unload(server, topic)?;
        }
        Fault::Kill => {
            server.kill()?;
            met.kills += 1;
            server.start_again()?;
            let (answered, before) = (Instant::now(), running.rig().count(log::OBSERVED));
            let mut bookie = Bookie::watch(server)?;
            let mut goes_on = |rig: &Rig| {
                bookie.look();
                rig.count(log::OBSERVED) > before
            };
            if running.until("work after a kill", &mut goes_on).await? {
                met.went_on(answered, &bookie);
            }
        }
    }
    Ok(())
}

/// The 99th percentile and the last of these.
fn last_of(times: &mut [Duration]) -> [Duration; 2] {
    times.sort_unstable();
    let late = times.get((times.len() * 99).div_ceil(100).saturating_sub(1));
    [late, times.last()].map(|time| time.copied().unwrap_or_default())
}

fn judge(setting: &Setting, rig: &Rig, mut met: Met, (faults, roots): (u64, u64), mut finding: Finding) -> Result<Finding> {
    let verdict = rig.judge(met.kills + met.unloads)?;
    let ([late, longest], [answered_late, answered_longest]) = (last_of(&mut met.resumed), last_of(&mut met.answered));
    let processes = rig.openings()?;
    finding.seen = format!(
        "{} kills and {} unloads, {} of them with messages in flight; work went on {} ms after the service answered and had its bookie (99th percentile; {} ms at most) in \
         {processes} process; after {} starts the service answered without a bookie, and {} ms after its answer work went on (99th percentile; {} ms at most); {}",
        met.kills,
        met.unloads,
        met.in_flight,
        late.as_millis(),
        longest.as_millis(),
        met.bookies_lost,
        answered_late.as_millis(),
        answered_longest.as_millis(),
        verdict.figures()
    );
    finding.objections.extend(verdict.objections());
    finding.require(processes == 1, || format!("{processes} processes were needed"));
    // Beside other work one start may take longer, so the short tier only sees that work goes on.
    finding.require(late <= RESUME_MAX || setting.pick(true, false), || format!("work went on after {late:?} only"));
    finding.require(met.kills + met.unloads == faults, || format!("only {} of {faults} faults came", met.kills + met.unloads));
    finding.require(answered_longest <= BOOKIE_MAX || setting.pick(true, false), || {
        format!("work went on {answered_longest:?} after the service answered only")
    });
    let resumed = met.resumed.len() as u64;
    finding.require(resumed == met.kills, || format!("work went on after {resumed} of {} kills only", met.kills));
    let came = met.kills + met.unloads;
    finding.require(met.in_flight * 10 >= came * 9, || format!("only {} of {came} faults met messages in flight", met.in_flight));
    let enough = verdict.acked * 100 >= roots * 99;
    finding.require(enough, || format!("only {} of {roots} roots were acknowledged", verdict.acked));
    Ok(finding)
}
