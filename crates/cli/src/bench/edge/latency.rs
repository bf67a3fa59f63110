//! How long a message takes from when it was due to be sent until it is received behind the edge.

use super::{
    super::{Failed, disk::percentile},
    line::{Line, RECEIVER},
};
use bytes::Bytes;
use leatworks::{
    Codec,
    broker::{Ack, Broker, HandOff, Publish, Step, Subscribe, SubscriptionKind},
    new_root,
};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// How long it warms up, and then is measured. At 1,000 a second that is 20,000 samples, of which 200 lie above the 99th percentile: one slow sync of the service is tens
/// of them.
const WARM: Duration = Duration::from_secs(1);
/// See [`WARM`].
const MEASURED: Duration = Duration::from_secs(20);

/// What was sent comes within this, or not at all.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// Digits of a message's number.
const DIGITS: usize = 10;

/// Milliseconds from when a message was due to be sent until it was received.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) messages: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Sends at a fixed rate, and receives. Whatever is between is started already.
pub(super) async fn measure(broker: &Arc<dyn Broker>, line: &Line, rate: u64, bytes: u64) -> Result<Times, Failed> {
    let (warm, all) = (rate * WARM.as_secs(), rate * (WARM + MEASURED).as_secs());
    let start = Instant::now();
    let due = move |number: u64| start + Duration::from_secs_f64(number as f64 / rate as f64);
    let receiving = tokio::spawn(receive(broker.clone(), line.output.clone(), all));
    let mut receipts = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1));
    // A message that is sent late counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..all {
        while Instant::now() < due(number) {
            ticks.tick().await;
        }
        let message = new_root(payload(number, bytes), Codec::Json, None);
        let publish = Publish { topic: line.input.clone(), message: message.into(), sequence: None };
        let broker = broker.clone();
        receipts.spawn(async move { broker.publish(vec![publish]).await.map(drop) });
    }
    while let Some(receipt) = receipts.join_next().await {
        receipt??;
    }
    let received = receiving.await??;
    let mut times: Vec<Duration> = received
        .into_iter()
        .filter(|(number, _)| *number >= warm)
        .map(|(number, at)| at.saturating_duration_since(due(number)))
        .collect();
    times.sort_unstable();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| percentile(&times, part));
    Ok(Times { messages: times.len(), p50, p99, p999 })
}

/// Receives so many messages: the number of each, and when it came.
async fn receive(broker: Arc<dyn Broker>, topic: Arc<str>, all: u64) -> Result<Vec<(u64, Instant)>, Failed> {
    let subscription: Arc<str> = RECEIVER.into();
    let subscribe = Subscribe {
        topic: topic.to_string(),
        subscription: RECEIVER.to_owned(),
        kind: SubscriptionKind::Shared,
        consumer: "bench".to_owned(),
        permits: 4_096,
        hand_off: HandOff::Durable,
    };
    let mut consumer = broker.subscribe(subscribe).await?;
    let mut received = Vec::with_capacity(all as usize);
    let mut settling = JoinSet::new();
    while received.len() < all as usize {
        let came = timeout(COMES_WITHIN, consumer.receive(1_024)).await;
        let came = came.map_err(|_| format!("only {} of {all} messages came out of the edge", received.len()))??;
        let now = Instant::now();
        let mut acks = Vec::with_capacity(came.len());
        for delivery in came {
            received.push((number(&delivery.message.payload).ok_or("a message came that was not sent")?, now));
            let (topic, subscription) = (topic.clone(), subscription.clone());
            acks.push(Ack { topic, subscription, position: delivery.position, cumulative: false });
        }
        let broker = broker.clone();
        settling.spawn(async move { broker.commit(Step { acks, ..Step::default() }).await });
    }
    while let Some(settled) = settling.join_next().await {
        settled??;
    }
    Ok(received)
}

/// A JSON text of this many bytes, at least 12, that begins with a number.
fn payload(number: u64, bytes: u64) -> Bytes {
    let fill = usize::try_from(bytes).unwrap_or_default().saturating_sub(DIGITS + 2);
    format!("\"{number:010}{}\"", "x".repeat(fill)).into()
}

fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload.get(1..=DIGITS)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_text_of_its_size_and_says_its_number() {
        for (of, bytes, length) in [(0, 100, 100), (4_999, 200, 200), (7, 2, 12)] {
            let payload = payload(of, bytes);
            assert_eq!((payload.len(), number(&payload)), (length, Some(of)));
            assert!(serde_json::from_slice::<String>(&payload).is_ok());
        }
        assert_eq!(number(b"\"12\""), None);
    }
}
