//! Reads what a topic holds without taking it, for whoever looks into a queue.

use super::{
    admin::{Admin, Cursor},
    error::PulsarError,
    feed::{Feed, FeedOptions, Sink},
    limits::{ANSWER_TIME_MAX, PREFETCH_MAX, STILL_MAX},
    now_ms,
    options::PulsarOptions,
    pack::{self, Arrived, Place},
    pool::Pool,
};
use crate::wire::{
    frame::Entry,
    proto::{Deliver, MessageIdData, SubType},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where entries go that are read.
struct Line(mpsc::UnboundedSender<Result<(Deliver, Entry), PulsarError>>);

impl Sink for Line {
    fn arrived(&self, feed: &Arc<Feed>, deliver: Deliver, entry: Entry) {
        let messages = entry.metadata.num_messages_in_batch.unwrap_or(1).max(1) as usize;
        // Who does not read any more wants no more.
        if self.0.send(Ok((deliver, entry))).is_ok() {
            feed.give(messages, feed.epoch());
        }
    }

    fn lost(&self, _: &Arc<Feed>) {
        let _ = self.0.send(Err(PulsarError::Away("the connection was lost while a topic was read".to_owned())));
    }

    fn failed(&self, _: &Arc<Feed>, error: PulsarError) {
        let _ = self.0.send(Err(error));
    }
}

/// A place as the admin API writes it, `LEDGER:ENTRY`; the entry is -1 before the first.
pub(crate) fn place(text: &str) -> Option<(u64, i64)> {
    let (ledger, entry) = text.split_once(':')?;
    Some((ledger.parse().ok()?, entry.parse().ok()?))
}

/// Which entries a subscription has acknowledged.
pub(crate) struct Acknowledged {
    pub(crate) through: (u64, i64),
    ranges: Vec<((u64, i64), (u64, i64))>,
}

impl Acknowledged {
    /// As the admin API writes it: `(LEDGER:ENTRY..LEDGER:ENTRY]`, without the first and with the last.
    pub(crate) fn read(cursor: &Cursor) -> Option<Self> {
        let through = place(&cursor.mark_delete_position)?;
        let text = cursor.individually_deleted_messages.trim_matches(['[', ']', ' ']);
        let range = |text: &str| {
            let (after, last) = text.trim_matches(['(', ')', '[', ']', ',', ' ']).split_once("..")?;
            Some((place(after.trim_matches('\u{2025}'))?, place(last)?))
        };
        let ranges = text.split(']').filter_map(|text| range(&text.replace('\u{2025}', ".."))).collect();
        Some(Self { through, ranges })
    }

    pub(crate) fn has(&self, place: Place) -> bool {
        let at = (place.ledger, place.entry as i64);
        at <= self.through || self.ranges.iter().any(|(after, last)| *after < at && at <= *last)
    }
}

/// What is read.
pub(crate) struct Reading<'a> {
    pub(crate) pool: &'a Arc<Pool>,
    pub(crate) admin: &'a Admin,
    pub(crate) options: &'a PulsarOptions,
}

impl Reading<'_> {
    /// The entries of a topic behind a place, as long as `more` wants them.
    pub(crate) async fn entries(
        &self,
        topic: &str,
        after: (u64, i64),
        mut more: impl FnMut(Place, Vec<Arrived>) -> bool,
    ) -> Result<(), PulsarError> {
        let last = self.admin.internal(topic).await?.last_confirmed_entry;
        let Some(last) = place(&last).filter(|last| last.1 >= 0 && after < *last) else { return Ok(()) };
        let (sender, mut line) = mpsc::unbounded_channel();
        let feed = FeedOptions {
            topic: self.options.full(topic),
            subscription: format!("leat-look-{:016x}", super::random()),
            kind: SubType::Exclusive,
            consumer: "leatworks".to_owned(),
            window: PREFETCH_MAX,
            still_max: STILL_MAX,
            from: Some(MessageIdData { ledger: after.0, entry: after.1 as u64, ..MessageIdData::default() }),
        };
        let feed = Feed::open(self.pool.clone(), feed, Arc::new(Line(sender))).await?;
        // What is settled may be gone, also the last of all: then it would be waited for without end.
        let last = match feed.last().await {
            Ok(Some(found)) if after < found => found.min(last),
            nothing => {
                feed.close().await;
                return nothing.map(drop);
            }
        };
        // However much there is to read, as long as something comes.
        let late = |_| PulsarError::Away(format!("nothing of topic `{topic}` was read for {ANSWER_TIME_MAX:?}"));
        let reading = async {
            while let Some(read) = tokio::time::timeout(ANSWER_TIME_MAX, line.recv()).await.map_err(late)? {
                let (deliver, entry) = read?;
                let at = Place { ledger: deliver.message_id.ledger, entry: deliver.message_id.entry };
                let found = (at.ledger, at.entry as i64);
                // The service begins with the place that it is given.
                if found <= after {
                    continue;
                }
                match pack::open(topic, entry, now_ms()) {
                    Ok(messages) if found <= last => {
                        if !more(at, messages) {
                            break;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(topic, ?at, %error, "an entry cannot be read"),
                }
                if found >= last {
                    break;
                }
            }
            Ok(())
        };
        let read = reading.await;
        feed.close().await;
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_read_as_the_service_writes_it() {
        let cursor = |mark: &str, ranges: &str| Cursor {
            mark_delete_position: mark.to_owned(),
            individually_deleted_messages: ranges.to_owned(),
        };
        let read = Acknowledged::read(&cursor("3:1", "[(3:2..3:4],(3:7..4:0]]")).unwrap();
        let at = |ledger, entry| Place { ledger, entry };
        let has: Vec<Place> = (0..10).map(|entry| at(3, entry)).chain([at(4, 0), at(4, 1)]).filter(|at| read.has(*at)).collect();
        assert_eq!(has, [at(3, 0), at(3, 1), at(3, 3), at(3, 4), at(3, 8), at(3, 9), at(4, 0)]);
        let none = Acknowledged::read(&cursor("5:-1", "[]")).unwrap();
        assert!(!none.has(at(5, 0)) && none.has(at(4, 9)));
    }
}
