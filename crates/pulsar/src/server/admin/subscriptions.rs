//! Subscriptions: how they are made, moved and removed.

use super::{
    super::{Shared, members::Closed, place, topics::READER},
    answer::{Answer, Refused},
    topics,
};
use crate::wire::proto::MessageIdData;
use leatworks_broker::Start;
use serde::Deserialize;
use serde_json::{Value, json};

/// A message as the admin API names it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct At {
    ledger_id: i64,
    entry_id: i64,
    #[serde(default)]
    batch_index: Option<i32>,
}

/// Where a body points to.
async fn start(shared: &Shared, topic: &str, body: &Value) -> Result<Start, Refused> {
    let at = At::deserialize(body).map_err(|_| Refused::bad("a message is `ledgerId` and `entryId`, whole numbers"))?;
    let (ledger, entry) = (at.ledger_id as u64, at.entry_id as u64);
    let first = shared.ledgers.of(shared.broker.as_ref(), topic).await?;
    Ok(place::start(first, &MessageIdData { ledger, entry, batch_index: at.batch_index, ..MessageIdData::default() }))
}

fn missing(topic: &str, name: &str) -> Refused {
    Refused::missing(format!("topic `{topic}` has no subscription `{name}`"))
}

pub(super) async fn list(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let found = topics::find(shared, topic).await?;
    let names: Vec<&String> = found.subscriptions.keys().filter(|name| !name.starts_with(READER)).collect();
    Ok(Answer::Json(json!(names)))
}

pub(super) async fn create(shared: &Shared, topic: &str, name: &str, body: &Value) -> Result<Answer, Refused> {
    if name.starts_with(READER) {
        return Err(Refused::bad(format!("names of subscriptions that begin with `{READER}` are the server's own")));
    }
    // Its topic is not removed meanwhile.
    let _opening = shared.topics.opening.read().await;
    let _alone = shared.topics.making.lock().await;
    if topics::find(shared, topic).await?.subscriptions.contains_key(name) {
        return Err(Refused::exists(format!("topic `{topic}` has a subscription `{name}` already")));
    }
    let from = if body.is_null() { Start::Latest } else { start(shared, topic, body).await? };
    shared.broker.create_subscription(topic, name, from).await?;
    Ok(Answer::Empty)
}

pub(super) async fn remove(shared: &Shared, topic: &str, name: &str, force: bool) -> Result<Answer, Refused> {
    check(shared, topic, name).await?;
    let _closed = if force { Some(close(shared, topic, name).await?) } else { None };
    shared.broker.unsubscribe(topic, name).await?;
    Ok(Answer::Empty)
}

pub(super) async fn seek(shared: &Shared, topic: &str, name: &str, body: &Value) -> Result<Answer, Refused> {
    check(shared, topic, name).await?;
    let to = start(shared, topic, body).await?;
    move_to(shared, topic, name, to).await
}

pub(super) async fn seek_time(shared: &Shared, topic: &str, name: &str, time: &str) -> Result<Answer, Refused> {
    let time = time.parse().map_err(|_| Refused::bad(format!("`{time}` is no time in milliseconds since 1970")))?;
    move_to(shared, topic, name, Start::Time(time)).await
}

pub(super) async fn skip_all(shared: &Shared, topic: &str, name: &str) -> Result<Answer, Refused> {
    move_to(shared, topic, name, Start::Latest).await
}

/// Moves a subscription. Its consumers are closed and come back, as with Pulsar.
async fn move_to(shared: &Shared, topic: &str, name: &str, to: Start) -> Result<Answer, Refused> {
    check(shared, topic, name).await?;
    let _closed = close(shared, topic, name).await?;
    shared.broker.seek(topic, name, to).await?;
    Ok(Answer::Empty)
}

async fn check(shared: &Shared, topic: &str, name: &str) -> Result<(), Refused> {
    let found = topics::find(shared, topic).await?;
    if found.subscriptions.contains_key(name) { Ok(()) } else { Err(missing(topic, name)) }
}

/// Sends the consumers of a subscription away; nobody can join it as long as what is returned lives.
async fn close(shared: &Shared, topic: &str, name: &str) -> Result<Closed, Refused> {
    let closed = shared.members.close(&(topic.into(), name.into()), shared.unique()).await;
    closed.ok_or_else(|| {
        Refused::busy(format!("subscription `{name}` is being moved by somebody else, or its consumers do not leave"))
    })
}
