//! How a consumer comes to be: its topic, its subscription, and its place among the others.

use super::Consumer;
use crate::{
    server::{
        self, Shared,
        deliver::Appetite,
        limits::{UNSETTLED_SHARED_MAX, UNSETTLED_SOLE_MAX},
        members::{Member, Place, Signal},
        out::Outgoing,
        place, requests,
        settle::Settling,
        topics::{self, READER, Refusal, Topic},
    },
    wire::proto::{self, ServerError, SubType},
};
use leatworks_broker::{Confirm, Consumer as Receiver, ErrorKind, HandOff, Position, Start, Subscribe, SubscriptionKind};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;

/// Makes sure that a subscription exists.
pub(crate) async fn create_subscription(shared: &Shared, topic: &Topic, name: &str, start: Start) -> Result<(), Refusal> {
    shared.broker.create_subscription(&topic.name, name, start).await.map_err(|error| topics::refusal(&error))
}

/// Opens a consumer.
pub(crate) async fn open(shared: &Arc<Shared>, out: &Outgoing, request: &proto::Subscribe) -> Result<Consumer, Refusal> {
    let kind = match SubType::try_from(request.sub_type) {
        Ok(SubType::Exclusive) => SubscriptionKind::Exclusive,
        Ok(SubType::Shared) => SubscriptionKind::Shared,
        Ok(SubType::Failover) => SubscriptionKind::Failover,
        Ok(SubType::KeyShared) => SubscriptionKind::KeyShared,
        Err(_) => return Err((ServerError::NotAllowed, format!("subscriptions of kind {} are not known", request.sub_type))),
    };
    if kind == SubscriptionKind::KeyShared && request.key_shared.as_ref().is_some_and(|key_shared| key_shared.mode != 0) {
        return Err((ServerError::NotAllowed, "hash ranges cannot be chosen here: keys are split by the broker".to_owned()));
    }
    if let Some(schema) = &request.schema {
        requests::check_schema(schema)?;
    }
    let is_reader = request.durable == Some(false);
    let name = match is_reader {
        true => format!("{READER}{}", request.subscription),
        false if request.subscription.starts_with(READER) => {
            return Err((
                ServerError::NotAllowed,
                format!("names of subscriptions that begin with `{READER}` are the server's own"),
            ));
        }
        false => request.subscription.clone(),
    };
    let opening = shared.topics.opening.read().await;
    let topic = topics::open(shared, &request.topic, request.force_topic_creation != Some(false)).await?;
    let from = match (&request.start_message_id, request.initial_position) {
        (Some(id), _) => place::start(topic.ledger, id),
        (None, Some(1)) => Start::Earliest,
        (None, _) => Start::Latest,
    };
    let from = match request.start_message_rollback_s {
        Some(seconds) if seconds > 0 => Start::Time(server::now_ms().saturating_sub(seconds.saturating_mul(1_000))),
        _ => from,
    };
    create_subscription(shared, &topic, &name, from).await?;
    drop(opening);
    let number = shared.unique();
    let place: Place = (topic.name.clone(), name.into());
    let client = request.consumer_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| format!("consumer-{number}"));
    let (receiver, member, signal) = join(shared, out, &place, kind, &client, number).await?;
    Ok(Consumer {
        shared: shared.clone(),
        out: out.clone(),
        id: request.consumer_id,
        name: client,
        topic,
        place,
        kind,
        is_reader,
        epoch: request.consumer_epoch,
        number,
        receiver: Some(receiver),
        member: Some(member),
        signal,
        permits: 0,
        appetite: Appetite::default(),
        held: BTreeSet::new(),
        unread: (is_reader && kind == SubscriptionKind::Exclusive).then_some(Position(0)),
        sent: Arc::default(),
        // What a reader has read is of no interest to anybody when it is gone.
        settling: Settling::new(shared.broker.clone(), if is_reader { Confirm::Applied } else { Confirm::Durable }),
        failures: 0,
    })
}

type Joined = (Box<dyn Receiver>, Member, watch::Receiver<Signal>);

async fn join(
    shared: &Shared,
    out: &Outgoing,
    place: &Place,
    kind: SubscriptionKind,
    client: &str,
    number: u64,
) -> Result<Joined, Refusal> {
    let subscribe = Subscribe {
        topic: place.0.to_string(),
        subscription: place.1.to_string(),
        kind,
        consumer: client.to_owned(),
        // A client is outside: what it gets is durable.
        hand_off: HandOff::Durable,
        permits: match kind {
            SubscriptionKind::Shared | SubscriptionKind::KeyShared => UNSETTLED_SHARED_MAX,
            SubscriptionKind::Exclusive | SubscriptionKind::Failover => UNSETTLED_SOLE_MAX,
        },
    };
    let joining = match kind {
        SubscriptionKind::Failover => Some(shared.members.joining.lock().await),
        _ => None,
    };
    let moved = || (ServerError::ServiceNotReady, format!("subscription `{}` is being moved", place.1));
    let (member, signal) = shared.members.join(place, number, out).ok_or_else(moved)?;
    let mut receiver = shared.broker.subscribe(subscribe.clone()).await;
    if receiver.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::Conflict) {
        // A client that comes back may be faster than the end of its lost connection.
        shared.members.wait_for_gone(place).await;
        receiver = shared.broker.subscribe(subscribe).await;
    }
    drop(joining);
    Ok((receiver.map_err(|error| topics::refusal(&error))?, member, signal))
}
