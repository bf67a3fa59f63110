//! The broker that keeps everything in memory: for tests, and for work that may be lost.

use crate::{
    BrokerError, Durability, Message, MessageId, Result, TopicSpec,
    engine::{Clock, Engine, Limits, Noted, Store, message_size},
    state::{Event, Index, Indexed, Missing, Run, State, SubscriptionId},
};
use leatworks_journal::Effect;
use std::sync::Arc;

/// A broker in memory. It keeps the whole contract but survives nothing; its time is tokio's, so that paused time works.
#[derive(Clone)]
pub struct MemoryBroker {
    engine: Arc<Engine<MemoryStore>>,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new(limits: Limits) -> Self {
        Self { engine: Engine::new(MemoryStore, State::default(), (), Clock::new(), limits) }
    }
}

crate::engine::broker_by_engine!(MemoryBroker);

/// Keeps nothing but the messages themselves: an event is as durable as it will ever be when it is applied.
struct MemoryStore;

impl Store for MemoryStore {
    type Handle = Arc<Message>;
    type Group = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn level(&self) -> Durability {
        Durability::Memory
    }

    fn prepare(&self, spec: &mut TopicSpec) -> Result<()> {
        spec.durability = None;
        Ok(())
    }

    fn has_room(&self, (): &(), _bytes: usize, _effect: Effect) -> bool {
        true
    }

    fn wave_bytes(&self) -> Option<u64> {
        None
    }

    async fn room(&self, _bytes: usize, _effect: Effect) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &mut (), _state: &State<Arc<Message>>, _event: &Event<Arc<Message>>, _bytes: usize) -> Noted {
        // Nobody waits for it.
        Noted { sequence: 0, level: Durability::Memory }
    }

    fn applied(&self, (): &mut (), state: &mut State<Arc<Message>>) {
        state.freed.clear();
    }

    async fn durable(&self, _noted: Noted) -> Result<()> {
        Ok(())
    }

    async fn all_durable(&self) -> Result<()> {
        Ok(())
    }

    fn is_durable(&self, _noted: Noted) -> bool {
        true
    }

    fn attempts_before(&self, (): &mut (), _subscription: SubscriptionId, _position: u64, _id: MessageId) -> Option<u32> {
        None
    }

    fn hand_out(&self, (): &mut (), _subscription: SubscriptionId, _handed: (u64, u32), _id: MessageId, _durable: bool) {}

    fn hand_back(&self, (): &mut (), _subscription: SubscriptionId, _start: u64, _end: u64, _attempt: u32) {}

    fn forget_hand(&self, (): &mut (), _subscription: SubscriptionId) {}

    fn write_hand(&self, _take: impl FnOnce(&mut dyn FnMut(&mut ()))) -> Result<()> {
        Ok(())
    }

    fn size(message: &Arc<Message>) -> usize {
        message_size(message)
    }

    async fn load(&self, handles: &[Arc<Message>]) -> Vec<Result<Arc<Message>>> {
        handles.iter().map(|message| Ok(message.clone())).collect()
    }

    async fn load_indexes(&self, _missing: &[Missing<Arc<Message>>]) -> Result<Vec<Result<Index<Arc<Message>>>>> {
        Ok(Vec::new())
    }

    async fn find_anew(
        &self,
        _missing: &Missing<Arc<Message>>,
        _runs: Vec<Run>,
        reason: &BrokerError,
    ) -> Result<Vec<Indexed<Arc<Message>>>> {
        Err(reason.clone())
    }

    async fn close(_engine: &Arc<Engine<Self>>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ack, Broker, HandOff, Publish, Start, Step, Subscribe, SubscriptionKind, TopicKind, TopicSpec};

    #[tokio::test]
    async fn a_million_roots_that_give_nothing_leave_nothing_behind() {
        const BATCH: u128 = 1_000;
        let broker = MemoryBroker::new(Limits::default());
        let spec = TopicSpec { name: "in".into(), kind: TopicKind::Ingress, topology: "t".into(), ..TopicSpec::default() };
        broker.create_topic(spec).await.unwrap();
        broker.create_subscription("in", "a", Start::Earliest).await.unwrap();
        let (topic, subscription): (Arc<str>, Arc<str>) = ("in".into(), "a".into());
        let subscribe = Subscribe {
            topic: "in".into(),
            subscription: "a".into(),
            kind: SubscriptionKind::KeyShared,
            consumer: "c".into(),
            permits: BATCH as usize,
            hand_off: HandOff::Durable,
        };
        let mut consumer = broker.subscribe(subscribe).await.unwrap();
        for batch in 0..1_000 {
            let root = |number: u128| {
                let id = MessageId(batch * BATCH + number + 1);
                let message = Message { id, root: id, key: Some(number.to_string()), ..Message::default() };
                Publish { topic: topic.clone(), message: message.into(), sequence: None }
            };
            broker.publish((0..BATCH).map(root).collect()).await.unwrap();
            let got = crate::Consumer::receive(&mut *consumer, BATCH as usize).await.unwrap();
            assert_eq!(got.len(), BATCH as usize);
            let ack = |position| Ack { topic: topic.clone(), subscription: subscription.clone(), position, cumulative: false };
            // The last of a batch first, so that what is settled is not always one range.
            let acks = got.iter().rev().map(|delivery| ack(delivery.position)).collect();
            broker.commit(Step { acks, guard: true, ..Step::default() }).await.unwrap();
        }
        let account = broker.account("t").await.unwrap();
        assert_eq!((account.sent, account.done), (1_000_000, 1_000_000));
        let core = broker.engine.lock();
        let topic = &core.state.topics[0];
        let found = core.state.subscriptions[0].as_ref().unwrap();
        assert_eq!((core.state.roots.len(), topic.deliver_at.len(), found.attempts.len(), found.delays.len()), (0, 0, 0, 0));
        assert!(core.state.roots.slots() <= BATCH as usize, "{} slots for roots", core.state.roots.slots());
        assert!(topic.log.blocks() <= 2, "{} blocks of messages", topic.log.blocks());
        assert_eq!((found.settled.cursor(), found.settled.above().len()), (1_000_000, 0));
    }
}
