//! A client by raw frames, so that what is tested is what is on the wire.

use bytes::{Bytes, BytesMut};
use leatworks_broker::{Broker, Limits, MemoryBroker};
use leatworks_pulsar::{
    Server, ServerOptions,
    wire::{
        frame::{self, Entry, FRAME_BYTES_MAX},
        proto::*,
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// Long enough for a machine that is busy with other things; whoever waits so long has found a defect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The ledger of the first topic that a server has.
const LEDGER: u64 = 1 << 12;

/// A server with the broker behind it.
pub(crate) struct Rig {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Rig {
    pub(crate) async fn start(options: ServerOptions) -> Self {
        Self::on(Arc::new(MemoryBroker::new(Limits::default())), options).await
    }

    pub(crate) async fn on(broker: Arc<dyn Broker>, options: ServerOptions) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(any, broker.clone(), options).await.unwrap().with_admin(any).await.unwrap();
        let (address, admin) = (server.address(), server.admin_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Self { broker, address, admin, stop: Some(stop), serving }
    }

    /// Stops the server and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the server ends").unwrap();
    }

    /// A client that has connected.
    pub(crate) async fn client(&self) -> Client {
        let mut client = Client::open(self.address).await;
        client.connect(None).await;
        client
    }

    /// Waits until the broker shows this of a subscription.
    pub(crate) async fn until(
        &self,
        topic: &str,
        subscription: &str,
        fits: impl Fn(&leatworks_broker::SubscriptionStats) -> bool,
    ) {
        let looking = async {
            loop {
                let stats = self.broker.stats().await.unwrap();
                let topic = stats.iter().find(|found| found.spec.name == topic);
                if topic.and_then(|topic| topic.subscriptions.get(subscription)).is_some_and(&fits) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("the subscription comes to be as expected");
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
    requests: u64,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: BytesMut::new(), requests: 0 }
    }

    pub(crate) async fn connect(&mut self, token: Option<&str>) -> Connected {
        self.send_connect(token).await;
        match self.receive().await {
            (Command::Connected(connected), _) => connected,
            other => panic!("not connected: {other:?}"),
        }
    }

    pub(crate) async fn send_connect(&mut self, token: Option<&str>) {
        let connect = Connect {
            client_version: "raw frames".into(),
            protocol_version: Some(19),
            auth_method_name: token.map(|_| "token".into()),
            auth_data: token.map(|token| Bytes::copy_from_slice(token.as_bytes())),
            proxy_to_broker_url: None,
        };
        self.send(Command::Connect(connect)).await;
    }

    pub(crate) fn request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    pub(crate) async fn send(&mut self, command: Command) {
        let mut out = BytesMut::new();
        frame::encode(&mut out, command);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next frame; a ping is answered and passed over.
    pub(crate) async fn receive(&mut self) -> (Command, Option<Entry>) {
        self.next().await.expect("the connection is open")
    }

    /// The next frame, or `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<(Command, Option<Entry>)> {
        let reading = async {
            loop {
                if let Some(frame) = frame::decode(&mut self.buffer, FRAME_BYTES_MAX).unwrap() {
                    let command = frame.command.unwrap();
                    let entry = (!frame.rest.is_empty()).then(|| frame::decode_entry(frame.rest).unwrap());
                    match command {
                        Command::Ping(_) => {
                            let mut out = BytesMut::new();
                            frame::encode(&mut out, Command::Pong(Nothing {}));
                            self.stream.write_all(&out).await.ok()?;
                        }
                        command => return Some((command, entry)),
                    }
                } else if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("something is answered")
    }

    /// Sends a request and gives its answer.
    pub(crate) async fn ask(&mut self, command: Command) -> Command {
        self.send(command).await;
        self.receive().await.0
    }

    /// Sends a request and gives the code of the error that it is answered with.
    pub(crate) async fn ask_in_vain(&mut self, command: Command) -> ServerError {
        match self.ask(command).await {
            Command::Error(error) => ServerError::try_from(error.error).unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) async fn producer(&mut self, topic: &str, name: Option<&str>) -> ProducerSuccess {
        let request_id = self.request();
        let producer = Producer {
            topic: topic.into(),
            producer_id: 1,
            request_id,
            producer_name: name.map(Into::into),
            ..Default::default()
        };
        match self.ask(Command::Producer(producer)).await {
            Command::ProducerSuccess(success) => success,
            other => panic!("no producer: {other:?}"),
        }
    }

    /// Subscribes from the earliest message on.
    pub(crate) async fn subscribe(&mut self, consumer_id: u64, topic: &str, subscription: &str, kind: SubType) {
        let request_id = self.request();
        let answer = self.ask(Command::Subscribe(subscribe(consumer_id, request_id, topic, subscription, kind))).await;
        assert!(matches!(answer, Command::Success(Success { request_id: id }) if id == request_id), "{answer:?}");
    }

    pub(crate) async fn flow(&mut self, consumer_id: u64, permits: u32) {
        self.send(Command::Flow(Flow { consumer_id, permits })).await;
    }

    pub(crate) async fn send_message(&mut self, sequence_id: u64, metadata: MessageMetadata, payload: &[u8]) {
        let mut out = BytesMut::new();
        let send = Send { producer_id: 1, sequence_id, num_messages: metadata.num_messages_in_batch, ..Default::default() };
        frame::encode_with_entry(&mut out, Command::Send(send), &metadata, payload);
        self.stream.write_all(&out).await.unwrap();
    }

    /// Sends and gives the entry that the receipt names.
    pub(crate) async fn publish(&mut self, sequence_id: u64, payload: &str) -> u64 {
        self.send_message(sequence_id, metadata(sequence_id), payload.as_bytes()).await;
        match self.receive().await {
            (Command::SendReceipt(receipt), _) if receipt.sequence_id == sequence_id => receipt.message_id.unwrap().entry,
            other => panic!("no receipt: {other:?}"),
        }
    }

    /// The next message: its delivery, metadata and payload.
    pub(crate) async fn message(&mut self) -> (Deliver, MessageMetadata, String) {
        match self.receive().await {
            (Command::Message(deliver), Some(entry)) => {
                (deliver, entry.metadata, String::from_utf8(entry.payload.to_vec()).unwrap())
            }
            other => panic!("no message: {other:?}"),
        }
    }

    /// The next messages' payloads.
    pub(crate) async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        for _ in 0..count {
            payloads.push(self.message().await.2);
        }
        payloads
    }

    /// Acknowledges and waits until that is safe.
    pub(crate) async fn ack(&mut self, consumer_id: u64, entry: u64, ack_type: i32) -> Option<i32> {
        let request_id = self.request();
        let ack = Ack { consumer_id, ack_type, message_ids: vec![id(entry)], request_id: Some(request_id), ..Default::default() };
        match self.ask(Command::Ack(ack)).await {
            Command::AckResponse(response) if response.request_id == Some(request_id) => response.error,
            other => panic!("not acknowledged: {other:?}"),
        }
    }
}

pub(crate) fn id(entry: u64) -> MessageIdData {
    MessageIdData { ledger: LEDGER, entry, ..Default::default() }
}

pub(crate) fn subscribe(consumer_id: u64, request_id: u64, topic: &str, subscription: &str, kind: SubType) -> Subscribe {
    Subscribe {
        topic: topic.into(),
        subscription: subscription.into(),
        sub_type: kind.into(),
        consumer_id,
        request_id,
        initial_position: Some(1),
        ..Default::default()
    }
}

pub(crate) fn metadata(sequence_id: u64) -> MessageMetadata {
    MessageMetadata { producer_name: "raw".into(), sequence_id, publish_time: 1_000 + sequence_id, ..Default::default() }
}
