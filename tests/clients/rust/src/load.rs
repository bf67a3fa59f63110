//! Load on a server, and what it bears: `load JOB TOPIC key=value…`, with one line of JSON as the result.
//!
//! | job | does | result |
//! |---|---|---|
//! | `subscribe` | makes the subscription, so that the topic keeps what is published | `{}` |
//! | `produce` | batches, as many as the server takes | `produced_per_s`, `produced` |
//! | `consume` | drains the subscription, each message acknowledged by itself | `consumed_per_s`, `consumed` |
//! | `both` | both at once, on two connections | all four |
//! | `hop` | takes from the topic, publishes the same bytes in batches to the topic `to=`, and acknowledges when there is the receipt | `hopped_per_s`, `hopped` |
//! | `latency` | one message at a time at a fixed rate, no batches; with `to=` it comes out of that topic | `messages`, `p50_ms`, `p99_ms`, `p999_ms`, `sent_p99_ms` |
//!
//! Rates are counted after `warm=` seconds, for `seconds=` seconds or until a drained subscription has given nothing for a second. A latency is from
//! when a message was due to be sent, not from when the client came to it, until it is received; `sent` is until its receipt.

use crate::rig::{Bytes, COMES, Failure, Outcome, Rig, next_within};
use futures::TryStreamExt;
use pulsar::{ProducerOptions, SubType};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};

/// Messages that a producer has no receipt for yet, at most: at 5 ms for a receipt that is two million a second, more than any client here makes.
const OUTSTANDING_MAX: usize = 10_000;

/// Messages of a batch: the Java client's limit too.
const BATCH: u32 = 1_000;

/// How long a batch waits to be full: as `pulsar-perf` has it.
const BATCH_DELAY: Duration = Duration::from_millis(1);

/// A drained subscription gives nothing for so long.
const DRAINED: Duration = Duration::from_secs(1);

/// What a job is told.
#[derive(Clone, Copy)]
struct Settings {
    bytes: usize,
    seconds: f64,
    warm: f64,
    rate: f64,
    /// Whether what is passed on goes in batches.
    batches: bool,
}

impl Settings {
    fn read(words: &[String]) -> Self {
        let value = |key: &str, default: f64| {
            words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok()).unwrap_or(default)
        };
        let (bytes, rate) = (value("bytes", 200.0) as usize, value("rate", 1_000.0));
        let batches = value("batches", 1.0) > 0.0;
        Self { bytes, seconds: value("seconds", 10.0), warm: value("warm", 3.0), rate, batches }
    }
}

/// Does one job, and gives its result.
pub async fn run(words: &[String]) -> Outcome<String> {
    let [job, topic, settings @ ..] = words else { return Err(Failure("load JOB TOPIC key=value…".to_owned())) };
    let settings = Settings::read(settings);
    let to = words.iter().find_map(|word| word.strip_prefix("to=")).map(str::to_owned);
    let rig = || Rig::new(std::env::var("PULSAR_TOKEN").ok(), topic.clone());
    match job.as_str() {
        "subscribe" => {
            rig().await?.consumer(SubType::Shared).await?.close().await?;
            Ok("{}".to_owned())
        }
        "produce" => Ok(format!("{{{}}}", produce(rig().await?, &settings).await?)),
        "consume" => Ok(format!("{{{}}}", consume(rig().await?, &settings).await?)),
        "both" => {
            // Connections of their own: the client never sets TCP_NODELAY, so acknowledgements between sends would wait.
            let (sending, receiving) = (rig().await?, rig().await?);
            let producing = tokio::spawn(async move { produce(sending, &settings).await });
            let consumed = consume(receiving, &settings).await?;
            Ok(format!("{{{}, {consumed}}}", producing.await??))
        }
        "hop" => {
            let to = to.ok_or_else(|| Failure("hop TOPIC to=TOPIC key=value…".to_owned()))?;
            let sending = Rig::new(std::env::var("PULSAR_TOKEN").ok(), to).await?;
            Ok(format!("{{{}}}", hop(rig().await?, sending, &settings).await?))
        }
        "latency" => {
            let out = to.unwrap_or_else(|| topic.clone());
            latency(rig().await?, Rig::new(std::env::var("PULSAR_TOKEN").ok(), out).await?, &settings).await
        }
        other => Err(Failure(format!("no such job: {other}"))),
    }
}

