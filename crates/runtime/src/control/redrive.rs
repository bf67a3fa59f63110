//! Dead letters that are given back to their edges, or dropped, a page at a time.

use super::{
    Filter, Response,
    act::{edges, fits, only, page},
};
use crate::{
    DeadLetter,
    codec::Bytes,
    dispatch, ids,
    topics::{self, DEAD_LETTER_SUBSCRIPTION, EdgeRef, TopologyRef},
};
use leatworks_broker::{Ack, Broker, ErrorKind, Message, Position, Publish, Result, Step};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// By what name letters go back where a step may be done by half: the service counts what comes by it, and knows the last number when its sender is gone.
const PRODUCER: &str = "redrive";

/// Takes letters out of the dead-letter topics; with `redrive` each goes back to its edge in the same step.
pub(super) async fn settle(broker: &dyn Broker, topology: &TopologyRef, filter: &Filter, redrive: bool) -> Result<Response> {
    let key = state(broker, topology).await?;
    // What is redriven now may be given up again meanwhile: only what lay there at the beginning is meant.
    let began_ms = ids::now_ms();
    let mut count = 0;
    let most = filter.limit.unwrap_or(u64::MAX);
    for edge in edges(topology, filter) {
        let settling = Settling { broker, edge, redrive, key: key.as_deref(), next: AtomicU64::new(0) };
        let mut from = Some(Position(0));
        while let Some(position) = from.filter(|_| count < most) {
            let (mut letters, next) = page(broker, edge, position).await?;
            if redrive && !letters.is_empty() && position == Position(0) {
                topics::create(broker, &only(topology, edge)).await?;
                settling.count_on().await?;
            }
            from = next;
            letters.retain(|(position, message)| {
                let letter = DeadLetter::read(&edge.id, *position, message);
                letter.last_ms <= began_ms && fits(&letter, filter)
            });
            letters.truncate(usize::try_from(most - count).unwrap_or(usize::MAX));
            count += settling.settle(&letters).await?;
        }
    }
    Ok(Response::Count { count })
}

/// Letters that are about to go back: written before they do where a step may be done by half.
#[derive(Serialize, Deserialize)]
struct Sending {
    edge: String,
    /// The number of the first; the others follow.
    first: u64,
    positions: Vec<u64>,
}

/// The key of the state that makes steps whole where they may be done by half; and one at a time has that, so nothing is redriven by two. What somebody has sent
/// who was killed before he had settled it is settled first.
async fn state(broker: &dyn Broker, topology: &TopologyRef) -> Result<Option<String>> {
    if broker.promises().atomic_step {
        return Ok(None);
    }
    let key = format!("redrive/{}.redrive", topology.name);
    let begun = broker.state(&key).await?.and_then(|begun| serde_json::from_slice::<Sending>(&begun).ok());
    let edge = begun.as_ref().and_then(|begun| topology.edges.iter().find(|edge| edge.id == begun.edge));
    if let (Some(begun), Some(edge)) = (&begun, edge) {
        topics::create(broker, &only(topology, edge)).await?;
        let last = broker.last_sequence(&edge.retry_topic, PRODUCER).await?;
        let sent = last.map_or(0, |last| (last + 1).saturating_sub(begun.first)) as usize;
        let acks = begun.positions.iter().take(sent).map(|position| ack(edge, Position(*position))).collect();
        dispatch::commit(broker, Step { acks, guard: false, ..note(&key, Bytes::new()) }).await?;
    }
    Ok(Some(key))
}

/// A step that writes the state and does nothing else.
fn note(key: &str, value: Bytes) -> Step {
    Step { state: vec![(key.to_owned(), Some(value))], ..Step::default() }
}

fn ack(edge: &EdgeRef, position: Position) -> Ack {
    Ack {
        topic: edge.dead_letter_topic.as_str().into(),
        subscription: DEAD_LETTER_SUBSCRIPTION.into(),
        position,
        cumulative: false,
    }
}

