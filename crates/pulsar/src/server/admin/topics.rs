//! Topics: what there is, and how they are made, changed and removed.

use super::{
    super::Shared,
    answer::{Answer, Refused},
    properties,
};
use leatworks_broker::{Start, TopicSpec, TopicStats};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What Pulsar calls for ever: a hundred years, in minutes.
const FOR_EVER_MINUTES: u64 = 100 * 365 * 24 * 60;

/// The broker's name of a topic.
pub(super) fn name(shared: &Shared, tenant: &str, namespace: &str, topic: &str) -> Result<String, Refused> {
    let full = format!("persistent://{tenant}/{namespace}/{topic}");
    Ok(shared.options.namespace.topic(&full)?.to_owned())
}

pub(super) fn check_namespace(shared: &Shared, tenant: &str, namespace: &str) -> Result<(), Refused> {
    let name = format!("{tenant}/{namespace}");
    match shared.options.namespace.is(&name) {
        true => Ok(()),
        false => Err(Refused::missing(format!("namespace `{name}` is not served here"))),
    }
}

pub(super) async fn list(shared: &Shared) -> Result<Answer, Refused> {
    let all = shared.broker.stats().await?;
    let names: Vec<String> = all.iter().map(|topic| shared.options.namespace.full(&topic.spec.name)).collect();
    Ok(Answer::Json(json!(names)))
}

/// A topic that is there.
pub(super) async fn find(shared: &Shared, topic: &str) -> Result<TopicStats, Refused> {
    let found = shared.broker.topic_stats(topic).await?;
    found.ok_or_else(|| Refused::missing(format!("there is no topic `{topic}`")))
}

pub(super) async fn create(shared: &Shared, topic: &str, body: &Value) -> Result<Answer, Refused> {
    let properties = properties::read(body)?;
    let mut spec = TopicSpec { name: topic.to_owned(), ..TopicSpec::default() };
    properties::apply(&properties, &mut spec)?;
    let mut making = shared.topics.making.lock().await;
    if shared.broker.topic_stats(topic).await?.is_some() {
        return Err(Refused::exists(format!("topic `{topic}` is there already")));
    }
    let limit = shared.options.auto_topics_max;
    let count = async || Ok(shared.broker.stats().await?.len());
    if let Some(there) = making.all.is_full(limit, count).await? {
        return Err(Refused::bad(format!(
            "topic `{topic}` is not made: there are {there}, and {limit} may be made by clients; `--topics-max` of `leat broker` says how many"
        )));
    }
    making.make();
    properties::keep(shared, topic, properties).await?;
    shared.broker.create_topic(spec).await?;
    Ok(Answer::Empty)
}

/// Removes a topic that nobody uses, and its subscriptions with it, as Pulsar does.
pub(super) async fn delete(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    // Nobody gets a producer or a consumer meanwhile.
    let _alone = shared.topics.opening.write().await;
    let found = find(shared, topic).await?;
    let consumers: usize = found.subscriptions.values().map(|subscription| subscription.consumers).sum();
    if consumers > 0 || shared.seats.topics().contains(topic) {
        return Err(Refused::busy(format!("topic `{topic}` has producers or consumers that are connected")));
    }
    for subscription in found.subscriptions.keys() {
        shared.broker.unsubscribe(topic, subscription).await?;
    }
    super::super::topics::delete(shared, topic).await?;
    properties::forget(shared.broker.as_ref(), topic).await?;
    Ok(Answer::Empty)
}

pub(super) async fn properties(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let found = find(shared, topic).await?;
    Ok(Answer::Json(json!(properties::of(shared, &found.spec).await?)))
}

/// Sets properties beside those that are there.
pub(super) async fn set_properties(shared: &Shared, topic: &str, body: &Value) -> Result<Answer, Refused> {
    let more = properties::read(body)?;
    // It may have to be made anew, while nobody gets a producer or a consumer.
    let _nobody = shared.topics.opening.write().await;
    let _alone = shared.topics.making.lock().await;
    let found = find(shared, topic).await?;
    let mut spec = found.spec.clone();
    properties::apply(&more, &mut spec)?;
    let mut all = properties::of(shared, &found.spec).await?;
    all.extend(more);
    let anew = (&spec.kind, &spec.topology) != (&found.spec.kind, &found.spec.topology);
    if anew {
        make_anew(shared, &found, spec.clone()).await?;
    } else if spec != found.spec {
        shared.broker.create_topic(spec).await?;
    }
    properties::keep(shared, topic, all).await?;
    Ok(Answer::Empty)
}

