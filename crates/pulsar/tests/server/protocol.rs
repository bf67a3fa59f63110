//! Every command by raw frames: what a client gets to hear for it, and what it does to the broker.

use crate::support::{Client, Rig, id, metadata, subscribe};
use bytes::{BufMut, BytesMut};
use leatworks_pulsar::{ServerOptions, wire::proto::*};
use prost::Message as _;

const T: &str = "persistent://public/default/orders";

#[tokio::test]
async fn a_message_goes_from_a_producer_to_a_consumer() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = Client::open(rig.address).await;
    let connected = client.connect(None).await;
    assert_eq!((connected.protocol_version, connected.max_message_size), (Some(19), Some(5 << 20)));
    client.subscribe(7, T, "s", SubType::Exclusive).await;
    client.flow(7, 10).await;
    let success = client.producer(T, None).await;
    // The Java client wants both fields, whatever is in them.
    assert_eq!((success.last_sequence_id, success.schema_version), (Some(-1), Some(bytes::Bytes::new())));
    let properties = vec![KeyValue { key: "a".into(), value: "b".into() }];
    let metadata = MessageMetadata { properties, partition_key: Some("k".into()), event_time: Some(5), ..metadata(0) };
    client.send_message(0, metadata, b"hello").await;
    let mut receipt = None;
    let mut message = None;
    while receipt.is_none() || message.is_none() {
        match client.receive().await {
            (Command::SendReceipt(found), _) => receipt = found.message_id,
            (Command::Message(deliver), Some(entry)) => message = Some((deliver, entry)),
            other => panic!("{other:?}"),
        }
    }
    let (deliver, entry) = message.unwrap();
    assert_eq!((deliver.consumer_id, Some(deliver.message_id), deliver.redelivery_count), (7, receipt, Some(0)));
    assert_eq!(&entry.payload[..], b"hello");
    let got = entry.metadata;
    assert_eq!((got.partition_key.as_deref(), got.event_time, got.publish_time), (Some("k"), Some(5), 1_000));
    assert_eq!(got.properties, [KeyValue { key: "a".into(), value: "b".into() }]);
    assert_eq!(client.ack(7, 0, 0).await, None);
    rig.until("orders", "s", |stats| stats.backlog + stats.in_flight == 0).await;
    rig.stop().await;
}

fn batch(messages: &[(&str, &str)]) -> BytesMut {
    let mut out = BytesMut::new();
    for (key, payload) in messages {
        let single = SingleMessageMetadata {
            partition_key: Some((*key).into()),
            payload_size: payload.len() as i32,
            ..Default::default()
        };
        out.put_u32(single.encoded_len() as u32);
        single.encode(&mut out).unwrap();
        out.put_slice(payload.as_bytes());
    }
    out
}

#[tokio::test]
async fn a_batch_is_taken_apart_in_every_compression() {
    use std::io::Write;
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.subscribe(7, T, "s", SubType::Shared).await;
    client.producer(T, None).await;
    let plain = batch(&[("x", "one"), ("y", "two"), ("x", "three")]);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&plain).unwrap();
    // The Java client only flushes, and never ends the stream.
    let mut flushed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    flushed.write_all(&plain).unwrap();
    flushed.flush().unwrap();
    let packed = [
        (Compression::Zlib, flushed.get_ref().clone()),
        (Compression::None, plain.to_vec()),
        (Compression::Lz4, lz4_flex::block::compress(&plain)),
        (Compression::Zlib, zlib.finish().unwrap()),
        (Compression::Zstd, ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest)),
        (Compression::Snappy, snap::raw::Encoder::new().compress_vec(&plain).unwrap()),
        // As the Rust client writes it.
        (Compression::Snappy, snappy_frames(&plain)),
    ];
    for (sequence_id, (compression, payload)) in packed.into_iter().enumerate() {
        let metadata = MessageMetadata {
            compression: Some(compression.into()),
            uncompressed_size: Some(plain.len() as u32),
            num_messages_in_batch: Some(3),
            ..metadata(sequence_id as u64)
        };
        client.send_message(sequence_id as u64, metadata, &payload).await;
        let (Command::SendReceipt(receipt), _) = client.receive().await else { panic!("{compression:?} is not taken") };
        let first = receipt.message_id.unwrap().entry;
        client.flow(7, 3).await;
        for (index, expected) in [("x", "one"), ("y", "two"), ("x", "three")].into_iter().enumerate() {
            let (deliver, got, payload) = client.message().await;
            assert_eq!((got.partition_key.as_deref(), payload.as_str()), (Some(expected.0), expected.1), "{compression:?}");
            assert_eq!(deliver.message_id.entry, first + index as u64);
        }
    }
    rig.stop().await;
}

