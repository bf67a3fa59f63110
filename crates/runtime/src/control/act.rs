//! Carries requests out on a broker.

use super::{EdgeStatus, FailureKind, Filter, Listed, Outgoing, Request, Response, Sent, Status, pending};
use crate::{
    Codec, DeadLetter,
    codec::Bytes,
    dispatch, ids,
    topics::{self, DEAD_LETTER_SUBSCRIPTION, EdgeRef, TopologyRef},
};
use leatworks_broker::{Ack, Broker, BrokerError, ErrorKind, Message, Outcome, Position, Publish, Result, Step, TopicStats};
use std::{sync::Arc, time::Duration};

/// How many dead letters are looked at, and moved, at once.
const PAGE: usize = 256;

/// The most bytes of a payload in a list. Enough to know a message again; a hundred of them are 400 KiB.
const LISTED_PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// The most bytes of payloads in an answer, unless one alone has more: whoever asks for one by its id gets it whole.
const LISTED_BYTES_MAX: usize = 16 << 20;

/// Carries out a request. `running`: whether a run owns the broker, and so will handle what is sent.
pub async fn perform(broker: &dyn Broker, request: Request, running: bool) -> Response {
    let result = match request {
        Request::Status { topology } => status(broker, &topology, running).await.map(Response::Status),
        Request::Send { topology, edge, messages, wait_ms } => {
            return send(broker, &topology, &edge, messages, wait_ms).await.unwrap_or_else(failed);
        }
        Request::DeadLetters { topology, filter, limit } => list(broker, &topology, &filter, limit).await,
        Request::Pending { topology, id, limit } => match id.parse() {
            Ok(id) => pending::list(broker, &topology, id, limit).await.map(Response::Pending),
            Err(_) => return Response::failed(FailureKind::Invalid, format!("`{id}` is no id of a message")),
        },
        Request::Redrive { topology, filter } => settle(broker, &topology, &filter, true).await,
        Request::Drop { topology, filter } => settle(broker, &topology, &filter, false).await,
    };
    result.unwrap_or_else(failed)
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
fn only(topology: &TopologyRef, edge: &EdgeRef) -> TopologyRef {
    TopologyRef { name: topology.name.clone(), edges: vec![edge.clone()] }
}

fn fits(letter: &DeadLetter, filter: &Filter) -> bool {
    let begins = |id: &String| letter.id.starts_with(id.as_str()) || letter.root.starts_with(id.as_str());
    filter.id.as_ref().is_none_or(begins) && filter.cause.as_ref().is_none_or(|cause| *cause == letter.cause)
}

fn edges<'a>(topology: &'a TopologyRef, filter: &'a Filter) -> impl Iterator<Item = &'a EdgeRef> {
    topology.edges.iter().filter(|edge| filter.edge.as_ref().is_none_or(|wanted| *wanted == edge.id))
}

/// A page of an edge's dead letters from a position on, and where the next one begins.
async fn page(broker: &dyn Broker, edge: &EdgeRef, from: Position) -> Result<(Vec<(Position, Message)>, Option<Position>)> {
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

/// Takes letters out of the dead-letter topics; with `redrive` each goes back to its edge in the same step.
async fn settle(broker: &dyn Broker, topology: &TopologyRef, filter: &Filter, redrive: bool) -> Result<Response> {
    // Where a step may be done by half, its state makes it whole; and one at a time has that, so nothing is redriven by two.
    let state = (!broker.promises().atomic_step).then(|| format!("redrive/{}.redrive", topology.name));
    if let Some(key) = &state {
        broker.state(key).await?;
    }
    // What is redriven now may be given up again meanwhile: only what lay there at the beginning is meant.
    let began_ms = ids::now_ms();
    let mut count = 0;
    for edge in edges(topology, filter) {
        let settling = Settling { broker, edge, redrive, state: state.as_deref() };
        let mut from = Some(Position(0));
        while let Some(position) = from {
            let (mut letters, next) = page(broker, edge, position).await?;
            if redrive && !letters.is_empty() && position == Position(0) {
                topics::create(broker, &only(topology, edge)).await?;
            }
            from = next;
            letters.retain(|(position, message)| {
                let letter = DeadLetter::read(&edge.id, *position, message);
                letter.last_ms <= began_ms && fits(&letter, filter)
            });
            count += settling.settle(&letters).await?;
        }
    }
    Ok(Response::Count { count })
}

/// A dead letter, and where it lies.
type Letter = (Position, Message);

/// From where letters are taken, and what becomes of them.
struct Settling<'a> {
    broker: &'a dyn Broker,
    edge: &'a EdgeRef,
    redrive: bool,
    /// The key of the state that each step writes.
    state: Option<&'a str>,
}

impl Settling<'_> {
    /// Settles letters in as few steps as it takes, and gives how many it were. A step of one letter takes as long as one of many: on Pulsar some ten milliseconds.
    async fn settle(&self, letters: &[Letter]) -> Result<u64> {
        let mut count = 0;
        let mut left = in_steps(letters);
        while let Some(some) = left.pop() {
            match self.commit(some).await {
                Ok(()) => count += some.len() as u64,
                // Somebody else has taken it in the meantime.
                Err(error) if some.len() == 1 && error.kind() == ErrorKind::Settled => {}
                // Somebody else has taken one of them, or they are too much for one step or for the room that is left: a refused step has done nothing, so it is
                // done by halves. One letter among 256 that was taken costs 16 steps more.
                Err(error)
                    if some.len() > 1 && matches!(error.kind(), ErrorKind::Settled | ErrorKind::TooLarge | ErrorKind::Full) =>
                {
                    let (first, second) = some.split_at(some.len() / 2);
                    left.extend([second, first]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Makes one step of these letters. One that is alone waits for room.
    async fn commit(&self, letters: &[Letter]) -> Result<()> {
        match letters {
            [_] => dispatch::commit(self.broker, self.step(letters)).await,
            _ => dispatch::patiently(|| self.broker.commit(self.step(letters))).await,
        }
    }

    fn step(&self, letters: &[Letter]) -> Step {
        let (from, to): (Arc<str>, Arc<str>) =
            (self.edge.dead_letter_topic.as_str().into(), self.edge.retry_topic.as_str().into());
        let subscription: Arc<str> = DEAD_LETTER_SUBSCRIPTION.into();
        let ack = |(position, _): &Letter| Ack {
            topic: from.clone(),
            subscription: subscription.clone(),
            position: *position,
            cumulative: false,
        };
        let publish = |(_, message): &Letter| Publish {
            topic: to.clone(),
            message: dispatch::clean(message.clone()).into(),
            sequence: None,
        };
        Step {
            acks: letters.iter().map(ack).collect(),
            publishes: if self.redrive { letters.iter().map(publish).collect() } else { Vec::new() },
            // What is in nobody's hands there cannot be guarded.
            guard: self.state.is_none(),
            state: self.state.map(|key| (key.to_owned(), Some(Bytes::new()))).into_iter().collect(),
            ..Step::default()
        }
    }
}

/// Letters by the steps that they are settled in, the last first. None has more bytes than a step of a dispatcher, unless one letter alone has.
fn in_steps(mut letters: &[Letter]) -> Vec<&[Letter]> {
    let mut steps = Vec::new();
    while !letters.is_empty() {
        let mut bytes = 0;
        let fits = |(_, message): &&Letter| {
            bytes += message.payload.len();
            bytes <= dispatch::STEP_BYTES_MAX
        };
        let (step, rest) = letters.split_at(letters.iter().take_while(fits).count().max(1));
        steps.push(step);
        letters = rest;
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskError;
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

    /// A topology of one edge, whose topics are there.
    async fn one_edge(broker: &dyn Broker) -> TopologyRef {
        let edge = EdgeRef {
            id: "[*]-->a".to_owned(),
            ingress: true,
            topic: "t-a".to_owned(),
            subscription: "a".to_owned(),
            retry_topic: "t-a-a-RETRY".to_owned(),
            dead_letter_topic: "t-a-a-DLQ".to_owned(),
        };
        let topology = TopologyRef { name: "t".to_owned(), edges: vec![edge] };
        topics::create(broker, &topology).await.unwrap();
        topology
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

    /// Gives up so many messages at once, and gives the letters.
    async fn letters(broker: &dyn Broker, edge: &EdgeRef, count: usize) -> Vec<Letter> {
        let letter = |number: usize| {
            let message = ids::new_root(number.to_string().into(), Codec::Json, None);
            let message = DeadLetter::write(message, &edge.id, 1, &TaskError::permanent("no"));
            Publish { topic: edge.dead_letter_topic.as_str().into(), message: message.into(), sequence: None }
        };
        broker.publish((0..count).map(letter).collect()).await.unwrap();
        page(broker, edge, Position(0)).await.unwrap().0
    }

    fn ack(topic: &str, subscription: &str, position: Position) -> Ack {
        Ack { topic: topic.into(), subscription: subscription.into(), position, cumulative: false }
    }

    /// What has come back to the edge.
    async fn back(broker: &dyn Broker, edge: &EdgeRef) -> Vec<Letter> {
        broker.peek(&edge.retry_topic, &edge.subscription, Position(0), usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn letters_that_somebody_else_has_taken_meanwhile_are_left_out_of_a_page_and_of_its_count() {
        for taken in [vec![], vec![0], vec![99], vec![41], vec![0, 1, 50, 98, 99], (0..100).collect()] {
            let broker = MemoryBroker::new(Limits::default());
            let edge = &one_edge(&broker).await.edges[0];
            let page = letters(&broker, edge, 100).await;
            let acks = taken
                .iter()
                .map(|index: &usize| ack(&edge.dead_letter_topic, DEAD_LETTER_SUBSCRIPTION, page[*index].0))
                .collect();
            broker.commit(Step { acks, ..Step::default() }).await.unwrap();
            let settling = Settling { broker: &broker, edge, redrive: true, state: None };
            assert_eq!(settling.settle(&page).await.unwrap(), 100 - taken.len() as u64, "{taken:?}");
            // Nor does who has looked at the same page go beyond what is there.
            assert_eq!(settling.settle(&page).await.unwrap(), 0, "{taken:?}");
            let left: Vec<_> = (0..100).filter(|index| !taken.contains(index)).map(|index| page[index].1.id).collect();
            let back: Vec<_> = back(&broker, edge).await.into_iter().map(|(_, message)| message.id).collect();
            assert_eq!(back, left, "{taken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn letters_for_which_there_is_no_room_wait_for_it_and_the_others_do_not() {
        let broker = MemoryBroker::new(Limits { backlog_messages_max: 5, ..Limits::default() });
        let topology = one_edge(&broker).await;
        let edge = &topology.edges[0];
        letters(&broker, edge, 12).await;
        let request = Request::Redrive { topology: topology.clone(), filter: Filter::default() };
        let working_off = async {
            let mut came = Vec::new();
            while came.len() < 12 {
                let found = back(&broker, edge).await;
                let full = found.len() == 5 || came.len() + found.len() == 12;
                if !full {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let acks = found.iter().map(|(position, _)| ack(&edge.retry_topic, &edge.subscription, *position)).collect();
                broker.commit(Step { acks, ..Step::default() }).await.unwrap();
                came.extend(found.into_iter().map(|(_, message)| String::from_utf8(message.payload.to_vec()).unwrap()));
            }
            came
        };
        let both = async { tokio::join!(perform(&broker, request, false), working_off) };
        let (answer, came) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it goes on");
        assert!(matches!(answer, Response::Count { count: 12 }), "{answer:?}");
        assert_eq!(came, (0..12).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_has_no_more_bytes_than_one_of_a_dispatcher_but_for_one_letter_that_has() {
        let most = dispatch::STEP_BYTES_MAX;
        for (sizes, steps) in [
            (vec![], vec![]),
            (vec![1, 2, 3], vec![vec![1, 2, 3]]),
            (vec![most - 1, 1, 1], vec![vec![1], vec![most - 1, 1]]),
            (vec![1, most + 1, most, 1], vec![vec![1], vec![most], vec![most + 1], vec![1]]),
        ] {
            let payload = |size: &usize| Bytes::from(vec![0; *size]);
            let letter = |size| (Position(0), Message { payload: payload(size), ..Message::default() });
            let letters: Vec<Letter> = sizes.iter().map(letter).collect();
            let bytes = |step: &[Letter]| step.iter().map(|(_, message)| message.payload.len()).collect::<Vec<_>>();
            assert_eq!(in_steps(&letters).into_iter().map(bytes).collect::<Vec<_>>(), steps);
        }
    }
}
