//! Makes a public broker of an engine.

/// Implements [`Broker`](crate::Broker) for a type whose field `engine` is an `Arc<Engine<_>>`.
macro_rules! broker_by_engine {
    ($broker:ty) => {
        impl $crate::Broker for $broker {
            fn durability(&self) -> &str {
                $crate::engine::Store::level(&self.engine.store).name()
            }

            fn create_topic(&self, spec: $crate::TopicSpec) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                Box::pin(self.engine.create_topic(spec))
            }

            fn delete_topic(&self, topic: &str) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                let topic = topic.to_owned();
                Box::pin(async move { self.engine.delete_topic(&topic).await })
            }

            fn create_subscription(
                &self,
                topic: &str,
                subscription: &str,
                start: $crate::Start,
            ) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.create_subscription(&topic, &subscription, start).await })
            }

            fn unsubscribe(&self, topic: &str, subscription: &str) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.unsubscribe(&topic, &subscription).await })
            }

            fn subscribe(
                &self,
                subscribe: $crate::Subscribe,
            ) -> $crate::BoxFuture<'_, $crate::Result<Box<dyn $crate::Consumer>>> {
                Box::pin(self.engine.subscribe(subscribe))
            }

            fn publish(&self, batch: Vec<$crate::Publish>) -> $crate::BoxFuture<'_, $crate::Result<Vec<$crate::Position>>> {
                Box::pin(self.engine.publish(batch))
            }

            fn commit(&self, step: $crate::Step) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                Box::pin(async move { self.engine.write(step).await.map(|_| ()) })
            }

            fn nack(
                &self,
                topic: &str,
                subscription: &str,
                position: $crate::Position,
                delay: std::time::Duration,
            ) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.nack(&topic, &subscription, position, delay).await })
            }

            fn seek(&self, topic: &str, subscription: &str, to: $crate::Start) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.seek(&topic, &subscription, to).await })
            }

            fn peek(
                &self,
                topic: &str,
                subscription: &str,
                from: $crate::Position,
                limit: usize,
            ) -> $crate::BoxFuture<'_, $crate::Result<Vec<($crate::Position, $crate::Message)>>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.peek(&topic, &subscription, from, limit).await })
            }

            fn unsettled(
                &self,
                topic: &str,
                subscription: &str,
                from: $crate::Position,
                limit: usize,
            ) -> $crate::BoxFuture<'_, $crate::Result<Vec<$crate::Position>>> {
                let (topic, subscription) = (topic.to_owned(), subscription.to_owned());
                Box::pin(async move { self.engine.unsettled(&topic, &subscription, from, limit).await })
            }

            fn last_sequence(&self, topic: &str, producer: &str) -> $crate::BoxFuture<'_, $crate::Result<Option<u64>>> {
                let (topic, producer) = (topic.to_owned(), producer.to_owned());
                Box::pin(async move { self.engine.last_sequence(&topic, &producer).await })
            }

            fn state(&self, key: &str) -> $crate::BoxFuture<'_, $crate::Result<Option<bytes::Bytes>>> {
                let key = key.to_owned();
                Box::pin(async move { self.engine.keyed_state(&key).await })
            }

            fn stats(&self) -> $crate::BoxFuture<'_, $crate::Result<Vec<$crate::TopicStats>>> {
                Box::pin(self.engine.stats())
            }

            fn topic_stats(&self, topic: &str) -> $crate::BoxFuture<'_, $crate::Result<Option<$crate::TopicStats>>> {
                let topic = topic.to_owned();
                Box::pin(async move { self.engine.topic_stats(&topic).await })
            }

            fn account(&self, topology: &str) -> $crate::BoxFuture<'_, $crate::Result<$crate::Account>> {
                let topology = topology.to_owned();
                Box::pin(async move { self.engine.account(&topology).await })
            }

            fn root_outcome(&self, root: $crate::MessageId) -> $crate::BoxFuture<'_, $crate::Result<$crate::Outcome>> {
                Box::pin(self.engine.root_outcome(root))
            }

            fn max_message_bytes(&self) -> usize {
                self.engine.limits.message_bytes_max
            }

            fn close(&self) -> $crate::BoxFuture<'_, $crate::Result<()>> {
                Box::pin(self.engine.close())
            }
        }
    };
}

pub(crate) use broker_by_engine;
