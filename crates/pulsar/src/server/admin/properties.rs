//! The properties of a topic: some say what it is to the broker, the others are kept beside it.
//!
//! They are written before their topic is there and removed after it, so that after a crash a topic has its properties; what has no topic is
//! replaced by whoever makes one of that name.

use super::{super::Shared, answer::Refused, limits::PROPERTIES_BYTES_MAX};
use leatworks_broker::{Broker, BrokerError, Step, TopicKind, TopicSpec};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What a topic is for.
const KIND: &str = "leat-kind";
/// The topology that it belongs to.
const TOPOLOGY: &str = "leat-topology";
/// How long, in milliseconds, and how much of it is kept.
const RETENTION: &str = "leat-retention-ms";
/// See [`RETENTION`].
const RETENTION_BYTES: &str = "leat-retention-bytes";

const KINDS: [(TopicKind, &str); 4] = [
    (TopicKind::Plain, "plain"),
    (TopicKind::Ingress, "ingress"),
    (TopicKind::Route, "route"),
    (TopicKind::DeadLetter, "dead-letter"),
];

/// What a client has beside its topics and nobody else uses. In a topology it holds what is on its way, so it counts as a route.
const INTERNAL: &str = "internal";

/// Properties by name.
pub(super) type Properties = BTreeMap<String, String>;

fn key(topic: &str) -> String {
    format!("leat-pulsar/properties/{topic}")
}

/// Properties as somebody sends them.
pub(super) fn read(body: &Value) -> Result<Properties, Refused> {
    if body.is_null() {
        return Ok(Properties::new());
    }
    Properties::deserialize(body).map_err(|_| Refused::bad("properties are an object of texts"))
}

/// Writes what properties say into a topic; what they do not say is left.
pub(super) fn apply(properties: &Properties, spec: &mut TopicSpec) -> Result<(), Refused> {
    let topology = properties.get(TOPOLOGY).cloned();
    if let Some(kind) = properties.get(KIND) {
        let internal =
            if topology.as_ref().is_some_and(|topology| !topology.is_empty()) { TopicKind::Route } else { TopicKind::Plain };
        let found = KINDS.iter().find(|(_, name)| name == kind).map(|(kind, _)| *kind);
        let found = found.or_else(|| (kind == INTERNAL).then_some(internal));
        spec.kind = found.ok_or_else(|| Refused::bad(format!("`{KIND}` is `{kind}`, and there is no such kind of topics")))?;
    }
    spec.topology = topology.unwrap_or_else(|| std::mem::take(&mut spec.topology));
    let number = |name: &str| {
        let wrong = |_| Refused::bad(format!("`{name}` is not a whole number"));
        properties.get(name).map(|text| text.parse::<u64>().map_err(wrong)).transpose()
    };
    spec.retention = number(RETENTION)?.map_or(spec.retention, Duration::from_millis);
    spec.retention_bytes = number(RETENTION_BYTES)?.unwrap_or(spec.retention_bytes);
    Ok(())
}

/// All properties of a topic.
pub(super) async fn of(shared: &Shared, spec: &TopicSpec) -> Result<Properties, Refused> {
    let mut properties = kept(shared.broker.as_ref(), &spec.name).await?;
    let is_internal = properties.contains_key(KIND);
    if spec.kind != TopicKind::Plain
        && !is_internal
        && let Some((_, name)) = KINDS.iter().find(|(kind, _)| *kind == spec.kind)
    {
        properties.insert(KIND.to_owned(), (*name).to_owned());
    }
    if !spec.topology.is_empty() {
        properties.insert(TOPOLOGY.to_owned(), spec.topology.clone());
    }
    if !spec.retention.is_zero() {
        properties.insert(RETENTION.to_owned(), spec.retention.as_millis().to_string());
    }
    if spec.retention_bytes > 0 {
        properties.insert(RETENTION_BYTES.to_owned(), spec.retention_bytes.to_string());
    }
    Ok(properties)
}

/// What is kept beside a topic.
async fn kept(broker: &dyn Broker, topic: &str) -> Result<Properties, Refused> {
    let Some(bytes) = broker.state(&key(topic)).await? else { return Ok(Properties::new()) };
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!("the properties of topic `{topic}` cannot be read: {error}");
        Refused::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// Whether somebody has made a topic, and not only named it.
pub(crate) async fn is_kept(broker: &dyn Broker, topic: &str) -> Result<bool, BrokerError> {
    Ok(broker.state(&key(topic)).await?.is_some())
}

/// Keeps what the topic itself does not say.
pub(super) async fn keep(shared: &Shared, topic: &str, mut properties: Properties) -> Result<(), Refused> {
    let internal = properties.get(KIND).is_some_and(|kind| kind == INTERNAL);
    properties.retain(|name, _| match name.as_str() {
        KIND => internal,
        TOPOLOGY | RETENTION | RETENTION_BYTES => false,
        _ => true,
    });
    // Texts can always be written.
    let bytes = serde_json::to_vec(&properties).unwrap_or_default();
    if bytes.len() > PROPERTIES_BYTES_MAX {
        let text = format!(
            "the properties of topic `{topic}` would have {} bytes, at most {PROPERTIES_BYTES_MAX} are kept",
            bytes.len()
        );
        return Err(Refused::bad(text));
    }
    write(shared.broker.as_ref(), topic, Some(bytes.into())).await
}

/// Keeps nothing of a topic that is gone.
pub(super) async fn forget(broker: &dyn Broker, topic: &str) -> Result<(), Refused> {
    write(broker, topic, None).await
}

async fn write(broker: &dyn Broker, topic: &str, value: Option<bytes::Bytes>) -> Result<(), Refused> {
    let key = key(topic);
    if broker.state(&key).await? == value {
        return Ok(());
    }
    Ok(broker.commit(Step { state: vec![(key, value)], ..Step::default() }).await?)
}
