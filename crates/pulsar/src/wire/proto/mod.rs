//! The messages of Pulsar's binary protocol that are needed here, written by hand so that no `protoc` is.
//!
//! Field numbers and types are those of `PulsarApi.proto`; what is not read is left out and skipped, as protobuf foresees. A command is a
//! number and the message under the field of the same number: that rule holds for all commands, so [`Command`] is a `oneof` on the wire's terms.

#![expect(missing_docs, reason = "the names are those of the protocol's own description, and its comments are the documentation")]

mod data;
mod request;

pub use data::*;
pub use request::*;

use prost::{Message, Oneof};

/// Every frame's first part. `kind` is the number of the command, which is also its field.
#[derive(Clone, PartialEq, Message)]
pub struct BaseCommand {
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    #[prost(
        oneof = "Command",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64"
    )]
    pub command: Option<Command>,
}

/// The commands, by the number that they have on the wire.
#[derive(Clone, PartialEq, Oneof)]
pub enum Command {
    #[prost(message, tag = "2")]
    Connect(Connect),
    #[prost(message, tag = "3")]
    Connected(Connected),
    #[prost(message, tag = "4")]
    Subscribe(Subscribe),
    #[prost(message, tag = "5")]
    Producer(Producer),
    #[prost(message, tag = "6")]
    Send(Send),
    #[prost(message, tag = "7")]
    SendReceipt(SendReceipt),
    #[prost(message, tag = "8")]
    SendError(SendError),
    #[prost(message, tag = "9")]
    Message(Deliver),
    #[prost(message, tag = "10")]
    Ack(Ack),
    #[prost(message, tag = "11")]
    Flow(Flow),
    #[prost(message, tag = "12")]
    Unsubscribe(OfConsumer),
    #[prost(message, tag = "13")]
    Success(Success),
    #[prost(message, tag = "14")]
    Error(Error),
    #[prost(message, tag = "15")]
    CloseProducer(CloseProducer),
    #[prost(message, tag = "16")]
    CloseConsumer(OfConsumer),
    #[prost(message, tag = "17")]
    ProducerSuccess(ProducerSuccess),
    #[prost(message, tag = "18")]
    Ping(Nothing),
    #[prost(message, tag = "19")]
    Pong(Nothing),
    #[prost(message, tag = "20")]
    Redeliver(Redeliver),
    #[prost(message, tag = "21")]
    PartitionMetadata(OfTopic),
    #[prost(message, tag = "22")]
    PartitionMetadataResponse(PartitionMetadataResponse),
    #[prost(message, tag = "23")]
    Lookup(Lookup),
    #[prost(message, tag = "24")]
    LookupResponse(LookupResponse),
    #[prost(message, tag = "25")]
    ConsumerStats(ConsumerStats),
    #[prost(message, tag = "26")]
    ConsumerStatsResponse(ConsumerStatsResponse),
    #[prost(message, tag = "28")]
    Seek(Seek),
    #[prost(message, tag = "29")]
    GetLastMessageId(OfConsumer),
    #[prost(message, tag = "30")]
    GetLastMessageIdResponse(GetLastMessageIdResponse),
    #[prost(message, tag = "31")]
    ActiveConsumerChange(ActiveConsumerChange),
    #[prost(message, tag = "32")]
    GetTopics(GetTopics),
    #[prost(message, tag = "33")]
    GetTopicsResponse(GetTopicsResponse),
    #[prost(message, tag = "34")]
    GetSchema(OfRequest),
    #[prost(message, tag = "35")]
    GetSchemaResponse(SchemaResponse),
    #[prost(message, tag = "36")]
    AuthChallenge(AuthChallenge),
    #[prost(message, tag = "37")]
    AuthResponse(AuthResponse),
    #[prost(message, tag = "38")]
    AckResponse(AckResponse),
    #[prost(message, tag = "39")]
    GetOrCreateSchema(GetOrCreateSchema),
    #[prost(message, tag = "40")]
    GetOrCreateSchemaResponse(GetOrCreateSchemaResponse),
    #[prost(message, tag = "50")]
    NewTxn(OfRequest),
    #[prost(message, tag = "51")]
    NewTxnResponse(TxnResponse),
    #[prost(message, tag = "52")]
    AddPartitionToTxn(OfRequest),
    #[prost(message, tag = "53")]
    AddPartitionToTxnResponse(TxnResponse),
    #[prost(message, tag = "54")]
    AddSubscriptionToTxn(OfRequest),
    #[prost(message, tag = "55")]
    AddSubscriptionToTxnResponse(TxnResponse),
    #[prost(message, tag = "56")]
    EndTxn(OfRequest),
    #[prost(message, tag = "57")]
    EndTxnResponse(TxnResponse),
    #[prost(message, tag = "58")]
    EndTxnOnPartition(OfRequest),
    #[prost(message, tag = "59")]
    EndTxnOnPartitionResponse(TxnResponse),
    #[prost(message, tag = "60")]
    EndTxnOnSubscription(OfRequest),
    #[prost(message, tag = "61")]
    EndTxnOnSubscriptionResponse(TxnResponse),
    #[prost(message, tag = "62")]
    TcClientConnect(OfRequest),
    #[prost(message, tag = "63")]
    TcClientConnectResponse(TcClientConnectResponse),
    #[prost(message, tag = "64")]
    WatchTopicList(OfRequest),
}

