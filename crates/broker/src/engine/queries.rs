//! What only looks: statistics, peeking, state, outcomes, and finding where to start.

use super::{Engine, Store};
use crate::{
    Account, BrokerError, ErrorKind, Message, MessageId, Outcome, Position, Result, Start, SubscriptionStats, TopicStats,
    state::{Looked, SubscriptionId, TopicId},
};
use bytes::Bytes;
use tokio::sync::oneshot;

/// Messages that are read back at once while a start is looked for by time.
const SEEK_BATCH_MESSAGES: usize = 512;

impl<S: Store> Engine<S> {
    pub(crate) async fn peek(&self, topic: &str, name: &str, from: Position, limit: usize) -> Result<Vec<(Position, Message)>> {
        let (topic, subscription) = self.open()?.subscription(topic, name)?;
        let held = self.some_held(topic, Some(subscription), from.0, limit).await?;
        let (positions, handles): (Vec<u64>, Vec<S::Handle>) = held.into_iter().unzip();
        let messages = self.store.load(&handles).await;
        positions
            .into_iter()
            .zip(messages)
            .map(|(position, message)| message.map(|message| (Position(position), Message::clone(&message))))
            .collect()
    }

    pub(crate) async fn unsettled(&self, topic: &str, name: &str, from: Position, limit: usize) -> Result<Vec<Position>> {
        let (topic, subscription) = self.open()?.subscription(topic, name)?;
        let held = self.some_held(topic, Some(subscription), from.0, limit).await?;
        Ok(held.into_iter().map(|(position, _)| Position(position)).collect())
    }

    pub(crate) async fn last_sequence(&self, topic: &str, producer: &str) -> Result<Option<u64>> {
        let found = {
            let core = self.open()?;
            let topic = core.topic(topic)?;
            core.state.topics[topic.0 as usize].producers.get(producer).map(|last| last.sequence)
        };
        // Whoever asks goes on behind it, and never publishes again what was lost.
        self.store.all_durable().await?;
        Ok(found)
    }

    pub(crate) async fn keyed_state(&self, key: &str) -> Result<Option<Bytes>> {
        let found = self.open()?.state.keyed.get(key).cloned();
        self.store.all_durable().await?;
        Ok(found)
    }

    /// Waits like the others for what it tells to be durable: an account that a crash would take back is none.
    pub(crate) async fn account(&self, topology: &str) -> Result<Account> {
        let account = self.open()?.state.account(topology);
        self.store.all_durable().await?;
        Ok(account)
    }

    pub(crate) async fn stats(&self) -> Result<Vec<TopicStats>> {
        let stats = self.stats_now()?;
        self.store.all_durable().await?;
        Ok(stats)
    }

    pub(crate) async fn topic_stats(&self, topic: &str) -> Result<Option<TopicStats>> {
        let stats = {
            let core = self.open()?;
            core.state.find_topic(topic).map(|topic| core.topic_stats(topic, self.clock.now_ms()))
        };
        self.store.all_durable().await?;
        Ok(stats)
    }

    fn stats_now(&self) -> Result<Vec<TopicStats>> {
        let core = self.open()?;
        let now_ms = self.clock.now_ms();
        // Of a topic that was removed there is only the number.
        let topics = core.state.topics.iter().enumerate().filter(|(_, topic)| !topic.spec.name.is_empty());
        let mut all: Vec<TopicStats> = topics.map(|(number, _)| core.topic_stats(TopicId(number as u32), now_ms)).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(all)
    }

    pub(crate) async fn root_outcome(&self, root: MessageId) -> Result<Outcome> {
        let mut looked = Looked::default();
        let outcome = loop {
            let waiter = {
                let mut core = self.open()?;
                let mut missing = Vec::new();
                core.state.missing_root(root.0, &looked, &mut missing);
                match core.state.roots.outcome(root) {
                    // It may be in a spilled block and nowhere else.
                    Some(_) if !missing.is_empty() => Err(missing),
                    Some(outcome) => break outcome,
                    None => Ok(core.wait_for(root)),
                }
            };
            match waiter {
                Err(missing) => self.load(&missing, &mut looked).await?,
                Ok(told) => match told.await {
                    Ok(outcome) => break outcome,
                    // It has ended with a whole block, or with the broker.
                    Err(_) => self.still_open(root)?,
                },
            }
        };
        // What finished it may not be durable yet, and whoever asks may tell the world.
        self.store.all_durable().await?;
        Ok(outcome)
    }

