//! Requests about what exists: lookups, lists, last messages, schemas, and what is not supported.

use super::{
    Shared,
    consumer::Handle,
    limits::{LOOK_MESSAGES, PATTERN_BYTES_MAX, PATTERN_MEMORY_MAX},
    members::Place,
    place,
    topics::{self, Refusal},
};
use crate::wire::proto::{
    Command, GetLastMessageIdResponse, GetOrCreateSchema, GetOrCreateSchemaResponse, GetTopics, GetTopicsResponse, Lookup,
    LookupResponse, MessageIdData, OfConsumer, OfTopic, PartitionMetadataResponse, Schema, SchemaResponse, ServerError,
    TcClientConnectResponse, TxnResponse,
};
use leatworks_broker::{BrokerError, Position};
use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

/// Where a topic is served: here, at the address by which the client has come.
pub(crate) fn lookup(shared: &Shared, request: &Lookup, local: SocketAddr) -> Command {
    let mut answer = LookupResponse { request_id: request.request_id, response: Some(1), ..LookupResponse::default() };
    match shared.options.namespace.topic(&request.topic) {
        Ok(_) => {
            answer.broker_url = Some(format!("pulsar://{local}"));
            answer.authoritative = Some(true);
        }
        Err((error, message)) => {
            answer.response = Some(2);
            answer.error = Some(error.into());
            answer.message = Some(message);
        }
    }
    Command::LookupResponse(answer)
}

/// No topic has partitions.
pub(crate) fn partitions(shared: &Shared, request: &OfTopic) -> Command {
    let mut answer = PartitionMetadataResponse { request_id: request.request_id, response: Some(0), ..Default::default() };
    match shared.options.namespace.topic(&request.topic) {
        Ok(_) => answer.partitions = Some(0),
        // A part of a partitioned topic has no parts: whoever asks finds out when it wants to use it.
        Err((ServerError::TopicNotFound, _)) if request.topic.contains("-partition-") => answer.partitions = Some(0),
        Err((error, message)) => {
            answer.response = Some(1);
            answer.error = Some(error.into());
            answer.message = Some(message);
        }
    }
    Command::PartitionMetadataResponse(answer)
}

/// The topics of the namespace, filtered by the pattern if it is one that can be read here; else the client filters.
pub(crate) async fn topics_of_namespace(shared: &Shared, request: &GetTopics) -> Result<Command, Refusal> {
    let namespace = &shared.options.namespace;
    let mut topics: Vec<String> = Vec::new();
    // All topics are persistent, so a list of others is empty.
    if namespace.is(&request.namespace) && request.mode.unwrap_or_default() != 1 {
        let all = shared.broker.stats().await.map_err(|error| topics::refusal(&error))?;
        topics = all.iter().map(|topic| namespace.full(&topic.spec.name)).collect();
    }
    let pattern = request.pattern.as_deref().and_then(compile);
    if let Some(pattern) = &pattern {
        topics.retain(|topic| pattern.is_match(topic.strip_prefix("persistent://").unwrap_or(topic)));
    }
    topics.sort_unstable();
    let hash = hash(&topics);
    let changed = request.hash.as_ref() != Some(&hash);
    if !changed {
        topics.clear();
    }
    Ok(Command::GetTopicsResponse(GetTopicsResponse {
        request_id: request.request_id,
        topics,
        filtered: Some(pattern.is_some()),
        hash: Some(hash),
        changed: Some(changed),
    }))
}

/// A pattern matches the whole name without its scheme.
fn compile(pattern: &str) -> Option<regex::Regex> {
    let pattern = pattern.split_once("://").map_or(pattern, |(_, path)| path);
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_MEMORY_MAX).build().ok()
}