impl Command {
    /// The number of the command on the wire.
    pub fn kind(&self) -> i32 {
        match self {
            Self::Connect(_) => 2,
            Self::Connected(_) => 3,
            Self::Subscribe(_) => 4,
            Self::Producer(_) => 5,
            Self::Send(_) => 6,
            Self::SendReceipt(_) => 7,
            Self::SendError(_) => 8,
            Self::Message(_) => 9,
            Self::Ack(_) => 10,
            Self::Flow(_) => 11,
            Self::Unsubscribe(_) => 12,
            Self::Success(_) => 13,
            Self::Error(_) => 14,
            Self::CloseProducer(_) => 15,
            Self::CloseConsumer(_) => 16,
            Self::ProducerSuccess(_) => 17,
            Self::Ping(_) => 18,
            Self::Pong(_) => 19,
            Self::Redeliver(_) => 20,
            Self::PartitionMetadata(_) => 21,
            Self::PartitionMetadataResponse(_) => 22,
            Self::Lookup(_) => 23,
            Self::LookupResponse(_) => 24,
            Self::ConsumerStats(_) => 25,
            Self::ConsumerStatsResponse(_) => 26,
            Self::Seek(_) => 28,
            Self::GetLastMessageId(_) => 29,
            Self::GetLastMessageIdResponse(_) => 30,
            Self::ActiveConsumerChange(_) => 31,
            Self::GetTopics(_) => 32,
            Self::GetTopicsResponse(_) => 33,
            Self::GetSchema(_) => 34,
            Self::GetSchemaResponse(_) => 35,
            Self::AuthChallenge(_) => 36,
            Self::AuthResponse(_) => 37,
            Self::AckResponse(_) => 38,
            Self::GetOrCreateSchema(_) => 39,
            Self::GetOrCreateSchemaResponse(_) => 40,
            Self::NewTxn(_) => 50,
            Self::NewTxnResponse(_) => 51,
            Self::AddPartitionToTxn(_) => 52,
            Self::AddPartitionToTxnResponse(_) => 53,
            Self::AddSubscriptionToTxn(_) => 54,
            Self::AddSubscriptionToTxnResponse(_) => 55,
            Self::EndTxn(_) => 56,
            Self::EndTxnResponse(_) => 57,
            Self::EndTxnOnPartition(_) => 58,
            Self::EndTxnOnPartitionResponse(_) => 59,
            Self::EndTxnOnSubscription(_) => 60,
            Self::EndTxnOnSubscriptionResponse(_) => 61,
            Self::TcClientConnect(_) => 62,
            Self::TcClientConnectResponse(_) => 63,
            Self::WatchTopicList(_) => 64,
        }
    }
}
