//! Clients that do harm, by intent or not: what they can make the server hold, and for how long.

use crate::support::{Client, PATIENCE, Rig, id, metadata};
use leatworks_broker::{
    Account, BoxFuture, Broker, Consumer, Limits, MemoryBroker, Message, MessageId, Outcome, Position, Publish, Result, Start,
    Step, TopicSpec, TopicStats,
};
use leatworks_pulsar::{
    ServerOptions,
    wire::{
        frame::{self, FRAME_BYTES_MAX},
        proto::*,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};

const T: &str = "persistent://public/default/orders";

fn impatient() -> ServerOptions {
    ServerOptions { keep_alive: Duration::from_millis(200), ..ServerOptions::default() }
}

/// The last words of the server, until it closes the connection.
async fn last_error(client: &mut Client) -> Option<ServerError> {
    let mut last = None;
    while let Some((command, _)) = client.next().await {
        match command {
            Command::Error(error) => last = ServerError::try_from(error.error).ok(),
            other => panic!("{other:?}"),
        }
    }
    last
}

#[tokio::test]
async fn before_it_says_who_it_is_a_client_can_do_little() {
    let rig = Rig::start(ServerOptions { connect_time_max: Duration::from_millis(300), ..ServerOptions::default() }).await;
    let large = (16u32 << 10) + 1;
    for (what, bytes) in [
        ("a large frame is refused by its length", large.to_be_bytes().to_vec()),
        ("nothing is not waited for", Vec::new()),
        ("half a frame is not waited for", vec![0, 0, 1, 0, 0]),
        ("a web browser", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a frame without a command", vec![0, 0, 0, 4, 0, 0, 0, 0]),
        ("a frame of no bytes", vec![0, 0, 0, 0]),
        ("a command larger than its frame", vec![0, 0, 0, 4, 0, 0, 0, 9]),
    ] {
        let mut client = Client::open(rig.address).await;
        client.stream.write_all(&bytes).await.unwrap();
        assert!(last_error(&mut client).await.is_some(), "{what}");
    }
    let mut client = Client::open(rig.address).await;
    client.send(Command::Ping(Nothing {})).await;
    assert_eq!(last_error(&mut client).await, Some(ServerError::NotAllowed), "the first command is CONNECT");
    rig.stop().await;
}

#[tokio::test]
async fn what_no_client_sends_ends_the_connection() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut too_large = rig.client().await;
    too_large.stream.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await.unwrap();
    assert!(last_error(&mut too_large).await.is_some());
    // BaseCommand { kind: 99 }.
    for bytes in [&[0, 0, 0, 6, 0, 0, 0, 2, 8, 99][..], &[0, 0, 0, 5, 0, 0, 0, 1, 0xff]] {
        let mut unknown = rig.client().await;
        unknown.stream.write_all(bytes).await.unwrap();
        assert_eq!(last_error(&mut unknown).await, Some(ServerError::NotAllowed));
    }
    let mut wrong_way = rig.client().await;
    wrong_way.send(Command::Success(Success { request_id: 1 })).await;
    assert_eq!(last_error(&mut wrong_way).await, Some(ServerError::NotAllowed));
    rig.stop().await;
}

#[tokio::test]
async fn there_are_no_more_connections_than_may_be() {
    let rig = Rig::start(ServerOptions { connections_max: 2, ..ServerOptions::default() }).await;
    let first = rig.client().await;
    let _second = rig.client().await;
    let mut third = Client::open(rig.address).await;
    assert!(third.next().await.is_none());
    drop(first);
    let connecting = async {
        loop {
            // Until the server has seen that the first is gone.
            let mut client = Client::open(rig.address).await;
            client.send_connect(None).await;
            if client.next().await.is_some() {
                return;
            }
        }
    };
    timeout(PATIENCE, connecting).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_holds_nothing_for_long() {
    let rig = Rig::start(impatient()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    let mut lost = rig.client().await;
    lost.subscribe(1, T, "s", SubType::Exclusive).await;
    client.publish(0, "x").await;
    lost.flow(1, 1).await;
    assert_eq!(lost.payloads(1).await, ["x"]);
    rig.until("orders", "s", |stats| stats.in_flight == 1).await;
    // Nobody answers the ping on that connection any more, and it is not closed.
    let busy = tokio::spawn(async move {
        loop {
            client.next().await.unwrap();
        }
    });
    rig.until("orders", "s", |stats| (stats.consumers, stats.backlog) == (0, 1)).await;
    assert!(!busy.is_finished(), "whoever answers stays");
    busy.abort();
    drop(lost);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_little_and_stops_nobody() {
    const MESSAGE_BYTES: usize = 100 << 10;
    const MESSAGES: u64 = 600;
    let rig = Rig::start(impatient()).await;
    let mut client = rig.client().await;
    client.subscribe(2, T, "other", SubType::Shared).await;
    client.producer(T, None).await;
    let mut slow = rig.client().await;
    slow.subscribe(1, T, "s", SubType::Shared).await;
    slow.flow(1, u32::MAX).await;
    client.flow(2, u32::MAX).await;
    let payload = vec![b'x'; MESSAGE_BYTES];
    let mut got = 0;
    for sequence in 0..MESSAGES {
        client.send_message(sequence, metadata(sequence), &payload).await;
        loop {
            match client.receive().await.0 {
                Command::SendReceipt(_) => break,
                Command::Message(_) => got += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    while got < MESSAGES {
        assert!(matches!(client.receive().await.0, Command::Message(_)), "the other client goes on");
        got += 1;
    }
    let held = rig.broker.stats().await.unwrap()[0].subscriptions["s"].in_flight;
    // What waits to be written, one batch, and what the sockets take.
    assert!(held < MESSAGES / 2, "{held} of {MESSAGES} messages are held for a client that does not read");
    rig.until("orders", "s", |stats| (stats.consumers, stats.in_flight) == (0, 0)).await;
    drop(slow);
    rig.stop().await;
}

/// The memory broker, whose publishes wait until somebody opens the gate.
struct Gated {
    inner: MemoryBroker,
    gate: Semaphore,
}

impl Broker for Gated {
    fn durability(&self) -> &str {
        self.inner.durability()
    }
    fn create_topic(&self, spec: TopicSpec) -> BoxFuture<'_, Result<()>> {
        self.inner.create_topic(spec)
    }
    fn delete_topic(&self, topic: &str) -> BoxFuture<'_, Result<()>> {
        self.inner.delete_topic(topic)
    }
    fn create_subscription(&self, topic: &str, subscription: &str, start: Start) -> BoxFuture<'_, Result<()>> {
        self.inner.create_subscription(topic, subscription, start)
    }
    fn unsubscribe(&self, topic: &str, subscription: &str) -> BoxFuture<'_, Result<()>> {
        self.inner.unsubscribe(topic, subscription)
    }
    fn subscribe(&self, subscribe: leatworks_broker::Subscribe) -> BoxFuture<'_, Result<Box<dyn Consumer>>> {
        self.inner.subscribe(subscribe)
    }
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Result<Vec<Position>>> {
        Box::pin(async move {
            let _open = self.gate.acquire().await;
            self.inner.publish(batch).await
        })
    }
    fn commit(&self, step: Step) -> BoxFuture<'_, Result<()>> {
        self.inner.commit(step)
    }
    fn nack(&self, topic: &str, subscription: &str, position: Position, delay: Duration) -> BoxFuture<'_, Result<()>> {
        self.inner.nack(topic, subscription, position, delay)
    }
    fn seek(&self, topic: &str, subscription: &str, to: Start) -> BoxFuture<'_, Result<()>> {
        self.inner.seek(topic, subscription, to)
    }
    fn peek(
        &self,
        topic: &str,
        subscription: &str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Position, Message)>>> {
        self.inner.peek(topic, subscription, from, limit)
    }
    fn last_sequence(&self, topic: &str, producer: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.last_sequence(topic, producer)
    }
    fn state(&self, key: &str) -> BoxFuture<'_, Result<Option<bytes::Bytes>>> {
        self.inner.state(key)
    }
    fn stats(&self) -> BoxFuture<'_, Result<Vec<TopicStats>>> {
        self.inner.stats()
    }
    fn account(&self, topology: &str) -> BoxFuture<'_, Result<Account>> {
        self.inner.account(topology)
    }
    fn root_outcome(&self, root: MessageId) -> BoxFuture<'_, Result<Outcome>> {
        self.inner.root_outcome(root)
    }
    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes()
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}

