//! How topics and subscriptions stand: statistics for people, and what the storage knows.

use super::{
    super::{Shared, limits::LOOK_MESSAGES, place, topics::READER},
    answer::{Answer, Refused},
    limits::RANGES_MAX,
    topics,
};
use leatworks_broker::{Broker, Position};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) async fn stats(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let found = topics::find(shared, topic).await?;
    let mut subscriptions = Map::new();
    let mut backlog = 0;
    for (name, stats) in &found.subscriptions {
        let unsettled = stats.backlog + stats.in_flight;
        backlog = unsettled.max(backlog);
        let of = json!({
            "msgBacklog": unsettled,
            "msgBacklogNoDelayed": unsettled.saturating_sub(stats.delayed),
            "msgDelayed": stats.delayed,
            "unackedMessages": stats.in_flight,
            "consumers": vec![json!({}); stats.consumers],
            "durable": !name.starts_with(READER),
        });
        subscriptions.insert(name.clone(), of);
    }
    Ok(Answer::Json(json!({
        "msgInCounter": found.published,
        "backlogMessages": backlog,
        "publishers": [],
        "subscriptions": subscriptions,
        "replication": {},
        "deduplicationStatus": if shared.options.deduplicate { "Enabled" } else { "Disabled" },
    })))
}

pub(super) async fn last(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let found = topics::find(shared, topic).await?;
    let first = shared.ledgers.of(shared.broker.as_ref(), topic).await?;
    let (ledger, entry) = match found.published.checked_sub(1).map(|last| place::id(first, last)) {
        Some(id) => (id.ledger as i64, id.entry as i64),
        None => (-1, -1),
    };
    Ok(Answer::Json(json!({ "ledgerId": ledger, "entryId": entry, "partitionIndex": -1 })))
}

pub(super) async fn internal(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let broker = shared.broker.as_ref();
    let names = topics::find(shared, topic).await?.subscriptions;
    let ledger = shared.ledgers.of(broker, topic).await?;
    let mut before = BTreeMap::new();
    for name in names.keys() {
        before.insert(name.clone(), first(broker, topic, name).await?);
    }
    let found = topics::find(shared, topic).await?;
    let mut cursors = Map::new();
    for (name, stats) in &found.subscriptions {
        let unsettled = stats.backlog + stats.in_flight;
        let first = first(broker, topic, name).await?;
        // The count was taken between two looks at the first unsettled one: when nothing is missing behind it, that need not be looked for.
        let whole = before.get(name) == Some(&first)
            && first.map_or(unsettled == 0, |first| found.published.checked_sub(first.0) == Some(unsettled));
        let ranges = if whole { Vec::new() } else { settled(broker, topic, name, first, found.published).await? };
        let mark = place::text_before(ledger, first.map_or(found.published, |first| first.0));
        let ranges: Vec<String> = ranges
            .into_iter()
            .map(|(start, end)| format!("({}..{}]", place::text_before(ledger, start), place::text_before(ledger, end)))
            .collect();
        let read = place::id(ledger, first.map_or(found.published, |first| first.0));
        let cursor = json!({
            "markDeletePosition": mark,
            "readPosition": format!("{}:{}", read.ledger, read.entry),
            "individuallyDeletedMessages": format!("[{}]", ranges.join(",")),
            "state": "Open",
        });
        cursors.insert(name.clone(), cursor);
    }
    Ok(Answer::Json(json!({
        "entriesAddedCounter": found.published,
        "lastConfirmedEntry": place::text_before(ledger, found.published),
        "state": "LedgerOpened",
        "ledgers": [],
        "cursors": Value::Object(cursors),
    })))
}

/// The first message that is not settled.
async fn first(broker: &dyn Broker, topic: &str, subscription: &str) -> Result<Option<Position>, Refused> {
    match broker.unsettled(topic, subscription, Position(0), 1).await {
        Ok(found) => Ok(found.first().copied()),
        // It was removed a moment ago.
        Err(error) if error.kind() == leatworks_broker::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is settled behind the first that is not, up to `end`: from, and up to without.
async fn settled(
    broker: &dyn Broker,
    topic: &str,
    subscription: &str,
    first: Option<Position>,
    end: u64,
) -> Result<Vec<(u64, u64)>, Refused> {
    let mut ranges = Vec::new();
    let Some(Position(mut next)) = first else { return Ok(ranges) };
    loop {
        let unsettled = broker.unsettled(topic, subscription, Position(next), LOOK_MESSAGES).await?;
        let last = unsettled.len() < LOOK_MESSAGES;
        for Position(at) in unsettled {
            if at > next {
                ranges.push((next, at));
            }
            next = at + 1;
        }
        if last && next < end {
            ranges.push((next, end));
        }
        if last || ranges.len() > RANGES_MAX {
            ranges.truncate(RANGES_MAX);
            return Ok(ranges);
        }
    }
}