/// As Pulsar computes it, since clients compute it too.
fn hash(topics: &[String]) -> String {
    crc32c::crc32c(topics.join(",").as_bytes()).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The newest message of a topic, and up to where the subscription is settled. To a reader it is the newest that it gets or has got, since it
/// waits for that: what all subscriptions have settled is gone.
pub(crate) async fn last_message_id(shared: &Shared, consumer: &Handle, request: OfConsumer) -> Result<Command, Refusal> {
    let refused = |error| topics::refusal(&error);
    let place = &consumer.place;
    let published = shared.broker.topic_stats(&place.0).await.map_err(refused)?.map_or(0, |topic| topic.published);
    let first = shared.broker.unsettled(&place.0, &place.1, Position(0), 1).await.map_err(refused)?;
    let settled = first.first().map_or(published, |position| position.0);
    let last = match &consumer.read {
        None => published,
        Some(read) => last_of(shared, place, settled).await.map_err(refused)?.max(read.load(Relaxed)),
    };
    Ok(Command::GetLastMessageIdResponse(GetLastMessageIdResponse {
        last_message_id: before(consumer.ledger, last),
        request_id: request.request_id,
        mark_delete: Some(before(consumer.ledger, settled)),
    }))
}

/// One past the last message that a subscription has not settled.
async fn last_of(shared: &Shared, place: &Place, mut from: u64) -> Result<u64, BrokerError> {
    let mut last = 0;
    loop {
        let found = shared.broker.unsettled(&place.0, &place.1, Position(from), LOOK_MESSAGES).await?;
        last = found.last().map_or(last, |position| position.0 + 1);
        if found.len() < LOOK_MESSAGES {
            return Ok(last);
        }
        from = last;
    }
}

/// The id of the message before this position; before the first there is -1.
fn before(ledger: u64, position: u64) -> MessageIdData {
    match position.checked_sub(1) {
        Some(position) => place::id(ledger, position),
        None => MessageIdData { ledger: u64::MAX, entry: u64::MAX, ..MessageIdData::default() },
    }
}

/// Schemas that need a registry to be read: Protobuf, Avro, key-value, native Protobuf.
const SCHEMAS_REFUSED: [i32; 4] = [3, 4, 15, 20];

/// Payloads are opaque here, so a schema is not kept; one that a reader could not do without is refused.
pub(crate) fn check_schema(schema: &Schema) -> Result<(), Refusal> {
    match SCHEMAS_REFUSED.contains(&schema.kind) {
        false => Ok(()),
        true => Err((
            ServerError::IncompatibleSchema,
            format!("schema `{}` of type {} would have to be kept, and no schemas are kept here", schema.name, schema.kind),
        )),
    }
}

/// No schema is kept.
pub(crate) fn get_schema(request_id: u64) -> Command {
    let message = Some("no schemas are kept here".to_owned());
    Command::GetSchemaResponse(SchemaResponse { request_id, error: Some(ServerError::TopicNotFound.into()), message })
}

/// A schema that is not needed to read the payload is fine, and has no version.
pub(crate) fn get_or_create_schema(request: &GetOrCreateSchema) -> Command {
    let mut answer = GetOrCreateSchemaResponse { request_id: request.request_id, ..Default::default() };
    match check_schema(&request.schema) {
        Ok(()) => answer.schema_version = Some(bytes::Bytes::new()),
        Err((error, message)) => {
            answer.error = Some(error.into());
            answer.message = Some(message);
        }
    }
    Command::GetOrCreateSchemaResponse(answer)
}

/// The answer to a command of transactions, or to another that is known and not supported; none if it is one that servers send.
pub(crate) fn unsupported(command: &Command) -> Option<Command> {
    let answer = |request_id| TxnResponse {
        request_id,
        error: Some(ServerError::TransactionCoordinatorNotFound.into()),
        message: Some("transactions are not supported here".to_owned()),
    };
    Some(match command {
        Command::NewTxn(request) => Command::NewTxnResponse(answer(request.request_id)),
        Command::AddPartitionToTxn(request) => Command::AddPartitionToTxnResponse(answer(request.request_id)),
        Command::AddSubscriptionToTxn(request) => Command::AddSubscriptionToTxnResponse(answer(request.request_id)),
        Command::EndTxn(request) => Command::EndTxnResponse(answer(request.request_id)),
        Command::EndTxnOnPartition(request) => Command::EndTxnOnPartitionResponse(answer(request.request_id)),
        Command::EndTxnOnSubscription(request) => Command::EndTxnOnSubscriptionResponse(answer(request.request_id)),
        Command::TcClientConnect(request) => Command::TcClientConnectResponse(TcClientConnectResponse {
            request_id: request.request_id,
            error: answer(0).error,
            message: answer(0).message,
        }),
        Command::WatchTopicList(request) => Command::Error(crate::wire::proto::Error {
            request_id: request.request_id,
            error: ServerError::NotAllowed.into(),
            message: "lists of topics are not watched here: ask for them".to_owned(),
        }),
        _ => return None,
    })
}
