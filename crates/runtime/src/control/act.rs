//! Carries requests out on a broker.

use super::{EdgeStatus, FailureKind, Filter, Listed, Outgoing, Request, Response, Sent, Status, pending, redrive};
use crate::{
    Codec, DeadLetter, ids,
    topics::{self, DEAD_LETTER_SUBSCRIPTION, EdgeRef, TopologyRef},
    trace,
};
use leatworks_broker::{Broker, BrokerError, ErrorKind, Message, Outcome, Position, Publish, Result, TopicStats};
use std::{sync::Arc, time::Duration};

/// How many dead letters are looked at, and moved, at once.
const PAGE: usize = 256;

/// The most bytes of a payload in a list. Enough to know a message again; a hundred of them are 400 KiB.
const LISTED_PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// The most bytes of payloads in an answer, unless one alone has more: whoever asks for one by its id gets it whole.
const LISTED_BYTES_MAX: usize = 16 << 20;

/// The fewest digits of the beginning of an id. Nobody means all that begins with nothing.
const ID_DIGITS_MIN: usize = 4;

/// Carries out a request. `running`: whether a run owns the broker, and so will handle what is sent.
pub async fn perform(broker: &dyn Broker, request: Request, running: bool) -> Response {
    let result = match request {
        Request::Status { topology } => status(broker, &topology, running).await.map(Response::Status),
        Request::Send { topology, edge, messages, wait_ms } => {
            return send(broker, &topology, &edge, messages, wait_ms).await.unwrap_or_else(failed);
        }
        Request::DeadLetters { topology, filter, limit } => match named(filter, false) {
            Ok(filter) => list(broker, &topology, &filter, limit).await,
            Err(error) => return Response::failed(FailureKind::Invalid, error),
        },
        Request::Pending { topology, id, limit } => match id.parse() {
            Ok(id) => pending::list(broker, &topology, id, limit).await.map(Response::Pending),
            Err(_) => return Response::failed(FailureKind::Invalid, format!("`{id}` is no id of a message")),
        },
        Request::Redrive { topology, filter } => match named(filter, true) {
            Ok(filter) => redrive::settle(broker, &topology, &filter, true).await,
            Err(error) => return Response::failed(FailureKind::Invalid, error),
        },
        Request::Drop { topology, filter } => match named(filter, true) {
            Ok(filter) => redrive::settle(broker, &topology, &filter, false).await,
            Err(error) => return Response::failed(FailureKind::Invalid, error),
        },
    };
    result.unwrap_or_else(failed)
}

/// The filter with its id as ids are written. What changes something takes a `whole` id alone: ids begin with the time, so those of many roots begin alike.
fn named(filter: Filter, whole: bool) -> std::result::Result<Filter, String> {
    let Some(text) = &filter.id else { return Ok(filter) };
    let id = text.trim().to_ascii_lowercase();
    let is_beginning = id.len() >= ID_DIGITS_MIN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = match trace::id(text) {
        Err(_) if !whole && is_beginning => id,
        Err(error) if !whole => return Err(format!("{error}; to look, its first {ID_DIGITS_MIN} or more are enough")),
        id => id?,
    };
    Ok(Filter { id: Some(id), ..filter })
}

fn failed(error: BrokerError) -> Response {
    Response::failed(error.kind().into(), error.to_string())
}

async fn status(broker: &dyn Broker, topology: &TopologyRef, running: bool) -> Result<Status> {
    let stats = broker.stats().await?;
    let promises = broker.promises();
    let account = if promises.accounts { Some(broker.account(&topology.name).await?.into()) } else { None };
    // Several processes may run it on another system: they are there as its consumers.
    let consumed = || {
        let of_edge =
            |edge: &EdgeRef| stats.iter().find(|stats| stats.spec.name == edge.topic)?.subscriptions.get(&edge.subscription);
        topology.edges.iter().filter_map(of_edge).any(|subscription| subscription.consumers > 0)
    };
    let own = stats.iter().filter(|topic| topic.spec.topology == topology.name).find_map(|topic| topic.spec.durability);
    Ok(Status {
        schema: "leat.status/v1".to_owned(),
        topology: topology.name.clone(),
        durability: own.map_or_else(|| broker.durability().to_owned(), |level| level.name().to_owned()),
        running: running || (!promises.accounts && consumed()),
        account,
        edges: topology.edges.iter().map(|edge| edge_status(edge, &stats)).collect(),
    })
}

fn edge_status(edge: &EdgeRef, stats: &[TopicStats]) -> EdgeStatus {
    let mut status = EdgeStatus { edge: edge.id.clone(), ..EdgeStatus::default() };
    let find = |topic: &str, subscription: &str| {
        let topic = stats.iter().find(|stats| stats.spec.name == topic)?;
        topic.subscriptions.get(subscription)
    };
    for topic in [&edge.topic, &edge.retry_topic] {
        if let Some(found) = find(topic, &edge.subscription) {
            status.backlog += found.backlog;
            status.in_flight += found.in_flight;
            status.delayed += found.delayed;
        }
    }
    status.dead_letters = find(&edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION).map_or(0, |found| found.backlog);
    status
}

