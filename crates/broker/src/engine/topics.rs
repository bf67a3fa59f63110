//! Making and removing topics and subscriptions.

use super::{Core, Engine, Store, plan};
use crate::{
    BrokerError, ErrorKind, Result, Start, Step, TopicSpec,
    state::{Event, Looked},
};
use leatworks_journal::Effect;

/// Whether a topic is to be other than it is, in what may be changed of it.
fn changes(known: &TopicSpec, to: &TopicSpec) -> bool {
    let level = to.durability.is_some() && to.durability != known.durability;
    level || (known.retention, known.retention_bytes) != (to.retention, to.retention_bytes)
}

impl<S: Store> Engine<S> {
    pub(crate) async fn create_topic(&self, mut spec: TopicSpec) -> Result<()> {
        plan::check_name("topic", &spec.name)?;
        self.store.prepare(&mut spec)?;
        let noted = {
            let bytes = plan::size(&Step::default()) * 8 + spec.topology.len();
            let mut core = self.open_with_room(bytes, Effect::Adds).await?;
            let known = core.state.find_topic(&spec.name).map(|topic| &core.state.topics[topic.0 as usize].spec);
            match known {
                Some(known) if !changes(known, &spec) => None,
                _ => Some(self.enact(&mut core, Event::Topic(spec), bytes)),
            }
        };
        self.durable(noted).await
    }

    pub(crate) async fn delete_topic(&self, name: &str) -> Result<()> {
        let noted = {
            let mut core = self.open_with_room(plan::size(&Step::default()), Effect::Frees).await?;
            let topic = core.topic(name)?;
            let count = core.state.topics[topic.0 as usize].subscriptions.len();
            if count > 0 {
                return Err(BrokerError::new(ErrorKind::Conflict, format!("topic `{name}` has {count} subscriptions")));
            }
            core.recent.remove(&topic);
            core.look_at_producers.remove(&topic);
            self.enact(&mut core, Event::DeleteTopic(topic), plan::size(&Step::default()))
        };
        self.store.durable(noted).await
    }

    pub(crate) async fn create_subscription(&self, topic: &str, name: &str, start: Start) -> Result<()> {
        plan::check_name("subscription", name)?;
        let from = self.resolve(topic, start).await?;
        let noted = {
            let bytes = plan::size(&Step::default()) * 8;
            let needs = |core: &Core<_, _>, _: &Looked| match core.topic(topic) {
                Ok(topic) if start != Start::Latest && core.state.find_subscription(topic, name).is_none() => {
                    core.state.missing_for(&Event::Subscription { topic, name: String::new(), from })
                }
                _ => Vec::new(),
            };
            let mut core = self.open_loaded(bytes, Effect::Adds, needs).await?;
            let topic = core.topic(topic)?;
            match core.state.find_subscription(topic, name) {
                Some(_) => None,
                None => {
                    // `Latest` means now, not when it was asked for.
                    let from = if start == Start::Latest { core.state.log(topic).next() } else { from };
                    let noted = self.enact(&mut core, Event::Subscription { topic, name: name.to_owned(), from }, bytes);
                    core.look_whether_passing(topic);
                    Some(noted)
                }
            }
        };
        self.durable(noted).await
    }

    pub(crate) async fn unsubscribe(&self, topic: &str, name: &str) -> Result<()> {
        let noted = {
            let needs = |core: &Core<_, _>, _: &Looked| match core.subscription(topic, name) {
                Ok((_, subscription)) => core.state.missing_for(&Event::Unsubscribe(subscription)),
                Err(_) => Vec::new(),
            };
            let mut core = self.open_loaded(plan::size(&Step::default()), Effect::Frees, needs).await?;
            let (_, subscription) = core.subscription(topic, name)?;
            core.idle(subscription, topic, name)?;
            core.feeds.remove(&subscription);
            self.enact(&mut core, Event::Unsubscribe(subscription), plan::size(&Step::default()))
        };
        self.store.durable(noted).await
    }
}