    fn still_open(&self, root: MessageId) -> Result<()> {
        self.store.check()?;
        match self.lock().closed {
            true => Err(BrokerError::new(ErrorKind::Closed, format!("broker was closed before root `{root}` was done"))),
            false => Ok(()),
        }
    }

    /// The position that a start means.
    pub(crate) async fn resolve(&self, topic: &str, start: Start) -> Result<u64> {
        let (number, mut from) = {
            let core = self.open()?;
            let number = core.topic(topic)?;
            let log = core.state.log(number);
            match start {
                Start::Earliest => return Ok(log.first_held().unwrap_or(log.next())),
                Start::Latest => return Ok(log.next()),
                Start::At(position) => return Ok(position.0.min(log.next())),
                Start::Time(created_ms) => (number, log.first_since(created_ms).unwrap_or(log.next())),
            }
        };
        let Start::Time(created_ms) = start else { return Ok(from) };
        loop {
            let held = self.some_held(number, None, from, SEEK_BATCH_MESSAGES).await?;
            let (positions, handles): (Vec<u64>, Vec<S::Handle>) = held.into_iter().unzip();
            let Some(last) = positions.last() else { return Ok(from) };
            let messages = self.store.load(&handles).await;
            let found =
                positions.iter().zip(&messages).find(|(_, message)| message.as_ref().is_ok_and(|m| m.created_ms >= created_ms));
            if let Some((position, _)) = found {
                return Ok(*position);
            }
            from = last + 1;
        }
    }
}

impl<H, G> super::Core<H, G> {
    fn wait_for(&mut self, root: MessageId) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let waiting = self.waiting.entry(root).or_default();
        // Who asks again and again with a limit of time leaves a sender behind each time.
        waiting.retain(|tell| !tell.is_closed());
        waiting.push(tell);
        told
    }

    fn topic_stats(&self, number: TopicId, now_ms: u64) -> TopicStats {
        let topic = &self.state.topics[number.0 as usize];
        let subscriptions =
            topic.subscriptions.iter().filter_map(|found| self.subscription_stats(number, *found, now_ms)).collect();
        TopicStats { spec: topic.spec.clone(), published: topic.log.next(), damaged: topic.damaged, subscriptions }
    }

    fn subscription_stats(&self, topic: TopicId, number: SubscriptionId, now_ms: u64) -> Option<(String, SubscriptionStats)> {
        let subscription = self.state.subscription_of(number)?;
        let topic = &self.state.topics[topic.0 as usize];
        let feed = self.feeds.get(&number);
        let settled: u64 = subscription.settled.above().map(|(start, end)| end - start).sum();
        let unsettled = topic.log.next().saturating_sub(subscription.settled.cursor()).saturating_sub(settled);
        let in_flight = feed.map_or(0, super::Feed::in_flight) as u64;
        let waits = |position: &u64| !feed.is_some_and(|feed| feed.holds(*position)) && !subscription.settled.contains(*position);
        let returned = subscription.delays.iter().filter(|(position, delay)| delay.until_ms > now_ms && waits(position)).count();
        let fresh = topic.deliver_at.iter().filter(|(position, at)| {
            **at > now_ms
                && waits(position)
                && !subscription.attempts.contains_key(position)
                && !subscription.delays.contains_key(position)
        });
        let stats = SubscriptionStats {
            backlog: unsettled.saturating_sub(in_flight),
            in_flight,
            delayed: (returned + fresh.count()) as u64,
            consumers: feed.map_or(0, super::Feed::consumers),
        };
        Some((subscription.name.clone(), stats))
    }
}