async fn send(
    broker: &dyn Broker,
    topology: &TopologyRef,
    edge: &str,
    messages: Vec<Outgoing>,
    wait_ms: Option<u64>,
) -> Result<Response> {
    let Some(ingress) = topology.edges.iter().find(|found| found.ingress && found.id == edge) else {
        return Ok(Response::failed(FailureKind::Invalid, format!("`{}` has no way in `{edge}`", topology.name)));
    };
    if wait_ms.is_some() && !broker.promises().accounts {
        let text = "this broker keeps no account of roots, so nothing tells when all that comes of a message is done: send without waiting";
        return Ok(Response::failed(FailureKind::Invalid, text.to_owned()));
    }
    // What else the graph has is made by those who run it: the graph that runs may have other edges by now than the one that is known here.
    topics::create(broker, &only(topology, ingress)).await?;
    let topic: Arc<str> = ingress.topic.as_str().into();
    let roots: Vec<Message> =
        messages.into_iter().map(|message| ids::new_root(message.payload.into(), Codec::Json, message.key)).collect();
    let sent: Vec<_> = roots.iter().map(|root| root.id).collect();
    let publish = |message: Message| Publish { topic: topic.clone(), message: message.into(), sequence: None };
    broker.publish(roots.into_iter().map(publish).collect()).await?;
    let deadline = wait_ms.map(|wait| tokio::time::Instant::now() + Duration::from_millis(wait));
    let mut answer = Vec::with_capacity(sent.len());
    for id in sent {
        let outcome = match deadline {
            None => "accepted",
            Some(deadline) => match tokio::time::timeout_at(deadline, broker.root_outcome(id)).await {
                Ok(outcome) => match outcome? {
                    Outcome::Done => "done",
                    Outcome::DeadLettered => "dead-lettered",
                },
                Err(_) => "pending",
            },
        };
        answer.push(Sent { id: id.to_string(), outcome: outcome.to_owned() });
    }
    Ok(Response::Sent(answer))
}

/// The topology with this edge alone.
pub(super) fn only(topology: &TopologyRef, edge: &EdgeRef) -> TopologyRef {
    TopologyRef { name: topology.name.clone(), edges: vec![edge.clone()] }
}

pub(super) fn fits(letter: &DeadLetter, filter: &Filter) -> bool {
    let begins = |id: &String| letter.id.starts_with(id.as_str()) || letter.root.starts_with(id.as_str());
    filter.id.as_ref().is_none_or(begins) && filter.cause.as_ref().is_none_or(|cause| *cause == letter.cause)
}

pub(super) fn edges<'a>(topology: &'a TopologyRef, filter: &'a Filter) -> impl Iterator<Item = &'a EdgeRef> {
    topology.edges.iter().filter(|edge| filter.edge.as_ref().is_none_or(|wanted| *wanted == edge.id))
}

/// A page of an edge's dead letters from a position on, and where the next one begins.
pub(super) async fn page(
    broker: &dyn Broker,
    edge: &EdgeRef,
    from: Position,
) -> Result<(Vec<(Position, Message)>, Option<Position>)> {
    match broker.peek(&edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION, from, PAGE).await {
        Ok(letters) => {
            let next = letters.last().map(|(position, _)| Position(position.0 + 1)).filter(|_| letters.len() == PAGE);
            Ok((letters, next))
        }
        // The topology has never run, so there are none.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((Vec::new(), None)),
        Err(error) => Err(error),
    }
}