fn snappy_frames(plain: &[u8]) -> Vec<u8> {
    let mut frames = snap::write::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut frames, plain).unwrap();
    frames.into_inner().unwrap()
}

#[tokio::test]
async fn a_send_that_cannot_be_taken_is_refused_and_the_next_is_taken() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    let damaged = batch(&[("x", "one")]);
    let cases: [(&str, MessageMetadata, &[u8]); 9] = [
        ("cut short", compressed(Compression::Zlib.into(), 9), b"\x78\x9c\xcb"),
        ("more messages than there are", MessageMetadata { num_messages_in_batch: Some(2), ..metadata(0) }, &damaged),
        ("no messages", MessageMetadata { num_messages_in_batch: Some(0), ..metadata(0) }, &damaged),
        ("not compressed at all", compressed(Compression::Zstd.into(), 9), b"not zstd"),
        ("more than it says", compressed(Compression::Lz4.into(), 2), &lz4_flex::block::compress(b"hello")),
        ("a bomb", compressed(Compression::Lz4.into(), u32::MAX), b"x"),
        ("another compression", compressed(77, 1), b"x"),
        ("encrypted", MessageMetadata { encryption_keys: vec![b"k"[..].into()], ..metadata(0) }, b"x"),
        ("of a transaction", MessageMetadata { txnid_most_bits: Some(1), ..metadata(0) }, b"x"),
    ];
    for (sequence, (what, metadata, payload)) in cases.into_iter().enumerate() {
        client.send_message(sequence as u64, metadata, payload).await;
        match client.receive().await {
            (Command::SendError(error), _) => {
                assert_eq!((error.sequence_id, error.error), (sequence as u64, ServerError::NotAllowed.into()), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let mut out = BytesMut::new();
    let send = Command::Send(Send { producer_id: 1, sequence_id: 20, ..Default::default() });
    leatworks_pulsar::wire::frame::encode_with_entry(&mut out, send, &metadata(20), b"whole");
    let last = out.len() - 1;
    out[last] ^= 1;
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, &out).await.unwrap();
    let (Command::SendError(error), _) = client.receive().await else { panic!("a wrong checksum is not seen") };
    assert_eq!(error.error, i32::from(ServerError::Checksum));
    assert_eq!(client.publish(21, "fine").await, 0);
    rig.stop().await;
}

fn compressed(compression: i32, size: u32) -> MessageMetadata {
    MessageMetadata { compression: Some(compression), uncompressed_size: Some(size), ..metadata(0) }
}

#[tokio::test]
async fn what_is_not_supported_is_refused_with_pulsars_code() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    let producer = |topic: &str| Producer { topic: topic.into(), producer_id: 1, request_id: 1, ..Default::default() };
    let avro = Schema { name: "avro".into(), kind: 4 };
    for (request, code) in [
        (producer("persistent://public/other/x"), ServerError::TopicNotFound),
        (producer("non-persistent://public/default/x"), ServerError::NotAllowed),
        (producer("persistent://public/default/x-partition-1"), ServerError::TopicNotFound),
        (producer("persistent://public/default"), ServerError::InvalidTopicName),
        (Producer { access_mode: Some(2), ..producer(T) }, ServerError::NotAllowed),
        (Producer { encrypted: Some(true), ..producer(T) }, ServerError::NotAllowed),
        (Producer { txn_enabled: Some(true), ..producer(T) }, ServerError::NotAllowed),
        (Producer { schema: Some(avro.clone()), ..producer(T) }, ServerError::IncompatibleSchema),
    ] {
        assert_eq!(client.ask_in_vain(Command::Producer(request.clone())).await, code, "{request:?}");
    }
    let wanted = |kind| subscribe(1, 1, T, "s", kind);
    let sticky = Some(KeySharedMeta { mode: 1 });
    for (request, code) in [
        (Subscribe { key_shared: sticky, ..wanted(SubType::KeyShared) }, ServerError::NotAllowed),
        (Subscribe { sub_type: 9, ..wanted(SubType::Shared) }, ServerError::NotAllowed),
        (Subscribe { subscription: "a b".into(), ..wanted(SubType::Shared) }, ServerError::NotAllowed),
        (Subscribe { subscription: "leat-reader--x".into(), ..wanted(SubType::Shared) }, ServerError::NotAllowed),
        (Subscribe { schema: Some(avro.clone()), ..wanted(SubType::Shared) }, ServerError::IncompatibleSchema),
        (
            Subscribe { topic: "new".into(), force_topic_creation: Some(false), ..wanted(SubType::Shared) },
            ServerError::TopicNotFound,
        ),
    ] {
        assert_eq!(client.ask_in_vain(Command::Subscribe(request.clone())).await, code, "{request:?}");
    }
    for command in [
        Command::Unsubscribe(OfConsumer { consumer_id: 5, request_id: 1 }),
        Command::Seek(Seek { consumer_id: 5, request_id: 1, ..Default::default() }),
        Command::ConsumerStats(ConsumerStats { consumer_id: 5, request_id: 1 }),
        Command::GetLastMessageId(OfConsumer { consumer_id: 5, request_id: 1 }),
    ] {
        assert_eq!(client.ask_in_vain(command).await, ServerError::ConsumerNotFound);
    }
    assert_eq!(client.ask_in_vain(Command::WatchTopicList(OfRequest { request_id: 1 })).await, ServerError::NotAllowed);
    assert_eq!(client.ack(5, 0, 0).await, Some(ServerError::ConsumerNotFound.into()));
    let request = OfRequest { request_id: 3 };
    for (command, kind) in [
        (Command::NewTxn(request), 51),
        (Command::AddPartitionToTxn(request), 53),
        (Command::AddSubscriptionToTxn(request), 55),
        (Command::EndTxn(request), 57),
        (Command::EndTxnOnPartition(request), 59),
        (Command::EndTxnOnSubscription(request), 61),
        (Command::TcClientConnect(request), 63),
    ] {
        let answer = client.ask(command).await;
        assert_eq!(answer.kind(), kind);
        assert!(format!("{answer:?}").contains("TransactionCoordinatorNotFound"), "{answer:?}");
    }
    let schema = GetOrCreateSchema { request_id: 1, topic: T.into(), schema: avro };
    assert!(format!("{:?}", client.ask(Command::GetOrCreateSchema(schema)).await).contains("IncompatibleSchema"));
    let json = GetOrCreateSchema { request_id: 1, topic: T.into(), schema: Schema { name: "j".into(), kind: 2 } };
    let Command::GetOrCreateSchemaResponse(answer) = client.ask(Command::GetOrCreateSchema(json)).await else { panic!() };
    assert_eq!((answer.error, answer.schema_version), (None, Some(bytes::Bytes::new())));
    assert!(
        matches!(client.ask(Command::GetSchema(request)).await, Command::GetSchemaResponse(answer) if answer.error.is_some())
    );
    client.send_message(1, metadata(1), b"x").await;
    assert!(matches!(client.receive().await.0, Command::SendError(_)), "a send without a producer is answered");
    rig.stop().await;
}

#[tokio::test]
async fn lookups_and_lists_tell_what_there_is() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    let of = |topic: &str| OfTopic { topic: topic.into(), request_id: 9 };
    let find = |topic: &str| Lookup { topic: topic.into(), request_id: 9, authoritative: None };
    let Command::LookupResponse(found) = client.ask(Command::Lookup(find(T))).await else { panic!() };
    assert_eq!((found.response, found.broker_url), (Some(1), Some(format!("pulsar://{}", rig.address))));
    let Command::LookupResponse(found) = client.ask(Command::Lookup(find("persistent://a/b/c"))).await else { panic!() };
    assert_eq!((found.response, found.error), (Some(2), Some(ServerError::TopicNotFound.into())));
    let Command::PartitionMetadataResponse(found) = client.ask(Command::PartitionMetadata(of(T))).await else { panic!() };
    assert_eq!((found.partitions, found.response), (Some(0), Some(0)));
    let Command::PartitionMetadataResponse(found) = client.ask(Command::PartitionMetadata(of("a://b"))).await else { panic!() };
    assert_eq!((found.response, found.error), (Some(1), Some(ServerError::InvalidTopicName.into())));

    client.subscribe(1, T, "s", SubType::Shared).await;
    client.subscribe(2, "persistent://public/default/other", "s", SubType::Shared).await;
    let all = GetTopics { request_id: 1, namespace: "public/default".into(), ..Default::default() };
    let other = "persistent://public/default/other".to_owned();
    for (request, topics, filtered) in [
        (all.clone(), vec![T.to_owned(), other.clone()], false),
        (GetTopics { namespace: "public/x".into(), ..all.clone() }, vec![], false),
        (GetTopics { mode: Some(1), ..all.clone() }, vec![], false),
        (GetTopics { mode: Some(2), ..all.clone() }, vec![T.to_owned(), other.clone()], false),
        (GetTopics { pattern: Some("persistent://public/default/oth.*".into()), ..all.clone() }, vec![other.clone()], true),
        (GetTopics { pattern: Some("public/default/oth".into()), ..all.clone() }, vec![], true),
        // What cannot be read here the client filters itself.
        (GetTopics { pattern: Some("(?<!x)y".into()), ..all.clone() }, vec![T.to_owned(), other.clone()], false),
        (GetTopics { pattern: Some("x{1000}{1000}".into()), ..all.clone() }, vec![T.to_owned(), other.clone()], false),
    ] {
        let Command::GetTopicsResponse(found) = client.ask(Command::GetTopics(request.clone())).await else { panic!() };
        assert_eq!((found.topics, found.filtered, found.changed), (topics, Some(filtered), Some(true)), "{request:?}");
    }
    let Command::GetTopicsResponse(found) = client.ask(Command::GetTopics(all.clone())).await else { panic!() };
    let Command::GetTopicsResponse(again) = client.ask(Command::GetTopics(GetTopics { hash: found.hash, ..all })).await else {
        panic!()
    };
    assert_eq!((again.topics.len(), again.changed), (0, Some(false)));
    assert!(matches!(client.ask(Command::Ping(Nothing {})).await, Command::Pong(_)));
    rig.stop().await;
}

