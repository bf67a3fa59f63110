//! Publishing: what belongs to one producer goes to it together, and all receipts are waited for.

use super::{
    Inner,
    error::{Answer, PulsarError},
    limits::{EXTRAS_BYTES_MAX, PENDING_BYTES_MAX},
    pack::{self, Again, NO_POSITION, Outgoing},
    sender::{Beside, Sender},
    topics::NAME_BYTES_MAX,
};
use futures_util::future::join_all;
use leatworks_broker::{BrokerError, ErrorKind, Position, Publish, Result};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The largest sequence: the service counts with a sign.
pub(super) const SEQUENCE_MAX: u64 = i64::MAX as u64;

impl Inner {
    pub(super) async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Position>> {
        self.check()?;
        self.check_publishes(&batch).await?;
        self.publish_checked(batch).await
    }

    /// Everything that can be decided before anything is sent.
    pub(super) async fn check_publishes(&self, batch: &[Publish]) -> Result<()> {
        let mut last: Option<&str> = None;
        for Publish { topic, message, sequence } in batch {
            let bytes = message.payload.len();
            if bytes > self.message_bytes_max {
                let text = format!("a message of {bytes} bytes to `{topic}`, at most {} are taken", self.message_bytes_max);
                return Err(BrokerError::new(ErrorKind::TooLarge, text));
            }
            let extras = pack::extras(message);
            if bytes + extras > self.message_bytes_max + EXTRAS_BYTES_MAX {
                let text = format!(
                    "a message of {bytes} bytes to `{topic}` with {extras} bytes of properties, key and trace: at most {} are taken together",
                    self.message_bytes_max + EXTRAS_BYTES_MAX
                );
                return Err(BrokerError::new(ErrorKind::TooLarge, text));
            }
            if let Some((producer, sequence)) = sequence {
                // Other than a topic's it may have any characters: the name of a source has slashes.
                if producer.is_empty() || producer.len() > NAME_BYTES_MAX {
                    let text = format!("producer `{producer}`: a name is 1 to {NAME_BYTES_MAX} bytes");
                    return Err(BrokerError::new(ErrorKind::Invalid, text));
                }
                if *sequence > SEQUENCE_MAX {
                    let text = format!("sequence {sequence} of producer `{producer}`: at most {SEQUENCE_MAX} is taken");
                    return Err(BrokerError::new(ErrorKind::Invalid, text));
                }
            }
            if last != Some(topic) {
                self.spec(topic).await?;
                last = Some(topic);
            }
        }
        Ok(())
    }

    pub(super) async fn publish_checked(&self, batch: Vec<Publish>) -> Result<Vec<Position>> {
        type Key = (Arc<str>, Option<Arc<str>>);
        type Group = (Sender, Vec<Outgoing>, Vec<usize>, usize);
        let mut positions = vec![NO_POSITION; batch.len()];
        let mut groups: Vec<(Key, Group)> = Vec::new();
        for (index, Publish { topic, message, sequence }) in batch.into_iter().enumerate() {
            let (producer, sequence) = sequence.unzip();
            let key = (topic, producer);
            let at = match groups.iter().position(|(found, _)| *found == key) {
                Some(at) => at,
                None => {
                    let sender = self.sender(&key.0, key.1.clone())?;
                    groups.push((key, (sender, Vec::new(), Vec::new(), 0)));
                    groups.len() - 1
                }
            };
            let (_, messages, indexes, bytes) = &mut groups[at].1;
            *bytes += message.payload.len();
            messages.push(Outgoing { message, sequence, again: Again::default() });
            indexes.push(index);
        }
        let mut sending = Vec::new();
        for (_, (sender, messages, indexes, bytes)) in groups {
            let room = self.room(bytes).await?;
            sending.push(async move { (sender.publish(messages, Some(room)).await, indexes) });
        }
        for (published, indexes) in join_all(sending).await {
            for (index, position) in indexes.into_iter().zip(published?) {
                positions[index] = position;
            }
        }
        Ok(positions)
    }

    /// Waits until there is room for so many bytes.
    pub(super) async fn room(&self, bytes: usize) -> Answer<OwnedSemaphorePermit> {
        let permits = bytes.clamp(1, PENDING_BYTES_MAX) as u32;
        self.room.clone().acquire_many_owned(permits).await.map_err(|_| PulsarError::Closed)
    }

    /// The producer of this name on a topic, or the one without a name.
    pub(super) fn sender(&self, topic: &str, producer: Option<Arc<str>>) -> Answer<Sender> {
        self.check()?;
        let name = producer.as_deref().map(str::to_owned);
        let open = || Sender::open(self.producing.clone(), self.options.full(topic), name, Beside::Others);
        Ok(self.known().senders.entry((topic.to_owned(), producer)).or_insert_with(open).clone())
    }

    pub(super) async fn last_sequence(&self, topic: &str, producer: &str) -> Result<Option<u64>> {
        self.check()?;
        self.spec(topic).await?;
        Ok(self.sender(topic, Some(producer.into()))?.last_sequence().await?)
    }
}
