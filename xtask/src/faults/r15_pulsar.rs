//! R15 on a Pulsar service: messages of every topic come again, later and in another order, also behind a restart of the process that takes them.

use super::{Finding, Setting, far, random::Random, service, workload::TOPOLOGY};
use anyhow::{Result, bail};
use leatworks::topics::{self, TopologyRef};
use leatworks_broker::{Ack, Broker, Delivery, HandOff, Message, MessageId, Publish, Start, Step, Subscribe, SubscriptionKind};
use leatworks_pulsar::PulsarBroker;
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};

/// One in so many messages comes again.
const EACH: u64 = 10;

/// Copies that are kept until they are sent in a random order: so many messages and more come between a message and its copy.
const KEPT: usize = 20;

/// The subscription that sees what crosses.
const SUBSCRIPTION: &str = "again";

/// Messages that are taken at once, and permits of each consumer.
const TAKEN: usize = 50;

pub(crate) async fn run(setting: &Setting) -> Result<Finding> {
    let roots = setting.pick(1_000, 20_000);
    let server = service::start()?;
    let mut rig = service::rig(&setting.folder, &server, server.port)?;
    let broker = PulsarBroker::connect(far::options(service::at(&server, server.port))).await?;
    topics::create(&broker, &TopologyRef::from(&TOPOLOGY)).await?;
    let (stop, stopped) = watch::channel(false);
    let mut repeating = Vec::new();
    for topic in TOPOLOGY.edges.iter().map(|edge| edge.topic).collect::<BTreeSet<_>>() {
        broker.create_subscription(topic, SUBSCRIPTION, Start::Earliest).await?;
        let random = Random::new(setting.seed, topic);
        repeating.push(repeat(broker.clone(), topic, random, setting.teeth, stopped.clone()).await?);
    }
    rig.job.roots = roots;
    rig.drain().await?;
    stop.send_replace(true);
    let mut copies = Vec::new();
    for repeating in repeating {
        copies.extend(repeating.await??);
    }
    let meanwhile = copies.len();
    // Nobody takes what comes to it any more.
    for topic in TOPOLOGY.edges.iter().map(|edge| edge.topic).collect::<BTreeSet<_>>() {
        broker.unsubscribe(topic, SUBSCRIPTION).await?;
    }
    // What another process has handled comes to a new one.
    shuffle(&mut copies, &mut Random::new(setting.seed, "R15"));
    for some in copies.chunks(KEPT) {
        broker.publish(some.to_vec()).await?;
    }
    broker.close().await?;
    rig.job.roots = 2 * roots;
    rig.drain().await?;
    let verdict = rig.judge(0)?;
    let topics = TOPOLOGY.edges.iter().map(|edge| edge.topic).collect::<BTreeSet<_>>().len();
    let seen = format!(
        "{meanwhile} copies of messages of {topics} topics while they crossed, and all of them once more to the next process, in another order; {}",
        verdict.figures()
    );
    let mut finding = Finding { seen, objections: verdict.objections() };
    // Each root is a message of the ingress and of the fork, and two behind it.
    let wanted = roots * 5 / EACH / 2;
    finding.require(meanwhile as u64 >= wanted, || format!("only {meanwhile} messages came again, {wanted} are wanted"));
    finding.require(verdict.acked == 2 * roots, || format!("only {} of {} roots were acknowledged", verdict.acked, 2 * roots));
    Ok(finding)
}

/// Publishes some of what comes to a topic once more, until it is stopped. Gives what it has published.
async fn repeat(
    broker: PulsarBroker,
    topic: &'static str,
    mut random: Random,
    others: bool,
    mut stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<Vec<Publish>>>> {
    let subscribe = Subscribe {
        topic: topic.to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        kind: SubscriptionKind::Shared,
        consumer: SUBSCRIPTION.to_owned(),
        permits: TAKEN,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await?;
    let topic: Arc<str> = topic.into();
    Ok(tokio::spawn(async move {
        let (mut kept, mut sent) = (Vec::new(), Vec::new());
        loop {
            let taken = tokio::select! {
                taken = consumer.receive(TAKEN) => taken?,
                stop = stopped.wait_for(|stop| *stop) => match stop {
                    Ok(_) => return Ok(sent),
                    Err(_) => bail!("nobody waits for the copies"),
                },
            };
            let ack = |delivery: &Delivery| Ack {
                topic: topic.clone(),
                subscription: SUBSCRIPTION.into(),
                position: delivery.position,
                cumulative: false,
            };
            let acks = taken.iter().map(ack).collect();
            let some = taken.into_iter().filter(|_| random.within(0..EACH) == 0);
            kept.extend(some.map(|delivery| copy(&topic, &delivery.message, others)));
            if kept.len() >= KEPT {
                shuffle(&mut kept, &mut random);
                sent.extend(kept.iter().cloned());
                broker.publish(std::mem::take(&mut kept)).await?;
            }
            // Behind the copies: whoever sees that nothing waits here knows that all of them are there.
            broker.commit(Step { acks, ..Step::default() }).await?;
        }
    }))
}

/// The same message once more; or, as of a product that does not know it again, with another id.
fn copy(topic: &Arc<str>, message: &Arc<Message>, others: bool) -> Publish {
    let message = match others {
        true => Message { id: MessageId(!message.id.0), ..Message::clone(message) }.into(),
        false => message.clone(),
    };
    Publish { topic: topic.clone(), message, sequence: None }
}

fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for last in (1..all.len()).rev() {
        all.swap(last, random.within(0..last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_all_and_changes_their_order() {
        let mut all: Vec<u64> = (0..100).collect();
        shuffle(&mut all, &mut Random::new(1, "shuffle"));
        assert!(!all.is_sorted());
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..100));
    }
}