#[tokio::test]
async fn messages_come_again_until_they_are_acknowledged() {
    for kind in [SubType::Exclusive, SubType::Shared, SubType::Failover, SubType::KeyShared] {
        let rig = Rig::start(ServerOptions::default()).await;
        let mut client = rig.client().await;
        client.producer(T, None).await;
        client.subscribe(1, T, "s", kind).await;
        if kind == SubType::Failover {
            let Command::ActiveConsumerChange(change) = client.receive().await.0 else { panic!("nobody is active") };
            assert_eq!((change.consumer_id, change.is_active), (1, Some(true)));
        }
        for sequence in 0..4 {
            client.publish(sequence, &sequence.to_string()).await;
        }
        client.flow(1, 4).await;
        assert_eq!(client.payloads(4).await, ["0", "1", "2", "3"], "{kind:?}");
        assert_eq!(client.ack(1, 0, 0).await, None);
        client.flow(1, 10).await;
        client.send(Command::Redeliver(Redeliver { consumer_id: 1, message_ids: vec![id(2)], consumer_epoch: None })).await;
        let again = if matches!(kind, SubType::Shared | SubType::KeyShared) { vec![2] } else { vec![1, 2, 3] };
        for expected in again {
            let (deliver, _, payload) = client.message().await;
            assert_eq!((payload, deliver.redelivery_count), (format!("{expected}"), Some(1)), "{kind:?}");
        }
        client.send(Command::Redeliver(Redeliver { consumer_id: 1, message_ids: vec![], consumer_epoch: Some(3) })).await;
        for expected in ["1", "2", "3"] {
            let (deliver, _, payload) = client.message().await;
            assert_eq!((payload.as_str(), deliver.consumer_epoch), (expected, Some(3)), "{kind:?}");
        }
        let cumulative = client.ack(1, 2, 1).await;
        assert_eq!(cumulative.is_none(), matches!(kind, SubType::Exclusive | SubType::Failover), "{kind:?}");
        for entry in [1, 2, 3] {
            client.ack(1, entry, 0).await;
        }
        rig.until("orders", "s", |stats| stats.backlog + stats.in_flight == 0).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_part_of_an_entry_is_not_all_of_it() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    client.subscribe(1, T, "s", SubType::Shared).await;
    client.publish(0, "a").await;
    client.flow(1, 1).await;
    client.message().await;
    let ack = |ack_set: Vec<i64>| Ack {
        consumer_id: 1,
        message_ids: vec![MessageIdData { ack_set, ..id(0) }],
        request_id: Some(1),
        ..Default::default()
    };
    assert!(matches!(client.ask(Command::Ack(ack(vec![1]))).await, Command::AckResponse(answer) if answer.error.is_none()));
    rig.until("orders", "s", |stats| stats.in_flight == 1).await;
    assert!(matches!(client.ask(Command::Ack(ack(vec![0]))).await, Command::AckResponse(answer) if answer.error.is_none()));
    rig.until("orders", "s", |stats| stats.in_flight == 0).await;
    rig.stop().await;
}

#[tokio::test]
async fn acknowledgements_that_are_refused_harm_no_others() {
    let rig = Rig::start(ServerOptions::default()).await;
    let mut client = rig.client().await;
    client.producer(T, None).await;
    client.subscribe(1, T, "s", SubType::Shared).await;
    client.publish(0, "a").await;
    client.flow(1, 1).await;
    client.message().await;
    let ids = vec![id(77), id(0), id(u64::MAX), MessageIdData { ledger: 9, ..id(0) }];
    client.send(Command::Ack(Ack { consumer_id: 1, message_ids: ids, ..Default::default() })).await;
    rig.until("orders", "s", |stats| stats.backlog + stats.in_flight == 0).await;
    assert!(client.ack(1, 99, 0).await.is_some(), "a message that does not exist is told to whoever asks");
    rig.stop().await;
}
