//! The batch form between our own processes: several messages in one request over HTTP/2, and an answer for each as soon as there is one.
//!
//! A request is one [`Batch`]; the body of its response is a sequence of [`Answer`]s, each after its length as a varint. The numbers of the fields are
//! part of the protocol and never change.

mod client;
mod server;
#[cfg(test)]
mod tests;

pub(super) use client::{Batches, Given, Unanswered, fitting};
pub(super) use server::handle;

use bytes::Bytes;
use leatworks_broker::Codec;
use prost::Message;

/// Where batches are taken, behind the address of the worker.
pub(super) const PATH: &str = "batch";

/// The header of an answer in the other form that says that batches are taken: its value is [`FORM`].
pub(super) const OFFER: &str = "leat-batch";

/// The form of the batches.
pub(super) const FORM: &str = "1";

/// The content type of both directions.
const CONTENT_TYPE: &str = "application/x-protobuf";

/// The most messages of a batch: as many as a dispatcher takes at once, beyond which the cost of a request is nothing to each.
const MESSAGES_MAX: usize = 256;

/// The most bytes of payloads that a dispatcher puts into one request, unless one message has more: 4 MiB are a few milliseconds on one machine.
const PAYLOADS_BYTES_MAX: usize = 4 << 20;

/// Several messages of one edge.
#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(string, tag = "1")]
    topology: String,
    #[prost(string, tag = "2")]
    edge: String,
    /// How long each message may take, from when it is begun; zero is as long as the worker allows, which is the most in any case.
    #[prost(uint64, tag = "3")]
    timeout_ms: u64,
    #[prost(message, repeated, tag = "4")]
    calls: Vec<Call>,
}

/// One message.
#[derive(Clone, PartialEq, Message)]
struct Call {
    /// 16 bytes, the most significant first.
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    /// The same of its root.
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(string, optional, tag = "4")]
    key: Option<String>,
    #[prost(uint64, tag = "5")]
    created_ms: u64,
    #[prost(string, optional, tag = "6")]
    trace: Option<String>,
    /// 0 is JSON, 1 is MessagePack.
    #[prost(uint32, tag = "7")]
    codec: u32,
    #[prost(bytes = "bytes", tag = "8")]
    payload: Bytes,
    /// The id of the message in whose handling it was made, where messages say it.
    #[prost(bytes = "bytes", optional, tag = "9")]
    parent: Option<Bytes>,
}

/// What came of one message.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    /// Which message of the batch it is, from 0 on.
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(message, repeated, tag = "2")]
    outputs: Vec<Output>,
    /// Instead of outputs.
    #[prost(message, optional, tag = "3")]
    failure: Option<Failure>,
    /// How the outputs are encoded: 0 is JSON, 1 is MessagePack.
    #[prost(uint32, tag = "4")]
    codec: u32,
}

/// One output.
#[derive(Clone, PartialEq, Message)]
struct Output {
    /// The label of its route, if that has one.
    #[prost(string, optional, tag = "1")]
    label: Option<String>,
    #[prost(string, optional, tag = "2")]
    key: Option<String>,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
}

/// Why there are no outputs.
#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(string, tag = "1")]
    text: String,
    /// `error`, `panic`, `timeout`, `permanent` or `undecodable`.
    #[prost(string, tag = "2")]
    cause: String,
    /// Whether another attempt may end better.
    #[prost(bool, tag = "3")]
    retryable: bool,
    /// The wait that is asked for; zero is none.
    #[prost(uint64, tag = "4")]
    retry_after_ms: u64,
}

fn codec_number(codec: Codec) -> u32 {
    match codec {
        Codec::Json => 0,
        Codec::MessagePack => 1,
    }
}

fn codec_of(number: u32) -> Option<Codec> {
    [Codec::Json, Codec::MessagePack].into_iter().find(|codec| codec_number(*codec) == number)
}
