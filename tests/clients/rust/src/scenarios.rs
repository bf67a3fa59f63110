//! The scenarios themselves.

use crate::rig::{
    Bytes, COMES, Failure, Outcome, Rig, STAYS_AWAY, connect, exactly, message, next_within, numbers, receive, refused, same,
    send_all, shared_out, text, texts,
};
use futures::TryStreamExt;
use pulsar::{
    ConsumerOptions, ProducerOptions, SubType,
    compression::{Compression, CompressionLz4, CompressionSnappy, CompressionZlib, CompressionZstd},
    consumer::InitialPosition,
    producer::Message,
};
use regex::Regex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// More than the largest frame that a server takes by default. This client does not look at the server's limit, and the real service takes
/// messages a little above it.
const BIG: usize = 6 * 1024 * 1024;

/// How many messages the largest scenario sends.
const CROWD: usize = 200_000;

/// How the client tells that a server did not let it in.
const NOT_CONNECTED: &str = "fatal error when connecting to the Pulsar server";

/// Runs one scenario by its name.
pub async fn run(name: &str, rig: &Rig) -> Outcome {
    match name {
        "keys-and-properties" => keys_and_properties(rig).await,
        "batches" => batches(rig).await,
        "compression-lz4" => compression(rig, Compression::Lz4(CompressionLz4::default())).await,
        "compression-zstd" => compression(rig, Compression::Zstd(CompressionZstd::default())).await,
        "compression-zlib" => compression(rig, Compression::Zlib(CompressionZlib::default())).await,
        "compression-snappy" => compression(rig, Compression::Snappy(CompressionSnappy::default())).await,
        "exclusive" => exclusive(rig).await,
        "shared" => shared(rig).await,
        "failover" => failover(rig).await,
        "key-shared" => key_shared(rig).await,
        "key-affinity" => key_affinity(rig).await,
        "ack-individual" => ack_individual(rig).await,
        "ack-cumulative" => ack_cumulative(rig).await,
        "nack" => nack(rig).await,
        "unacked-again" => unacked_again(rig).await,
        "acked-never-again" => acked_never_again(rig).await,
        "seek-id" => seek_id(rig).await,
        "seek-time" => seek_time(rig).await,
        "last-message-id" => last_message_id(rig).await,
        "deliver-after" => deliver_after(rig).await,
        "dedup" => dedup(rig).await,
        "unsubscribe" => unsubscribe(rig).await,
        "pattern" => pattern(rig, &["a", "b"], &[]).await,
        "pattern-grows" => pattern(rig, &["a", "b"], &["c"]).await,
        "shared-200k" => shared_200k(rig).await,
        "oversized" => oversized(rig).await,
        "exclusive-conflict" => exclusive_conflict(rig).await,
        "reader" => reader(rig).await,
        "consumer-stats" => consumer_stats(rig).await,
        "token-right" => exclusive(rig).await,
        // Seen with 6.9.1 on the real service: what the server says is lost, and only that connecting failed is told.
        "token-wrong" => refused(connect(Some("wrong".to_owned())).await, NOT_CONNECTED),
        "token-none" => refused(connect(None).await, NOT_CONNECTED),
        _ => Err(Failure("no such scenario".to_owned())),
    }
}

async fn keys_and_properties(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    let messages = numbers(0, 10).iter().enumerate().map(|(number, payload)| message(number, payload)).collect();
    send_all(&mut rig.producer(ProducerOptions::default()).await?, messages).await?;
    let messages = receive(&mut consumer, 10, true).await?;
    same(texts(&messages), numbers(0, 10), "payloads")?;
    for (number, message) in messages.iter().enumerate() {
        same(message.key(), Some(format!("k{}", number % 3)), "key")?;
        same(message.metadata().event_time, Some(1000 + number as u64), "event time")?;
        let properties: BTreeMap<_, _> = message.metadata().properties.iter().map(|pair| (&*pair.key, &*pair.value)).collect();
        same(properties, [("n", &*number.to_string()), ("word", "grün")].into(), "properties")?;
    }
    Ok(())
}

fn batching(size: u32) -> ProducerOptions {
    ProducerOptions { batch_size: Some(size), batch_timeout: Some(Duration::from_secs(1)), ..Default::default() }
}

async fn batches(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    let messages = numbers(0, 1000).iter().enumerate().map(|(number, payload)| message(number, payload)).collect();
    send_all(&mut rig.producer(batching(100)).await?, messages).await?;
    let messages = receive(&mut consumer, 1000, true).await?;
    same(texts(&messages), numbers(0, 1000), "payloads")?;
    for (number, message) in messages.iter().enumerate() {
        same(message.key(), Some(format!("k{}", number % 3)), "key")?;
    }
    Ok(())
}

