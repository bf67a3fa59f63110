//! R24 on a Pulsar service: the processes of a topology start and stop in every order, also what sends before anybody takes.

use super::{Finding, Setting, child::Job, far, log, oracle::Verdict, random::Random, rig::Rig, service, workload::TOPOLOGY};
use anyhow::{Result, bail};
use leatworks::topics::DEAD_LETTER_SUBSCRIPTION;
use leatworks_broker::{Broker, ErrorKind};
use leatworks_pulsar::PulsarBroker;
use std::time::Duration;

/// The processes: what sends, and the tasks whose edges each of the others serves.
const PROCESSES: [&[&str]; 5] = [&[], &["start"], &["left", "right"], &["join"], &["sink"]];

/// Roots of each order, and how many a second: what sends goes on while the others come and go.
const ROOTS: u64 = 60;
const RATE: u64 = 100;

/// How long after the last start, and between two stops, at most.
const APART: Duration = Duration::from_millis(300);

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let mut random = Random::new(setting.seed, "R24");
    let mut orders = permutations(PROCESSES.len());
    let all = orders.len();
    if let Some(some) = setting.pick(Some(PROCESSES.len()), None) {
        // Each process is the first one once.
        let begin = random.within(0..(all / PROCESSES.len()) as u64) as usize;
        orders = orders.into_iter().skip(begin).step_by(all / PROCESSES.len()).take(some).collect();
    }
    let server = service::start()?;
    let broker = PulsarBroker::connect(far::options(service::at(&server, server.port))).await?;
    let mut finding = Finding::default();
    let mut sum = Verdict::default();
    for (number, order) in orders.iter().enumerate() {
        let mut rig = service::rig(&setting.folder.join(number.to_string()), &server, server.port)?;
        let stops = permutations(PROCESSES.len()).swap_remove(random.within(0..all as u64) as usize);
        come_and_go(&rig, order, &stops, &mut random).await?;
        rig.job.roots = ROOTS;
        rig.drain().await?;
        let verdict = rig.judge(PROCESSES.len() as u64)?;
        let wrong = verdict.objections();
        if !wrong.is_empty() {
            finding.objections.push(format!("started as {order:?} and stopped as {stops:?}: {}", wrong.join(", ")));
        }
        // Who sends may be killed between the service's receipt and its note of it: such a root is not sent again, and must have come like all others.
        let came = verdict.observed - verdict.repeated;
        finding.require(came == 2 * ROOTS, || {
            format!(
                "started as {order:?} and stopped as {stops:?}: {came} messages at the sink where {ROOTS} roots come by two ways"
            )
        });
        sum.add(&verdict);
        forget(&broker).await?;
    }
    broker.close().await?;
    finding.seen = format!(
        "{} of {all} orders in which {} processes start, each stopped in a random one by a kill; {}",
        orders.len(),
        PROCESSES.len(),
        sum.figures()
    );
    Ok(finding)
}

/// Starts the processes in one order on a service that has no topics, and kills them in another.
async fn come_and_go(rig: &Rig, starts: &[usize], stops: &[usize], random: &mut Random) -> Result<()> {
    let mut running: Vec<_> = PROCESSES.iter().map(|_| None).collect();
    for process in starts {
        let serves: Vec<String> = PROCESSES[*process].iter().map(|task| (*task).to_owned()).collect();
        let job = match serves.is_empty() {
            true => Job { dispatch: false, roots: ROOTS, rate: Some(RATE), ..rig.job.clone() },
            false => Job { roots: 0, serves, ..rig.job.clone() },
        };
        let mut child = rig.start_with(&job)?;
        if !child.until_open().await? {
            bail!("process {process} did not open: {}", rig.last_words());
        }
        running[*process] = Some(child);
    }
    for process in stops {
        let Some(mut child) = running[*process].take() else { continue };
        if child.wait(random.below(APART)).await?.is_some() {
            bail!("process {process} ended by itself: {}", rig.last_words());
        }
        child.kill().await?;
    }
    debug_assert!(rig.count(log::OPENED) >= PROCESSES.len() as u64);
    Ok(())
}

/// Removes everything from the service, so that the next processes find it empty.
async fn forget(broker: &PulsarBroker) -> Result<()> {
    for edge in TOPOLOGY.edges {
        for (topic, subscription) in [
            (edge.topic, edge.subscription),
            (edge.retry_topic, edge.subscription),
            (edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION),
        ] {
            there(broker.unsubscribe(topic, subscription).await)?;
        }
    }
    for topic in broker.stats().await? {
        there(broker.delete_topic(&topic.spec.name).await)?;
    }
    Ok(())
}

/// What is not there needs not be removed: with a subscription goes its retry topic.
fn there(removed: leatworks_broker::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// All orders of the numbers below this one, by the first of each.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..count {
        let longer = |order: &Vec<usize>| {
            let order = order.clone();
            (0..count).filter(|next| !order.contains(next)).map(|next| [&order[..], &[next]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn there_are_as_many_orders_as_there_can_be_and_each_begins_a_part_of_them() {
        let all = permutations(5);
        assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (120, 120));
        let firsts: Vec<usize> = all.iter().step_by(24).map(|order| order[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 3, 4]);
    }
}
