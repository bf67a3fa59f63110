//! One attempt at one message: from the delivery to what is to become of it.

use super::{Closing, DeadLetter, Edge, Taken, away::Away};
use crate::{Cause, Codec, Context, TaskError, codec::Bytes, handler::Output, ids, job, source};
use futures_util::FutureExt;
use leatworks_broker::{Ack, Delivery, Message, Position, Publish};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    any::Any,
    borrow::Cow,
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

/// What is to become of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is settled in one step with what came of it.
    Settle(Settle),
    /// It is given back, to be tried again after a delay.
    Again(super::Queue, Position, Duration),
}

/// A message that is settled.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) ack: Ack,
    /// Its outputs, or the message itself on its way to the dead letters.
    pub(crate) publishes: Vec<Publish>,
    /// How many outputs the task gave; none if the message was given up.
    pub(crate) emitted: Option<u64>,
    /// The message and its attempt, should the broker refuse what came of it; none if it was given up.
    pub(crate) origin: Option<(Arc<Message>, u32)>,
    /// How long its call took, where that is written down.
    pub(crate) took: Option<Duration>,
}

/// A message that an attempt is to be made at.
pub(super) struct Held {
    queue: super::Queue,
    position: Position,
    pub(super) attempt: u32,
    pub(super) message: Arc<Message>,
    began: Option<Instant>,
}

impl Held {
    /// The message as it was before it was taken in hand.
    pub(super) fn untried(self) -> Taken {
        let Self { queue, position, attempt, message, .. } = self;
        Taken { queue, delivery: Delivery { position, attempt, message } }
    }
}

/// Takes a message in hand, unless all of its attempts are used up.
pub(super) fn hold(edge: &Edge, taken: Taken) -> Result<Held, Outcome> {
    let Taken { queue, delivery } = taken;
    let (position, attempt, message) = (delivery.position, delivery.attempt, delivery.message);
    if attempt > edge.retry.attempts {
        let error = died(edge.retry.attempts);
        return Err(give_up(edge, queue, position, message, attempt, &error));
    }
    let began = edge.trace.as_ref().map(|_| Instant::now());
    Ok(Held { queue, position, attempt, message, began })
}

/// What becomes of a message by what its task has said. `now_ms` is when its outputs are made, as well as it is known.
pub(super) fn conclude(edge: &Edge, held: Held, result: Result<Vec<Output>, TaskError>, now_ms: u64) -> Outcome {
    let Held { queue, position, attempt, message, began } = held;
    match result.and_then(|outputs| publishes(edge, &message, outputs, now_ms)) {
        Ok((publishes, emitted)) => Outcome::Settle(Settle {
            ack: edge.ack(queue, position),
            publishes,
            emitted: Some(emitted),
            origin: Some((message, attempt)),
            took: began.map(|began| began.elapsed()),
        }),
        Err(error) => {
            // What no longer is whole can be no JSON, and that is of more use than where it stops to be some.
            let cut = source::cut(&message).filter(|_| error.cause() == Cause::Undecodable);
            let error = cut.map(|why| TaskError::with_cause(Cause::Undecodable, why)).unwrap_or(error);
            fail(edge, queue, position, message, attempt, &error)
        }
    }
}

/// Runs the task once. While its worker cannot be reached, the attempt waits; if the dispatcher is to end meanwhile, the message is given back.
pub(super) async fn run(edge: &Edge, taken: Taken, now_ms: u64, closing: &Closing) -> Outcome {
    let held = match hold(edge, taken) {
        Ok(held) => held,
        Err(outcome) => return outcome,
    };
    let result = {
        let seen = opened(edge, &held.message);
        let cx = Context::new(edge.place.clone(), &seen, held.attempt);
        let mut away = Away::new(edge);
        loop {
            let began = edge.watch.as_ref().map(|watch| (watch, Instant::now()));
            match call(edge, &seen, &cx).await {
                Err(error) if error.is_unreached() => {
                    if !away.wait(&seen, &error, closing).await {
                        return Outcome::Again(held.queue, held.position, Duration::ZERO);
                    }
                }
                result => {
                    if let Some((watch, began)) = began {
                        watch.called(began.elapsed());
                    }
                    break result;
                }
            }
        }
    };
    conclude(edge, held, result, now_ms)
}

/// The message as its task sees it: an envelope is opened.
pub(super) fn opened<'a>(edge: &Edge, message: &'a Message) -> Cow<'a, Message> {
    match edge.envelope().and_then(|address| open_envelope(message, address)) {
        Some(payload) => Cow::Owned(Message { payload, ..message.clone() }),
        None => Cow::Borrowed(message),
    }
}

/// What becomes of a message on which its task has failed.
pub(crate) fn fail(
    edge: &Edge,
    queue: super::Queue,
    position: Position,
    message: Arc<Message>,
    attempt: u32,
    error: &TaskError,
) -> Outcome {
    use std::sync::atomic::Ordering::Relaxed;
    let counts = edge.task_counts();
    counts.failed.fetch_add(1, Relaxed);
    if error.is_permanent() || attempt >= edge.retry.attempts {
        return give_up(edge, queue, position, message, attempt, error);
    }
    counts.retried.fetch_add(1, Relaxed);
    let delay = backoff(edge, &message, attempt, error);
    tracing::debug!(id = %message.id, edge = edge.def.id, attempt, ?delay, %error, "failed, tried again");
    if let Some(trace) = &edge.trace {
        trace.failed(edge, &message, attempt, error);
    }
    Outcome::Again(queue, position, delay)
}