async fn compression(rig: &Rig, compression: Compression) -> Outcome {
    let contents: Vec<String> = (0..20).map(|number| format!("{number} {}", "leat".repeat(2500))).collect();
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    for options in [batching(100), ProducerOptions::default()] {
        let options = ProducerOptions { compression: Some(compression.clone()), ..options };
        let messages = contents.iter().enumerate().map(|(number, payload)| message(number, payload)).collect();
        send_all(&mut rig.producer(options).await?, messages).await?;
        same(texts(&receive(&mut consumer, 20, true).await?), contents.clone(), "payloads")?;
    }
    Ok(())
}

async fn exclusive(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 100)).await?;
    exactly(&mut consumer, &numbers(0, 100)).await
}

/// A consumer that asks for five messages at a time, so that another gets some too.
async fn modest(rig: &Rig) -> Outcome<Bytes> {
    Ok(rig.consumer_with(SubType::Shared, |builder| builder.with_batch_size(5)).await?)
}

async fn shared(rig: &Rig) -> Outcome {
    let mut consumers = [modest(rig).await?, modest(rig).await?];
    rig.send(&numbers(0, 100)).await?;
    shared_out(&mut consumers, 100).await.map(drop)
}

async fn failover(rig: &Rig) -> Outcome {
    let mut active = rig.consumer_with(SubType::Failover, |builder| builder.with_consumer_name("a")).await?;
    let mut standby = rig.consumer_with(SubType::Failover, |builder| builder.with_consumer_name("b")).await?;
    rig.send(&numbers(0, 50)).await?;
    // Which of the two is the active one is the server's choice.
    let head = match next_within(&mut active, Duration::from_secs(3)).await? {
        Some(head) => head,
        None => {
            std::mem::swap(&mut active, &mut standby);
            receive(&mut active, 1, false).await?.remove(0)
        }
    };
    active.ack(&head).await?;
    let rest = receive(&mut active, 49, true).await?;
    same([vec![text(&head)], texts(&rest)].concat(), numbers(0, 50), "payloads")?;
    exactly(&mut standby, &[]).await?;
    active.close().await?;
    rig.send(&numbers(50, 100)).await?;
    exactly(&mut standby, &numbers(50, 100)).await
}

/// Sends 200 messages of 20 keys to two consumers, and gives what came of each key: which consumer had it, and its number.
async fn by_key(rig: &Rig) -> Outcome<BTreeMap<String, Vec<(usize, u32)>>> {
    let mut consumers = [rig.consumer(SubType::KeyShared).await?, rig.consumer(SubType::KeyShared).await?];
    let mut producer = rig.producer(ProducerOptions::default()).await?;
    for number in 0..200 {
        let key = Some(format!("key-{}", number % 20));
        let message = Message { payload: number.to_string().into_bytes(), partition_key: key, ..Default::default() };
        producer.send_non_blocking(message).await?.await?;
    }
    let mut found: BTreeMap<String, Vec<(usize, u32)>> = BTreeMap::new();
    for (at, message) in shared_out(&mut consumers, 200).await? {
        found.entry(message.key().unwrap_or_default()).or_default().push((at, text(&message).parse()?));
    }
    Ok(found)
}

async fn key_shared(rig: &Rig) -> Outcome {
    for (key, messages) in by_key(rig).await? {
        same(messages.is_sorted_by_key(|(_, number)| *number), true, &format!("order of {key}: {messages:?}"))?;
    }
    Ok(())
}

async fn key_affinity(rig: &Rig) -> Outcome {
    for (key, messages) in by_key(rig).await? {
        same(messages.iter().all(|(at, _)| *at == messages[0].0), true, &format!("one consumer had {key}"))?;
    }
    Ok(())
}

/// Another consumer in place of this one.
async fn reconnect(rig: &Rig, mut consumer: Bytes, kind: SubType) -> Outcome<Bytes> {
    consumer.close().await?;
    drop(consumer);
    Ok(rig.consumer(kind).await?)
}

async fn ack_individual(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 10)).await?;
    for message in receive(&mut consumer, 10, false).await?.iter().step_by(2) {
        consumer.ack(message).await?;
    }
    let mut consumer = reconnect(rig, consumer, SubType::Exclusive).await?;
    exactly(&mut consumer, &["1", "3", "5", "7", "9"].map(str::to_owned)).await
}

