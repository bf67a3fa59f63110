//! Random and mutated bytes through everything that reads them before anybody is known: nothing panics, and nothing takes memory that its
//! length does not justify.
//!
//! `LEAT_FRAMES` sets how many frames are tried; continuous integration sets ten million.

use crate::support::metadata;
use bytes::{BufMut, Bytes, BytesMut};
use leatworks_pulsar::wire::{
    entry,
    frame::{self, CONNECT_BYTES_MAX, FRAME_BYTES_MAX},
    proto::*,
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRng, TestRunner},
};
use prost::Message as _;

/// How many frames are tried without [`LEAT_FRAMES`](self): a second or two.
const FRAMES: u64 = 200_000;

/// Whole frames of many kinds, to be mutated.
fn samples() -> Vec<BytesMut> {
    let mut samples = Vec::new();
    let mut add = |command: Command| {
        let mut out = BytesMut::new();
        frame::encode(&mut out, command);
        samples.push(out);
    };
    let ids = vec![MessageIdData { ack_set: vec![-1, 5], batch_index: Some(3), ..crate::support::id(9) }; 3];
    let token = Some(Bytes::from_static(b"a.b.c"));
    add(Command::Connect(Connect {
        client_version: "c".into(),
        auth_data: token,
        protocol_version: Some(19),
        auth_method_name: Some("token".into()),
        proxy_to_broker_url: None,
    }));
    add(Command::Subscribe(crate::support::subscribe(1, 2, "persistent://public/default/t", "s", SubType::KeyShared)));
    add(Command::Producer(Producer { topic: "t".into(), producer_id: 1, epoch: Some(3), ..Default::default() }));
    add(Command::Ack(Ack { consumer_id: 1, message_ids: ids.clone(), request_id: Some(4), ..Default::default() }));
    add(Command::Redeliver(Redeliver { consumer_id: 1, message_ids: ids, consumer_epoch: Some(1) }));
    add(Command::Flow(Flow { consumer_id: 1, permits: 1_000 }));
    add(Command::Ping(Nothing {}));
    add(Command::GetTopics(GetTopics {
        request_id: 1,
        namespace: "public/default".into(),
        pattern: Some("a.*".into()),
        ..Default::default()
    }));
    let plain = batch();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut zlib, &plain).unwrap();
    for (compression, payload) in [
        (Compression::None, plain.to_vec()),
        (Compression::Lz4, lz4_flex::block::compress(&plain)),
        (Compression::Zlib, zlib.finish().unwrap()),
        (Compression::Zstd, ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest)),
        (Compression::Snappy, snap::raw::Encoder::new().compress_vec(&plain).unwrap()),
    ] {
        let metadata = MessageMetadata {
            compression: Some(compression.into()),
            uncompressed_size: Some(plain.len() as u32),
            num_messages_in_batch: Some(2),
            properties: vec![KeyValue { key: "a".into(), value: "b".into() }],
            ..metadata(1)
        };
        let mut out = BytesMut::new();
        frame::encode_with_entry(&mut out, Command::Send(Send { producer_id: 1, ..Default::default() }), &metadata, &payload);
        samples.push(out);
    }
    samples
}

fn batch() -> BytesMut {
    let mut out = BytesMut::new();
    for payload in ["one", "two two two two two"] {
        let single = SingleMessageMetadata { payload_size: payload.len() as i32, ..Default::default() };
        out.put_u32(single.encoded_len() as u32);
        single.encode(&mut out).unwrap();
        out.put_slice(payload.as_bytes());
    }
    out
}

/// Changes some bytes, cuts, or doubles a part.
fn mutate(bytes: &mut Vec<u8>, rng: &mut TestRng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            4 => drop(bytes.remove(at)),
            _ => {
                let part = bytes[at..].to_vec();
                bytes.extend_from_slice(&part[..part.len().min(64)]);
            }
        }
    }
}

/// Makes the lengths and the checksum right again, so that what is inside is read too.
fn repair(bytes: &mut [u8]) {
    if let Some(total) = bytes.len().checked_sub(4).filter(|total| *total >= 4) {
        bytes[..4].copy_from_slice(&(total as u32).to_be_bytes());
        let size = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        let mark = 8usize.saturating_add(size);
        if bytes.get(mark..mark.saturating_add(2)) == Some(&[0x0e, 0x01]) && bytes.len() >= mark + 6 {
            let sum = crc32c::crc32c(&bytes[mark + 6..]);
            bytes[mark + 2..mark + 6].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Reads all that can be read of it; gives how deep it came.
fn read(bytes: &[u8], max: usize) -> usize {
    let mut buffer = BytesMut::from(bytes);
    let mut depth = 0;
    while let Ok(Some(frame)) = frame::decode(&mut buffer, max) {
        depth = depth.max(1);
        if let Some(command) = frame.command {
            depth = depth.max(2);
            // What was read can be written again.
            frame::encode(&mut BytesMut::new(), command);
        }
        let Ok(entry) = frame::decode_entry(frame.rest) else { continue };
        depth = depth.max(3);
        if let Ok((_, messages)) = entry::split(entry) {
            depth = depth.max(4);
            assert!(!messages.is_empty());
        }
    }
    assert!(buffer.capacity() <= bytes.len(), "what is only announced takes no memory");
    depth
}

#[test]
fn no_bytes_do_harm() {
    let count = match std::env::var("LEAT_FRAMES") {
        Ok(count) => count.parse().expect("LEAT_FRAMES is a number"),
        Err(_) => FRAMES,
    };
    let seed = 20_261_125;
    let config = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let rng = runner.rng();
    let samples = samples();
    assert!(samples.iter().all(|sample| read(sample, FRAME_BYTES_MAX) >= 2), "the samples are whole");
    let mut depths = [0u64; 5];
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.clear();
        if number % 8 == 0 {
            bytes.resize(rng.random_range(0..64), 0);
            rng.fill_bytes(&mut bytes);
        } else {
            bytes.extend_from_slice(&samples[rng.random_range(0..samples.len())]);
            mutate(&mut bytes, rng);
        }
        if number % 2 == 0 {
            repair(&mut bytes);
        }
        let max = if number % 16 == 0 { CONNECT_BYTES_MAX } else { FRAME_BYTES_MAX };
        depths[read(&bytes, max)] += 1;
    }
    println!("{count} frames with seed {seed}: refused, framed, read, with an entry, with messages: {depths:?}");
    assert!(depths.iter().all(|depth| *depth > count / 1_000), "all parts are reached: {depths:?}");
}