async fn list(broker: &dyn Broker, topology: &TopologyRef, filter: &Filter, limit: usize) -> Result<Response> {
    let mut bytes = 0;
    let mut listed = Listed { schema: "leat.dlq/v1".to_owned(), total: 0, letters: Vec::new() };
    for edge in edges(topology, filter) {
        let mut from = Some(Position(0));
        while let Some(position) = from {
            let (letters, next) = page(broker, edge, position).await?;
            from = next;
            for (position, message) in &letters {
                let mut letter = DeadLetter::read(&edge.id, *position, message);
                if fits(&letter, filter) {
                    listed.total += 1;
                    if filter.id.is_none() {
                        letter.cut_payload(LISTED_PAYLOAD_BYTES_MAX);
                    }
                    bytes += letter.payload.len();
                    if listed.letters.len() < limit && (listed.letters.is_empty() || bytes <= LISTED_BYTES_MAX) {
                        listed.letters.push(letter);
                    }
                }
            }
        }
    }
    Ok(Response::DeadLetters(listed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskError;
    use crate::control::redrive::tests::one_edge;
    use leatworks_broker::{Limits, MemoryBroker};

    #[tokio::test]
    async fn what_is_sent_makes_nothing_of_the_graph_but_its_way_in() {
        let broker = MemoryBroker::new(Limits::default());
        let edge = |id: &str, ingress, from: &str, to: &str| EdgeRef {
            id: id.to_owned(),
            ingress,
            topic: format!("t-{from}"),
            subscription: to.to_owned(),
            retry_topic: format!("t-{from}-{to}-RETRY"),
            dead_letter_topic: format!("t-{from}-{to}-DLQ"),
        };
        let edges = vec![edge("[*]-->a", true, "a.in", "a"), edge("a-->b", false, "a.out", "b")];
        let topology = TopologyRef { name: "t".to_owned(), edges };
        let messages = vec![Outgoing { payload: "1".to_owned(), key: None }];
        let request = Request::Send { topology, edge: "[*]-->a".to_owned(), messages, wait_ms: None };
        let answer = perform(&broker, request, false).await;
        assert!(matches!(&answer, Response::Sent(sent) if sent.len() == 1), "{answer:?}");
        let stats = broker.stats().await.unwrap();
        let there: Vec<_> = stats.iter().map(|topic| (topic.spec.name.as_str(), topic.published)).collect();
        assert_eq!(there, [("t-a.in", 1), ("t-a.in-a-DLQ", 0), ("t-a.in-a-RETRY", 0)]);
    }

    #[tokio::test]
    async fn a_list_is_bounded_and_an_id_shows_all() {
        let broker = MemoryBroker::new(Limits::default());
        let topology = one_edge(&broker).await;
        let sizes = [LISTED_PAYLOAD_BYTES_MAX, LISTED_PAYLOAD_BYTES_MAX + 1];
        for size in sizes {
            let message = ids::new_root("x".repeat(size).into(), Codec::Json, None);
            let message = DeadLetter::write(message, "[*]-->a", 1, &TaskError::permanent("no"));
            broker.publish(vec![Publish { topic: "t-a-a-DLQ".into(), message: message.into(), sequence: None }]).await.unwrap();
        }
        let list = async |filter, limit| {
            let request = Request::DeadLetters { topology: topology.clone(), filter, limit };
            let Response::DeadLetters(listed) = perform(&broker, request, false).await else { panic!("a list") };
            listed
        };
        let listed = list(Filter::default(), 10).await;
        let shown: Vec<_> =
            listed.letters.iter().map(|letter| (letter.cut, letter.payload.trim_end_matches('…').len())).collect();
        assert_eq!(shown, [(false, sizes[0]), (true, sizes[0])]);
        let whole = list(Filter { id: Some(listed.letters[1].id.clone()), ..Filter::default() }, 10).await;
        assert_eq!((whole.letters[0].cut, whole.letters[0].payload.len()), (false, sizes[1]));
        let none = list(Filter::default(), 0).await;
        assert_eq!((none.total, none.letters.len()), (2, 0));
    }

    #[tokio::test]
    async fn what_changes_letters_takes_whole_ids_and_no_more_than_its_limit() {
        let broker = MemoryBroker::new(Limits::default());
        let topology = one_edge(&broker).await;
        let give_up = async |count: usize| {
            for number in 0..count {
                let message = ids::new_root(number.to_string().into(), Codec::Json, None);
                let message = DeadLetter::write(message, "[*]-->a", 1, &TaskError::permanent("no"));
                let publish = Publish { topic: "t-a-a-DLQ".into(), message: message.into(), sequence: None };
                broker.publish(vec![publish]).await.unwrap();
            }
        };
        let list = async |id: Option<&str>| {
            let filter = Filter { id: id.map(str::to_owned), ..Filter::default() };
            perform(&broker, Request::DeadLetters { topology: topology.clone(), filter, limit: 1000 }, false).await
        };
        let left = async || {
            let Response::DeadLetters(listed) = list(None).await else { panic!("a list") };
            listed.letters.into_iter().map(|letter| letter.id).collect::<Vec<_>>()
        };
        let change = async |redrive, id: Option<&str>, limit| {
            let filter = Filter { id: id.map(str::to_owned), limit, ..Filter::default() };
            let topology = topology.clone();
            let request = if redrive { Request::Redrive { topology, filter } } else { Request::Drop { topology, filter } };
            perform(&broker, request, false).await
        };
        give_up(4).await;
        let all = left().await;
        for id in ["", " ", "0", &all[0][..4], &all[0][..31], "nonsense"] {
            for redrive in [true, false] {
                let answer = change(redrive, Some(id), None).await;
                assert!(matches!(answer, Response::Failed { kind: FailureKind::Invalid, .. }), "`{id}`: {answer:?}");
            }
            let looks = !["", " ", "0", "nonsense"].contains(&id);
            assert_eq!(matches!(list(Some(id)).await, Response::DeadLetters(_)), looks, "`{id}`");
        }
        assert_eq!(left().await, all, "what is refused changes nothing");
        let answer = change(false, Some(&all[1].to_uppercase()), None).await;
        assert!(matches!(answer, Response::Count { count: 1 }), "{answer:?}");
        assert_eq!(left().await, [&all[0][..], &all[2], &all[3]]);
        give_up(PAGE * 2).await;
        for (redrive, limit) in [(false, 1), (true, 1), (false, PAGE), (true, PAGE + 1)] {
            let before = left().await;
            let answer = change(redrive, None, Some(limit as u64)).await;
            assert!(matches!(answer, Response::Count { count } if count == limit as u64), "{answer:?}");
            assert_eq!(left().await, before[limit..], "the first go first");
        }
    }
}