async fn ack_cumulative(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 10)).await?;
    let messages = receive(&mut consumer, 10, false).await?;
    consumer.cumulative_ack(&messages[4]).await?;
    let mut consumer = reconnect(rig, consumer, SubType::Exclusive).await?;
    exactly(&mut consumer, &numbers(5, 10)).await
}

async fn nack(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Shared).await?;
    rig.send(&numbers(0, 10)).await?;
    for (number, message) in receive(&mut consumer, 10, false).await?.iter().enumerate() {
        match number {
            3 => consumer.nack(message).await?,
            _ => consumer.ack(message).await?,
        }
    }
    exactly(&mut consumer, &numbers(3, 4)).await
}

async fn unacked_again(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 10)).await?;
    receive(&mut consumer, 10, false).await?;
    let mut consumer = reconnect(rig, consumer, SubType::Exclusive).await?;
    exactly(&mut consumer, &numbers(0, 10)).await
}

async fn acked_never_again(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 10)).await?;
    receive(&mut consumer, 10, true).await?;
    let mut consumer = reconnect(rig, consumer, SubType::Exclusive).await?;
    exactly(&mut consumer, &[]).await?;
    rig.send(&["new".to_owned()]).await?;
    exactly(&mut consumer, &["new".to_owned()]).await
}

async fn seek_id(rig: &Rig) -> Outcome {
    rig.keep().await?;
    // On an Exclusive subscription this client's seek never ends, also with the real service.
    let mut consumer = rig.consumer(SubType::Shared).await?;
    let ids = rig.send(&numbers(0, 10)).await?;
    receive(&mut consumer, 10, true).await?;
    consumer.seek(None, Some(ids[4].clone()), None, rig.client.clone()).await?;
    // This client leaves the message of the identifier itself in.
    exactly(&mut consumer, &numbers(4, 10)).await
}

async fn seek_time(rig: &Rig) -> Outcome {
    rig.keep().await?;
    let mut consumer = rig.consumer(SubType::Shared).await?;
    rig.send(&numbers(0, 5)).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let middle = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.send(&numbers(5, 10)).await?;
    receive(&mut consumer, 10, true).await?;
    consumer.seek(None, None, Some(middle), rig.client.clone()).await?;
    exactly(&mut consumer, &numbers(5, 10)).await
}

async fn last_message_id(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    let ids = rig.send(&numbers(0, 10)).await?;
    let found = consumer.get_last_message_id().await?;
    same((found[0].ledger_id, found[0].entry_id), (ids[9].ledger_id, ids[9].entry_id), "last message id")
}

async fn deliver_after(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Shared).await?;
    let mut producer = rig.producer(ProducerOptions::default()).await?;
    let sent = Instant::now();
    producer.create_message().with_content("late").delay(Duration::from_secs(2))?.send_non_blocking().await?.await?;
    producer.send_non_blocking("now").await?.await?;
    same(texts(&receive(&mut consumer, 1, true).await?), vec!["now".to_owned()], "payloads")?;
    same(texts(&receive(&mut consumer, 1, true).await?), vec!["late".to_owned()], "payloads")?;
    same(sent.elapsed() >= Duration::from_millis(1900), true, &format!("the delayed message came after {:?}", sent.elapsed()))
}

async fn dedup(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    // This client numbers from 0 whenever a producer is made, so a second one of the same name resends the numbers of the first.
    for end in [10, 15] {
        let mut producer = rig.client.producer().with_topic(&rig.topic).with_name("p").build().await?;
        for text in numbers(0, end) {
            producer.send_non_blocking(text).await?.await?;
        }
        producer.close().await?;
    }
    exactly(&mut consumer, &numbers(0, 15)).await
}

async fn unsubscribe(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    rig.send(&numbers(0, 10)).await?;
    consumer.unsubscribe().await?;
    drop(consumer);
    let latest = ConsumerOptions { initial_position: InitialPosition::Latest, ..Default::default() };
    let mut consumer = rig.consumer_with(SubType::Exclusive, |builder| builder.with_options(latest)).await?;
    rig.send(&["new".to_owned()]).await?;
    exactly(&mut consumer, &["new".to_owned()]).await
}