/// Counts what falls into the time after the warm-up.
struct Window {
    start: Instant,
    end: Instant,
    total: u64,
    counted: u64,
    last: Instant,
}

impl Window {
    fn new(settings: &Settings) -> Self {
        let start = Instant::now() + Duration::from_secs_f64(settings.warm);
        Self { start, end: start + Duration::from_secs_f64(settings.seconds), total: 0, counted: 0, last: start }
    }

    /// Counts one; `false` when the time is over.
    fn count(&mut self) -> bool {
        let now = Instant::now();
        self.total += 1;
        if now >= self.start && now < self.end {
            self.counted += 1;
            self.last = now;
        }
        now < self.end
    }

    /// Messages a second up to the last that came in time.
    fn per_s(&self) -> f64 {
        self.counted as f64 / self.last.duration_since(self.start).as_secs_f64().max(0.001)
    }
}

async fn produce(rig: Rig, settings: &Settings) -> Outcome<String> {
    let options = ProducerOptions {
        batch_size: Some(BATCH),
        batch_timeout: Some(BATCH_DELAY),
        block_queue_if_full: true,
        ..ProducerOptions::default()
    };
    let mut producer = rig.producer(options).await?;
    let (sender, mut receipts) = mpsc::channel(OUTSTANDING_MAX);
    let mut window = Window::new(settings);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let counting = tokio::spawn(async move {
        while let Some(receipt) = receipts.recv().await {
            let receipt: pulsar::producer::SendFuture = receipt;
            receipt.await?;
            if !window.count() {
                over.store(true, Ordering::Relaxed);
            }
        }
        Outcome::Ok(window)
    });
    let payload = payload(settings.bytes);
    while !is_over.load(Ordering::Relaxed) {
        let receipt = producer.send_non_blocking(payload.clone()).await?;
        if sender.send(receipt).await.is_err() {
            break;
        }
    }
    drop(sender);
    let window = counting.await??;
    Ok(format!("\"produced_per_s\": {:.0}, \"produced\": {}", window.per_s(), window.total))
}

async fn consume(rig: Rig, settings: &Settings) -> Outcome<String> {
    let mut consumer = rig.consumer(SubType::Shared).await?;
    let mut window = Window::new(settings);
    loop {
        match tokio::time::timeout(DRAINED, consumer.try_next()).await {
            Ok(message) => {
                let Some(message) = message? else { break };
                consumer.ack(&message).await?;
                if !window.count() {
                    break;
                }
            }
            // While others still produce, a pause is none of the end.
            Err(_) if Instant::now() < window.start => {}
            Err(_) => break,
        }
    }
    // What was acknowledged is sent before the connection ends. Seen with 6.9.1: a consumer that has messages to give, and nobody who takes them,
    // does not get to its end.
    let _ = tokio::time::timeout(DRAINED, consumer.close()).await;
    Ok(format!("\"consumed_per_s\": {:.0}, \"consumed\": {}", window.per_s(), window.total))
}