fn gated() -> Arc<Gated> {
    Arc::new(Gated { inner: MemoryBroker::new(Limits::default()), gate: Semaphore::new(0) })
}

#[tokio::test]
async fn a_flood_of_sends_stops_at_the_limit_and_goes_on_when_there_is_room() {
    const MESSAGES: u64 = 1_200;
    const MESSAGE_BYTES: usize = 100 << 10;
    let broker = gated();
    let rig = Rig::on(broker.clone(), ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    let mut frames = bytes::BytesMut::new();
    for sequence_id in 0..MESSAGES {
        let send = Send { producer_id: 1, sequence_id, ..Default::default() };
        frame::encode_with_entry(&mut frames, Command::Send(send), &metadata(sequence_id), &vec![b'x'; MESSAGE_BYTES]);
    }
    let mut written = 0;
    // A second without room is long after the limit was reached.
    while let Ok(bytes) = timeout(Duration::from_secs(1), client.stream.write(&frames[written..])).await {
        written += bytes.unwrap();
        assert!(written < 64 << 20, "{written} bytes are taken of a client whose publishes do not get on");
    }
    // Others are served meanwhile.
    let mut other = rig.client().await;
    other.subscribe(1, T, "s", SubType::Shared).await;
    broker.gate.add_permits(1_000_000);
    let rest = frames.split_off(written);
    let (mut read, mut write) = tokio::io::split(client.stream);
    let writing = tokio::spawn(async move { write.write_all(&rest).await.map(|()| write) });
    let (mut receipts, mut buffer) = (0, bytes::BytesMut::new());
    while receipts < MESSAGES {
        timeout(PATIENCE, tokio::io::AsyncReadExt::read_buf(&mut read, &mut buffer)).await.unwrap().unwrap();
        while let Some(frame) = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap() {
            if let Some(Command::SendReceipt(receipt)) = frame.command {
                assert_eq!(receipt.sequence_id, receipts);
                receipts += 1;
            }
        }
    }
    drop(writing.await.unwrap().unwrap());
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_is_stopped_finishes_what_it_has_taken() {
    let broker = gated();
    let rig = Rig::on(broker.clone(), ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    for sequence in 0..3 {
        client.send_message(sequence, metadata(sequence), b"x").await;
    }
    // The answer to the ping comes after all that was sent before has been read.
    assert!(matches!(client.ask(Command::Ping(Nothing {})).await, Command::Pong(_)));
    let stopping = tokio::spawn(rig.stop());
    let (command, _) = client.receive().await;
    assert!(matches!(command, Command::Error(_)), "{command:?}");
    broker.gate.add_permits(1_000);
    for sequence in 0..3 {
        let (command, _) = client.receive().await;
        assert!(matches!(&command, Command::SendReceipt(receipt) if receipt.sequence_id == sequence), "{command:?}");
    }
    assert!(client.next().await.is_none());
    stopping.await.unwrap();
}

#[tokio::test]
async fn orders_for_what_is_not_there_harm_nothing() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.flow(77, 5).await;
    client.send(Command::Ack(Ack { consumer_id: 77, message_ids: vec![id(1)], ..Default::default() })).await;
    client.send(Command::Redeliver(Redeliver { consumer_id: 77, message_ids: vec![], consumer_epoch: None })).await;
    client.send(Command::Pong(Nothing {})).await;
    for command in [
        Command::CloseProducer(CloseProducer { producer_id: 9, request_id: 6 }),
        Command::CloseConsumer(OfConsumer { consumer_id: 9, request_id: 6 }),
    ] {
        assert!(matches!(client.ask(command).await, Command::Success(Success { request_id: 6 })));
    }
    rig.stop().await;
}
