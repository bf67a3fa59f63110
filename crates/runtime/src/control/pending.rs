//! Finds what waits of one root.

use super::{Pending, Waiting};
use crate::{
    job,
    topics::{EdgeRef, TopologyRef},
};
use leatworks_broker::{Broker, ErrorKind, Message, MessageId, Position, Result};

/// How many messages are looked at with one question.
const PAGE: usize = 256;

/// The most messages of a queue that are looked at. Who looks for one root in a longer backlog waits for minutes, and so does who is served meanwhile.
const LOOKED_AT_MAX: usize = 16_384;

/// Lists what waits, or is in hand, of a root: those of the root, and the message itself.
pub(super) async fn list(broker: &dyn Broker, topology: &TopologyRef, id: MessageId, limit: usize) -> Result<Waiting> {
    let mut waiting = Waiting::default();
    for edge in &topology.edges {
        for topic in [&edge.topic, &edge.retry_topic] {
            look(broker, edge, topic, id, limit, &mut waiting).await?;
        }
    }
    Ok(waiting)
}

async fn look(
    broker: &dyn Broker,
    edge: &EdgeRef,
    topic: &str,
    id: MessageId,
    limit: usize,
    waiting: &mut Waiting,
) -> Result<()> {
    let (mut from, mut looked_at) = (Position(0), 0);
    loop {
        let page = match broker.peek(topic, &edge.subscription, from, PAGE).await {
            Ok(page) => page,
            // The topology has never run, so nothing waits.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let found = page.iter().filter(|(_, message)| message.id == id || message.root == id);
        let mut found = found.map(|(_, message)| pending(edge, message));
        waiting.messages.extend(found.by_ref().take(limit.saturating_sub(waiting.messages.len())));
        waiting.cut |= found.next().is_some();
        looked_at += page.len();
        match page.last() {
            Some((last, _)) if page.len() == PAGE && looked_at < LOOKED_AT_MAX => from = Position(last.0 + 1),
            _ => {
                waiting.cut |= page.len() == PAGE;
                return Ok(());
            }
        }
    }
}

fn pending(edge: &EdgeRef, message: &Message) -> Pending {
    Pending {
        edge: edge.id.clone(),
        id: message.id.to_string(),
        root: message.root.to_string(),
        parent: job::parent(message).map(|parent| parent.to_string()),
        created_ms: message.created_ms,
    }
}