/// Passes messages on: each is acknowledged when its copy has a receipt, as somebody would who wants to lose nothing.
async fn hop(receiving: Rig, sending: Rig, settings: &Settings) -> Outcome<String> {
    let options = ProducerOptions {
        batch_size: settings.batches.then_some(BATCH),
        batch_timeout: settings.batches.then_some(BATCH_DELAY),
        block_queue_if_full: true,
        ..ProducerOptions::default()
    };
    let mut producer = sending.producer(options).await?;
    let mut consumer = receiving.consumer(SubType::Shared).await?;
    let (sender, mut receipts) = mpsc::channel(OUTSTANDING_MAX);
    let mut window = Window::new(settings);
    // Dropping the sender ends the task that waits for receipts, and that ends what it sends back.
    let (confirmed, mut confirmations) = mpsc::channel(OUTSTANDING_MAX);
    let waiting = tokio::spawn(async move {
        while let Some((id, receipt)) = receipts.recv().await {
            let receipt: pulsar::producer::SendFuture = receipt;
            receipt.await?;
            if confirmed.send(id).await.is_err() {
                break;
            }
        }
        Outcome::Ok(())
    });
    loop {
        tokio::select! {
            Some(message) = confirmations.recv() => {
                let message: pulsar::consumer::Message<Vec<u8>> = message;
                consumer.ack(&message).await?;
                if !window.count() {
                    break;
                }
            }
            next = tokio::time::timeout(DRAINED, consumer.try_next()) => match next {
                Ok(message) => {
                    let Some(message) = message? else { break };
                    let receipt = producer.send_non_blocking(message.deserialize()).await?;
                    if sender.send((message, receipt)).await.is_err() {
                        break;
                    }
                }
                Err(_) if Instant::now() < window.start => {}
                Err(_) => break,
            }
        }
    }
    drop(sender);
    waiting.abort();
    let _ = tokio::time::timeout(DRAINED, consumer.close()).await;
    Ok(format!("\"hopped_per_s\": {:.0}, \"hopped\": {}", window.per_s(), window.total))
}

/// Bytes that do not compress away.
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| byte()).collect()
}

async fn latency(sending: Rig, receiving: Rig, settings: &Settings) -> Outcome<String> {
    let consumer = receiving.consumer(SubType::Shared).await?;
    let mut producer = sending.producer(ProducerOptions { block_queue_if_full: true, ..ProducerOptions::default() }).await?;
    let first = Instant::now();
    let count = ((settings.warm + settings.seconds) * settings.rate) as u64;
    let skipped = (settings.warm * settings.rate) as u64;
    let taking = tokio::spawn(take(consumer, first, count, skipped));
    let (sender, mut receipts) = mpsc::channel(OUTSTANDING_MAX);
    let confirming = tokio::spawn(async move {
        let mut confirmed = Vec::new();
        while let Some((due, receipt)) = receipts.recv().await {
            let (due, receipt): (Duration, pulsar::producer::SendFuture) = (due, receipt);
            receipt.await?;
            confirmed.push(first.elapsed().saturating_sub(due));
        }
        Outcome::Ok(confirmed.split_off((skipped as usize).min(confirmed.len())))
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    // A tick that was missed is sent at once, and counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..count {
        let due = Duration::from_secs_f64(number as f64 / settings.rate);
        while first.elapsed() < due {
            ticks.tick().await;
        }
        let mut bytes = payload(settings.bytes);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..16].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
        let receipt = producer.send_non_blocking(bytes).await?;
        if sender.send((due, receipt)).await.is_err() {
            // A receipt was an error, which is told below.
            break;
        }
    }
    drop(sender);
    let (mut taken, mut confirmed) = (taking.await??, confirming.await??);
    let quantiles = |times: &mut [Duration], name: &str| {
        let each = [("50", 0.5), ("99", 0.99), ("999", 0.999)];
        each.map(|(digits, share)| format!("\"{name}p{digits}_ms\": {:.3}", quantile(times, share))).join(", ")
    };
    let (until_taken, until_confirmed) = (quantiles(&mut taken, ""), quantiles(&mut confirmed, "sent_"));
    Ok(format!("{{\"messages\": {}, {until_taken}, {until_confirmed}}}", taken.len()))
}

/// Receives so many, and gives how long each took after the first ones, which are left out.
async fn take(mut consumer: Bytes, first: Instant, count: u64, skipped: u64) -> Outcome<Vec<Duration>> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let message = next_within(&mut consumer, COMES).await?;
        let Some(message) = message else { return Err(Failure(format!("{} of {count} messages came", taken.len()))) };
        let now = first.elapsed();
        let payload = message.deserialize();
        let (number, rest) = payload.split_at(8);
        if u64::from_le_bytes(number.try_into()?) >= skipped {
            let due = Duration::from_nanos(u64::from_le_bytes(rest[..8].try_into()?));
            taken.push(now.saturating_sub(due));
        }
        consumer.ack(&message).await?;
    }
    Ok(taken)
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}