/// The wait before the next attempt: exponential, with full jitter, so that what failed together does not come again together.
pub(crate) fn backoff(edge: &Edge, message: &Message, attempt: u32, error: &TaskError) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let ceiling = edge.retry.backoff.saturating_mul(1u32 << doublings).min(edge.retry.max_backoff);
    let jittered = ceiling.mul_f64(ids::spread(message.id, attempt));
    match error.delay_asked_for() {
        Some(asked) => jittered.max(asked.min(edge.retry.max_backoff)),
        None => jittered,
    }
}

pub(crate) fn died(attempts: u32) -> TaskError {
    TaskError::with_cause(
        Cause::WorkerDied,
        format!("the process ended while it held this message, and all of its {attempts} attempts are used up"),
    )
}

/// Moves a message to the dead letters.
fn give_up(
    edge: &Edge,
    queue: super::Queue,
    position: Position,
    message: Arc<Message>,
    attempt: u32,
    error: &TaskError,
) -> Outcome {
    Outcome::Settle(give_up_with(edge, edge.ack(queue, position), message, attempt, error))
}

pub(super) fn give_up_with(edge: &Edge, ack: Ack, message: Arc<Message>, attempt: u32, error: &TaskError) -> Settle {
    // One that its process has ended with was handed out once more, but not tried.
    let attempt = attempt.min(edge.retry.attempts.max(1));
    tracing::warn!(id = %message.id, edge = edge.def.id, attempt, cause = error.cause().as_str(), %error, "moved to the dead letters");
    let message = DeadLetter::write(Arc::unwrap_or_clone(message), edge.def.id, attempt, error);
    let publish = Publish { topic: edge.dead_letter_topic.clone(), message: message.into(), sequence: None };
    Settle { ack, publishes: vec![publish], emitted: None, origin: None, took: None }
}

/// The task of a Trampoline envelope (`{"type": "<topology>-<task>", "task": …}`), if the message is one for this address.
fn open_envelope(message: &Message, address: &str) -> Option<Bytes> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        task: &'a RawValue,
    }
    // A payload that can be none is not parsed: what the parser would say of it costs more than the rest of a quick task.
    let object = message.payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if message.codec != Codec::Json || !object || memmem::find(&message.payload, b"\"task\"").is_none() {
        return None;
    }
    let envelope: Envelope<'_> = serde_json::from_slice(&message.payload).ok()?;
    (envelope.kind == address).then(|| message.payload.slice_ref(envelope.task.get().as_bytes()))
}

/// Calls the handler within its time, with a panic turned into an error.
async fn call(edge: &Edge, message: &Message, cx: &Context) -> Result<Vec<Output>, TaskError> {
    let limit = edge.timeout;
    let Some(handler) = &edge.handler else { return Err(TaskError::permanent("a fold takes its messages itself")) };
    let mut handling = std::pin::pin!(guard_panic(async { handler.handle(message, cx).await }));
    // Most tasks are done at the first poll: the timer is only made for those that wait.
    if let std::task::Poll::Ready(result) = futures_util::poll!(&mut handling) {
        return result;
    }
    match tokio::time::timeout(limit, handling).await {
        Ok(result) => result,
        Err(_) => Err(TaskError::with_cause(Cause::Timeout, format!("it took longer than its timeout of {limit:?}"))),
    }
}

/// Runs a task's future, with a panic turned into an error.
pub(crate) async fn guard_panic<T>(future: impl Future<Output = Result<T, TaskError>>) -> Result<T, TaskError> {
    // After a panic nothing of the future is used again; the task itself is shared and must bear it, as in any thread pool.
    AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|panic| Err(panic_error(panic.as_ref())))
}

pub(crate) fn panic_error(panic: &(dyn Any + Send)) -> TaskError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&'static str>().copied())
        .unwrap_or("with a value that is no text");
    TaskError::with_cause(Cause::Panic, format!("the task panicked: {text}"))
}

/// The outputs of a message as what is published, and how many there are.
fn publishes(edge: &Edge, parent: &Message, outputs: Vec<Output>, now_ms: u64) -> Result<(Vec<Publish>, u64), TaskError> {
    let emitted = outputs.len() as u64;
    let max = edge.broker.max_message_bytes();
    let mut publishes = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.into_iter().enumerate() {
        let Output { route, topic, key, payload } = output;
        let Some(topic) = topic.or_else(|| route.and_then(|route| edge.route(route).cloned())) else { continue };
        if payload.len() > max {
            let bytes = payload.len();
            return Err(TaskError::permanent(format!("output {index} has {bytes} bytes, and the broker takes at most {max}")));
        }
        let message = Message {
            id: ids::child_id(parent.id, edge.seed(), index as u64),
            root: parent.root,
            key: key.or_else(|| parent.key.clone()),
            created_ms: now_ms,
            trace: parent.trace.clone(),
            codec: edge.codec(),
            properties: job::parents(edge.lineage.then_some(parent.id)),
            payload,
            ..Message::default()
        };
        publishes.push(Publish { topic, message: message.into(), sequence: None });
    }
    Ok((publishes, emitted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_opened_only_if_it_is_one_for_this_task() {
        for (payload, task) in [
            (r#"{"type":"shop-start","task":{"a": 1}}"#, Some(r#"{"a": 1}"#)),
            (r#" { "task" : [1, 2], "type" : "shop-start" } "#, Some("[1, 2]")),
            (r#"{"type":"shop-other","task":{}}"#, None),
            (r#"{"type":"shop-start","task":{},"more":1}"#, None),
            (r#"{"type":"shop-start"}"#, None),
            (r#"{"type":1,"task":{}}"#, None),
            ("[]", None),
            ("", None),
            ("{", None),
        ] {
            let message = Message { payload: Bytes::from_static(payload.as_bytes()), ..Message::default() };
            assert_eq!(open_envelope(&message, "shop-start").as_deref(), task.map(str::as_bytes), "{payload}");
        }
    }
}