/// A dead letter, and where it lies.
type Letter = (Position, Message);

/// From where letters are taken, and what becomes of them.
struct Settling<'a> {
    broker: &'a dyn Broker,
    edge: &'a EdgeRef,
    redrive: bool,
    /// The key of the state that each step writes.
    key: Option<&'a str>,
    /// The number of the letter that goes back next, where they are numbered.
    next: AtomicU64,
}

impl Settling<'_> {
    /// Goes on behind the last number that the service has.
    async fn count_on(&self) -> Result<()> {
        if self.key.is_some() {
            let last = self.broker.last_sequence(&self.edge.retry_topic, PRODUCER).await?;
            self.next.store(last.map_or(0, |last| last + 1), Relaxed);
        }
        Ok(())
    }

    /// Settles letters in as few steps as it takes, and gives how many it were. A step has as many round trips for one letter as for
    /// 256: on Pulsar a tenth of a second on a busy machine.
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
        match (self.key.filter(|_| self.redrive), letters) {
            (Some(key), _) => dispatch::patiently(|| self.send(key, letters)).await,
            (None, [_]) => dispatch::commit(self.broker, self.step(letters, None)).await,
            (None, _) => dispatch::patiently(|| self.broker.commit(self.step(letters, None))).await,
        }
    }

    /// Makes a step that may be done by half: with the numbers that the letters get it is noted before, so that who comes after a crash knows from the last
    /// number that the service has which of them have gone back. Without the note all of a page could go back twice.
    async fn send(&self, key: &str, letters: &[Letter]) -> Result<()> {
        let first = self.next.fetch_add(letters.len() as u64, Relaxed);
        let positions = letters.iter().map(|(position, _)| position.0).collect();
        let sending = serde_json::json!(Sending { edge: self.edge.id.clone(), first, positions });
        dispatch::commit(self.broker, note(key, sending.to_string().into())).await?;
        let made = self.broker.commit(self.step(letters, Some(first))).await;
        if made.is_err() {
            // What was refused is not there, whatever the last number is by now: rather twice than not at all.
            dispatch::commit(self.broker, note(key, Bytes::new())).await?;
        }
        made
    }

    fn step(&self, letters: &[Letter], first: Option<u64>) -> Step {
        let (to, producer): (Arc<str>, Arc<str>) = (self.edge.retry_topic.as_str().into(), PRODUCER.into());
        let publish = |(index, (_, message)): (usize, &Letter)| Publish {
            topic: to.clone(),
            message: dispatch::clean(message.clone()).into(),
            sequence: first.map(|first| (producer.clone(), first + index as u64)),
        };
        let publishes = letters.iter().enumerate().filter(|_| self.redrive).map(publish).collect();
        Step {
            acks: letters.iter().map(|(position, _)| ack(self.edge, *position)).collect(),
            publishes,
            // What is in nobody's hands there cannot be guarded.
            guard: self.key.is_none(),
            ..self.key.map(|key| note(key, Bytes::new())).unwrap_or_default()
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
pub(super) mod tests {
    use super::*;
    use crate::{
        Codec, TaskError,
        control::{Request, perform},
    };
    use leatworks_broker::{Limits, MemoryBroker};
    use std::time::Duration;

    /// A topology of one edge, whose topics are there.
    pub(in crate::control) async fn one_edge(broker: &dyn Broker) -> TopologyRef {
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
            let acks = taken.iter().map(|index: &usize| ack(edge, page[*index].0)).collect();
            broker.commit(Step { acks, ..Step::default() }).await.unwrap();
            let settling = Settling { broker: &broker, edge, redrive: true, key: None, next: AtomicU64::new(0) };
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
                let handled = |(position, _): &Letter| Ack {
                    topic: edge.retry_topic.as_str().into(),
                    subscription: edge.subscription.as_str().into(),
                    position: *position,
                    cumulative: false,
                };
                let acks = found.iter().map(handled).collect();
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
