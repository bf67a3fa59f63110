//! What of the state is to survive how much.

use super::{Event, State, SubscriptionId, TopicId};
use crate::{Durability, TopicSpec};

impl<H> State<H> {
    /// Sets the level of topics that have none of their own.
    pub(crate) fn set_usual(&mut self, usual: Durability) {
        self.usual = usual;
        self.leveled = self.topics.iter().any(|topic| topic.spec.durability.is_some_and(|level| level != usual));
    }

    /// The level of a topic.
    pub(crate) fn topic_level(&self, topic: TopicId) -> Durability {
        match self.leveled {
            false => self.usual,
            true => self.topics.get(topic.0 as usize).and_then(|topic| topic.spec.durability).unwrap_or(self.usual),
        }
    }

    /// The level of an event that is about to be applied: the strongest of the topics that it touches.
    pub(crate) fn level(&self, event: &Event<H>) -> Durability {
        let of = |topic: &TopicId| self.topic_level(*topic);
        if let Event::Topic(TopicSpec { name, durability, .. }) = event {
            // From one level to another it takes the stronger.
            let before = self.find_topic(name).map(|topic| of(&topic));
            return before.max(*durability).unwrap_or(self.usual);
        }
        if !self.leveled {
            return self.usual;
        }
        let by = |number: &SubscriptionId| self.subscription_of(*number).map_or(self.usual, |found| of(&found.topic));
        let strongest = match event {
            Event::Topic(_) => None,
            Event::DeleteTopic(topic)
            | Event::Subscription { topic, .. }
            | Event::Expire { topic, .. }
            | Event::Forget { topic, .. } => Some(of(topic)),
            Event::Unsubscribe(number)
            | Event::Seek { subscription: number, .. }
            | Event::Attempts { subscription: number, .. }
            | Event::Delay { subscription: number, .. }
            | Event::Damaged { subscription: number, .. } => Some(by(number)),
            Event::Step { settled, publishes, .. } => settled
                .iter()
                .map(|span| by(&span.subscription))
                .chain(publishes.iter().map(|published| of(&published.topic)))
                .max(),
            Event::Moved { messages } => messages.iter().map(|(topic, ..)| of(topic)).max(),
        };
        strongest.unwrap_or(self.usual)
    }
}