/// What a topic counts for is decided when it is made, so one that is to count otherwise is made anew; that cannot be done to one that has been used. The
/// caller keeps everybody from opening it.
async fn make_anew(shared: &Shared, found: &TopicStats, spec: TopicSpec) -> Result<(), Refused> {
    let topic = &found.spec.name;
    let consumers: usize = found.subscriptions.values().map(|subscription| subscription.consumers).sum();
    if found.published > 0 || consumers > 0 || shared.seats.topics().contains(topic.as_str()) {
        return Err(Refused::busy(format!("topic `{topic}` is in use, so what it is for cannot be changed any more")));
    }
    for subscription in found.subscriptions.keys() {
        shared.broker.unsubscribe(topic, subscription).await?;
    }
    super::super::topics::delete(shared, topic).await?;
    shared.broker.create_topic(spec).await?;
    for subscription in found.subscriptions.keys() {
        shared.broker.create_subscription(topic, subscription, Start::Earliest).await?;
    }
    Ok(())
}

pub(super) async fn remove_property(shared: &Shared, topic: &str, key: Option<&str>) -> Result<Answer, Refused> {
    let key = key.ok_or_else(|| Refused::bad("the parameter `key` names the property"))?;
    let _alone = shared.topics.making.lock().await;
    let found = find(shared, topic).await?;
    let mut all = properties::of(shared, &found.spec).await?;
    all.remove(key).ok_or_else(|| Refused::missing(format!("topic `{topic}` has no property `{key}`")))?;
    properties::keep(shared, topic, all).await?;
    Ok(Answer::Empty)
}

/// How long what is acknowledged is kept, as Pulsar counts it; -1 sets no limit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retention {
    retention_time_in_minutes: i64,
    #[serde(rename = "retentionSizeInMB")]
    retention_size_in_mb: i64,
}

impl Retention {
    fn of(spec: &TopicSpec) -> Self {
        let minutes =
            spec.retention.as_secs().div_ceil(60) + u64::from(spec.retention.as_secs() == 0 && !spec.retention.is_zero());
        let megabytes = spec.retention_bytes.div_ceil(1 << 20);
        Self {
            retention_time_in_minutes: if minutes >= FOR_EVER_MINUTES { -1 } else { minutes as i64 },
            retention_size_in_mb: match megabytes {
                0 if minutes > 0 => -1,
                megabytes => megabytes as i64,
            },
        }
    }

    fn json(&self) -> Value {
        json!({ "retentionTimeInMinutes": self.retention_time_in_minutes, "retentionSizeInMB": self.retention_size_in_mb })
    }
}

pub(super) async fn retention(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let spec = find(shared, topic).await?.spec;
    Ok(Answer::Json(if spec.retention.is_zero() { Value::Null } else { Retention::of(&spec).json() }))
}

pub(super) async fn set_retention(shared: &Shared, topic: &str, body: &Value) -> Result<Answer, Refused> {
    let to = Retention::deserialize(body)
        .map_err(|_| Refused::bad("a retention is `retentionTimeInMinutes` and `retentionSizeInMB`, whole numbers"))?;
    let _alone = shared.topics.making.lock().await;
    let mut spec = find(shared, topic).await?.spec;
    let now = Retention::of(&spec);
    // A time that is kept to the millisecond is not made longer by being told in whole minutes.
    if to.retention_time_in_minutes != now.retention_time_in_minutes {
        let minutes = u64::try_from(to.retention_time_in_minutes).unwrap_or(FOR_EVER_MINUTES).min(FOR_EVER_MINUTES);
        spec.retention = Duration::from_secs(minutes * 60);
    }
    if to.retention_size_in_mb != now.retention_size_in_mb {
        spec.retention_bytes = u64::try_from(to.retention_size_in_mb).unwrap_or_default().saturating_mul(1 << 20);
    }
    shared.broker.create_topic(spec).await?;
    Ok(Answer::Empty)
}

pub(super) async fn remove_retention(shared: &Shared, topic: &str) -> Result<Answer, Refused> {
    let _alone = shared.topics.making.lock().await;
    let spec = find(shared, topic).await?.spec;
    shared.broker.create_topic(TopicSpec { retention: Duration::ZERO, retention_bytes: 0, ..spec }).await?;
    Ok(Answer::Empty)
}