async fn pattern(rig: &Rig, first: &[&str], later: &[&str]) -> Outcome {
    let of = |end: &str| Rig { client: rig.client.clone(), topic: format!("{}-{end}", rig.topic) };
    for end in first {
        of(end).keep().await?;
        of(end).send(&[(*end).to_owned()]).await?;
    }
    let mut consumer = rig
        .client
        .consumer()
        .with_topic_regex(Regex::new(&format!("{}-.*", rig.topic))?)
        .with_subscription("s")
        .with_subscription_type(SubType::Exclusive)
        .with_topic_refresh(Duration::from_secs(1))
        .with_options(ConsumerOptions { initial_position: InitialPosition::Earliest, ..Default::default() })
        .build()
        .await?;
    let mut found = texts(&receive(&mut consumer, first.len(), true).await?);
    found.sort();
    same(found, first.iter().map(|end| (*end).to_owned()).collect(), "payloads")?;
    for end in later {
        of(end).keep().await?;
        of(end).send(&[(*end).to_owned()]).await?;
    }
    exactly(&mut consumer, &later.iter().map(|end| (*end).to_owned()).collect::<Vec<_>>()).await
}

async fn shared_200k(rig: &Rig) -> Outcome {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut takers = Vec::new();
    for _ in 0..2 {
        let mut consumer = rig.consumer(SubType::Shared).await?;
        let sender = sender.clone();
        takers.push(tokio::spawn(async move {
            while let Ok(Some(message)) = consumer.try_next().await {
                if consumer.ack(&message).await.is_err() || sender.send(text(&message)).is_err() {
                    break;
                }
            }
        }));
    }
    drop(sender);
    let mut producer =
        rig.producer(ProducerOptions { batch_size: None, block_queue_if_full: true, ..Default::default() }).await?;
    let sending = tokio::spawn(async move {
        for start in (0..CROWD).step_by(1000) {
            let messages = (start..start + 1000).map(|number| message(number, &format!("{number:07}{}", ".".repeat(93))));
            send_all(&mut producer, messages.collect()).await?;
        }
        Outcome::Ok(producer)
    });
    let mut times = vec![0_u32; CROWD];
    let mut received = 0;
    while received < CROWD {
        let Ok(Some(text)) = tokio::time::timeout(COMES, receiver.recv()).await else { break };
        times[text[..7].parse::<usize>()?] += 1;
        received += 1;
    }
    while let Ok(Some(_)) = tokio::time::timeout(STAYS_AWAY, receiver.recv()).await {
        received += 1;
    }
    takers.iter().for_each(tokio::task::JoinHandle::abort);
    sending.await??;
    same(received, CROWD, "messages received")?;
    same(times.iter().filter(|count| **count != 1).count(), 0, "messages that did not come once")
}

async fn oversized(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    let own = Rig { client: connect(std::env::var("PULSAR_TOKEN").ok()).await?, topic: rig.topic.clone() };
    let mut producer = own.producer(ProducerOptions::default()).await?;
    let sent = async { Outcome::Ok(producer.send_non_blocking(vec![b'x'; BIG]).await?.await?) };
    let answer = tokio::time::timeout(2 * COMES, sent).await;
    same(matches!(answer, Ok(Err(_))), true, &format!("an error of the client: {answer:?}"))?;
    rig.send(&["small".to_owned()]).await?;
    exactly(&mut consumer, &["small".to_owned()]).await
}

async fn exclusive_conflict(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer(SubType::Exclusive).await?;
    refused(rig.consumer(SubType::Exclusive).await.map(drop), "ConsumerBusy")?;
    rig.send(&["kept".to_owned()]).await?;
    exactly(&mut consumer, &["kept".to_owned()]).await
}

async fn reader(rig: &Rig) -> Outcome {
    rig.keep().await?;
    rig.send(&numbers(0, 10)).await?;
    let earliest = ConsumerOptions { initial_position: InitialPosition::Earliest, durable: Some(false), ..Default::default() };
    let mut reader = rig.client.reader().with_topic(&rig.topic).with_options(earliest).into_reader::<Vec<u8>>().await?;
    let mut found = Vec::new();
    while found.len() < 10 {
        match tokio::time::timeout(COMES, reader.try_next()).await {
            Ok(Ok(Some(message))) => found.push(text(&message)),
            other => return Err(Failure(format!("after {} messages: {:?}", found.len(), other.map(|read| read.map(|_| ()))))),
        }
    }
    same(found, numbers(0, 10), "payloads")
}

async fn consumer_stats(rig: &Rig) -> Outcome {
    let mut consumer = rig.consumer_with(SubType::Shared, |builder| builder.with_consumer_name("counted")).await?;
    rig.send(&numbers(0, 10)).await?;
    receive(&mut consumer, 10, false).await?;
    let stats = consumer.get_stats().await?.remove(0);
    same(stats.consumer_name, Some("counted".to_owned()), "consumer's name")?;
    same(stats.unacked_messages, Some(10), "unacknowledged messages")
}
