//! One connection: who it is, what it asks for, and whether it is still there.

use super::{
    Shared, consumer,
    limits::{CONNECTION_BYTES_MAX, CONSUMERS_MAX, LAST_WORDS_TIME_MAX, PRODUCERS_MAX},
    now_ms,
    out::{self, Gone, Outgoing},
    producer::{self, Incoming},
    requests,
    topics::Refusal,
};
use crate::wire::{
    compress::UNPACKED_BYTES_MAX,
    entry,
    frame::{self, CONNECT_BYTES_MAX, FRAME_BYTES_MAX, Frame, FrameError, MESSAGE_BYTES_MAX, PayloadError},
    proto::{self, AckResponse, Command, Connect, Connected, Nothing, ProducerSuccess, SendError, ServerError, Success},
};
use bytes::BytesMut;
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

/// The newest version of the protocol that is spoken here; the older one of both sides counts.
const PROTOCOL_VERSION: i32 = 19;

/// The first room for what is read. It grows to what one read brings, up to a frame.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client has left")]
    Left,
    #[error("the server is stopped")]
    Stopped,
    #[error("the client has not said who it is in time")]
    Silent,
    #[error("the client does not answer any more")]
    HalfOpen,
    #[error("the token has expired")]
    Expired,
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Unknown(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Left
    }
}

/// Serves one client until it leaves, has to leave, or the server stops.
pub(crate) async fn run(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, stopped: watch::Receiver<bool>) {
    // Receipts are small and waited for; without it they would wait for more.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let (read, write) = stream.into_split();
    let (out, waiting) = out::channel();
    let stall = shared.options.keep_alive * 2;
    let writer = tokio::spawn(out::write(waiting, write, stall));
    let mut connection = Connection {
        room: Arc::new(Semaphore::new(CONNECTION_BYTES_MAX)),
        shared,
        out,
        local,
        read,
        buffer: BytesMut::new(),
        producers: HashMap::new(),
        consumers: HashMap::new(),
        tasks: JoinSet::new(),
        stopped,
        writer,
    };
    let Err(end) = connection.serve().await;
    tracing::debug!(%peer, %end, "a connection ends");
    connection.end(end).await;
}

struct Connection {
    shared: Arc<Shared>,
    out: Outgoing,
    local: SocketAddr,
    read: OwnedReadHalf,
    buffer: BytesMut,
    room: Arc<Semaphore>,
    producers: HashMap<u64, producer::Handle>,
    consumers: HashMap<u64, consumer::Handle>,
    tasks: JoinSet<()>,
    stopped: watch::Receiver<bool>,
    writer: JoinHandle<io::Result<()>>,
}

/// Until when a session may last, if its token says so.
type Expiry = Option<Instant>;

impl Connection {
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let connected = timeout(self.shared.options.connect_time_max, self.connect()).await;
        let expiry = connected.map_err(|_| End::Silent)??;
        let mut asked = false;
        loop {
            while let Some(frame) = frame::decode(&mut self.buffer, FRAME_BYTES_MAX)? {
                self.obey(frame).await?;
                if expiry.is_some_and(|expiry| expiry <= Instant::now()) {
                    return Err(End::Expired);
                }
            }
            while self.tasks.try_join_next().is_some() {}
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(READ_BYTES);
            }
            let expired = async {
                match expiry {
                    Some(expiry) => tokio::time::sleep_until(expiry).await,
                    None => std::future::pending().await,
                }
            };
            let stopped = async { drop(self.stopped.wait_for(|stopped| *stopped).await) };
            tokio::select! {
                read = self.read.read_buf(&mut self.buffer) => {
                    if read? == 0 {
                        return Err(End::Left);
                    }
                    confirm_at_once(self.read.as_ref());
                    asked = false;
                }
                () = tokio::time::sleep(self.shared.options.keep_alive) => {
                    if asked {
                        return Err(End::HalfOpen);
                    }
                    asked = true;
                    // Whoever does not read what waits would not read a ping either.
                    if self.out.has_room() {
                        self.out.command(Command::Ping(Nothing {})).await?;
                    }
                }
                () = stopped => return Err(End::Stopped),
                () = expired => return Err(End::Expired),
                written = &mut self.writer => {
                    written.map_err(io::Error::other)??;
                    return Err(End::Left);
                }
            }
        }
    }

    /// Reads the first command, within a small limit, and answers it.
    async fn connect(&mut self) -> Result<Expiry, End> {
        let frame = loop {
            if let Some(frame) = frame::decode(&mut self.buffer, CONNECT_BYTES_MAX)? {
                break frame;
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(End::Left);
            }
        };
        let Some(Command::Connect(connect)) = frame.command else {
            let text = "the first command has to be CONNECT".to_owned();
            self.out.refuse(u64::MAX, ServerError::NotAllowed, text.clone()).await?;
            return Err(End::Refused(text));
        };
        let expiry = match self.authenticate(&connect) {
            Ok(expiry) => expiry,
            Err(text) => {
                self.out.refuse(u64::MAX, ServerError::Authentication, text.clone()).await?;
                return Err(End::Refused(text));
            }
        };
        let connected = Connected {
            server_version: super::VERSION.to_owned(),
            protocol_version: Some(connect.protocol_version.unwrap_or_default().clamp(0, PROTOCOL_VERSION)),
            max_message_size: Some(self.shared.broker.max_message_bytes().min(MESSAGE_BYTES_MAX) as i32),
            feature_flags: None,
        };
        self.out.command(Command::Connected(connected)).await?;
        Ok(expiry)
    }

    fn authenticate(&self, connect: &Connect) -> Result<Expiry, String> {
        let Some(key) = &self.shared.options.token_key else { return Ok(None) };
        match (connect.auth_method_name.as_deref(), &connect.auth_data) {
            (Some("token"), Some(token)) => {
                let left = |expiry: u64| Duration::from_millis(expiry.saturating_mul(1_000).saturating_sub(now_ms()));
                Ok(key.check(token)?.and_then(|expiry| Instant::now().checked_add(left(expiry))))
            }
            (None | Some("" | "none"), _) => Err("a token is needed".to_owned()),
            (Some(method), _) => Err(format!("authentication by `{method}` is not known here: tokens are")),
        }
    }

    /// Does what one frame asks for.
    async fn obey(&mut self, frame: Frame) -> Result<(), End> {
        let Frame { kind, command, rest } = frame;
        let Some(command) = command else { return Err(End::Unknown(format!("command {kind} is not known here"))) };
        match command {
            Command::Send(send) => self.send(send, rest).await?,
            Command::Flow(flow) => self.order(flow.consumer_id, consumer::Order::Flow(flow.permits)).await,
            Command::Ack(ack) => self.ack(ack).await?,
            Command::Redeliver(redeliver) => self.order(redeliver.consumer_id, consumer::Order::Redeliver(redeliver)).await,
            Command::Ping(_) => self.out.command(Command::Pong(Nothing {})).await?,
            Command::Pong(_) => {}
            Command::Lookup(request) => self.out.command(requests::lookup(&self.shared, &request, self.local)).await?,
            Command::PartitionMetadata(request) => self.out.command(requests::partitions(&self.shared, &request)).await?,
            Command::Producer(request) => self.open_producer(request).await?,
            Command::Subscribe(request) => self.open_consumer(request).await?,
            Command::CloseProducer(request) => self.close_producer(request).await?,
            Command::CloseConsumer(request) => {
                let order = consumer::Order::Close(request.request_id);
                if !self.request(request.consumer_id, order).await {
                    // It has ended by itself already.
                    self.out.command(Command::Success(Success { request_id: request.request_id })).await?;
                }
                self.consumers.remove(&request.consumer_id);
            }
            Command::Unsubscribe(request) => {
                let order = consumer::Order::Unsubscribe(request.request_id);
                self.request_or_refuse(request.consumer_id, request.request_id, order).await?;
            }
            Command::Seek(seek) => {
                let (consumer_id, request_id) = (seek.consumer_id, seek.request_id);
                self.request_or_refuse(consumer_id, request_id, consumer::Order::Seek(seek)).await?;
            }
            Command::ConsumerStats(request) => {
                let order = consumer::Order::Stats(request.request_id);
                self.request_or_refuse(request.consumer_id, request.request_id, order).await?;
            }
            other => self.ask(other).await?,
        }
        Ok(())
    }

    /// Answers what concerns neither one producer nor the orders of one consumer.
    async fn ask(&mut self, command: Command) -> Result<(), End> {
        let (request_id, answer): (u64, Result<Command, Refusal>) = match &command {
            Command::GetTopics(request) => (request.request_id, requests::topics_of_namespace(&self.shared, request).await),
            Command::GetLastMessageId(request) => {
                let answer = match self.consumers.get(&request.consumer_id) {
                    Some(consumer) => requests::last_message_id(&self.shared, consumer, *request).await,
                    None => Err(no_consumer(request.consumer_id)),
                };
                (request.request_id, answer)
            }
            Command::GetSchema(request) => (request.request_id, Ok(requests::get_schema(request.request_id))),
            Command::GetOrCreateSchema(request) => (request.request_id, Ok(requests::get_or_create_schema(request))),
            other => match requests::unsupported(other) {
                Some(answer) => (0, Ok(answer)),
                None => return Err(End::Unknown(format!("command {} is none that a client sends now", other.kind()))),
            },
        };
        match answer {
            Ok(answer) => self.out.command(answer).await?,
            Err((error, message)) => self.out.refuse(request_id, error, message).await?,
        }
        Ok(())
    }

    async fn open_producer(&mut self, request: proto::Producer) -> Result<(), End> {
        let (id, request_id) = (request.producer_id, request.request_id);
        self.producers.retain(|_, handle| !handle.work.is_closed());
        if let Some(handle) = self.producers.get(&id) {
            // The same request again: its answer came too late for the client.
            let producer_name = handle.name.clone();
            let success = ProducerSuccess::new(request_id, producer_name, None);
            return Ok(self.out.command(Command::ProducerSuccess(success)).await?);
        }
        if self.producers.len() >= PRODUCERS_MAX {
            let text = format!("a connection has at most {PRODUCERS_MAX} producers");
            return Ok(self.out.refuse(request_id, ServerError::TooManyRequests, text).await?);
        }
        match producer::open(&self.shared, &self.out, &request).await {
            Ok((producer, success)) => {
                let (handle, queue) = producer.queue();
                self.producers.insert(id, handle);
                self.out.command(Command::ProducerSuccess(success)).await?;
                self.tasks.spawn(producer.run(queue));
            }
            Err((error, message)) => self.out.refuse(request_id, error, message).await?,
        }
        Ok(())
    }

    async fn open_consumer(&mut self, request: proto::Subscribe) -> Result<(), End> {
        let (id, request_id) = (request.consumer_id, request.request_id);
        self.consumers.retain(|_, handle| !handle.orders.is_closed());
        if self.consumers.contains_key(&id) {
            // The same request again: its answer came too late for the client.
            return Ok(self.out.command(Command::Success(Success { request_id })).await?);
        }
        if self.consumers.len() >= CONSUMERS_MAX {
            let text = format!("a connection has at most {CONSUMERS_MAX} consumers");
            return Ok(self.out.refuse(request_id, ServerError::TooManyRequests, text).await?);
        }
        match consumer::open(&self.shared, &self.out, &request).await {
            Ok(mut consumer) => {
                let (handle, queue) = consumer.queue();
                self.consumers.insert(id, handle);
                self.out.command(Command::Success(Success { request_id })).await?;
                consumer.greet().await?;
                self.tasks.spawn(consumer.run(queue));
            }
            Err((error, message)) => self.out.refuse(request_id, error, message).await?,
        }
        Ok(())
    }

    async fn send(&mut self, send: proto::Send, rest: bytes::Bytes) -> Result<(), End> {
        let Some(handle) = self.producers.get(&send.producer_id) else {
            let text = format!("there is no producer {} on this connection", send.producer_id);
            let error = SendError {
                producer_id: send.producer_id,
                sequence_id: send.sequence_id,
                error: ServerError::Unknown.into(),
                message: text,
            };
            return Ok(self.out.command(Command::SendError(error)).await?);
        };
        let work = handle.work.clone();
        let entry = frame::decode_entry(rest).map_err(|error| {
            let code = if error == PayloadError::Checksum { ServerError::Checksum } else { ServerError::NotAllowed };
            (code, error.to_string())
        });
        let bytes = entry.as_ref().map_or(0, entry::unpacked_bytes).clamp(1, UNPACKED_BYTES_MAX);
        let room = vec![take(&self.room, bytes).await?, take(&self.shared.incoming, bytes).await?];
        // A producer that has ended has told so: what still comes is sent again by its client.
        let _ = work.send(producer::Work::Send(Incoming { send, entry, room })).await;
        Ok(())
    }

    async fn close_producer(&mut self, request: proto::CloseProducer) -> Result<(), End> {
        let closing = match self.producers.remove(&request.producer_id) {
            Some(handle) => handle.work.send(producer::Work::Close(request.request_id)).await.is_ok(),
            None => false,
        };
        if !closing {
            // It has ended by itself already.
            self.out.command(Command::Success(Success { request_id: request.request_id })).await?;
        }
        Ok(())
    }

    async fn ack(&mut self, ack: proto::Ack) -> Result<(), End> {
        let (consumer_id, request) = (ack.consumer_id, ack.request_id);
        let refusal = match ack.txnid_most_bits.is_some() || ack.txnid_least_bits.is_some() {
            true => (ServerError::TransactionCoordinatorNotFound, "transactions are not supported here".to_owned()),
            false if self.request(consumer_id, consumer::Order::Ack(ack)).await => return Ok(()),
            false => no_consumer(consumer_id),
        };
        if request.is_some() {
            let (error, message) = refusal;
            let answer = AckResponse { consumer_id, error: Some(error.into()), message: Some(message), request_id: request };
            self.out.command(Command::AckResponse(answer)).await?;
        }
        Ok(())
    }

    /// An order that has no answer. One for a consumer that has ended has crossed the news of it.
    async fn order(&mut self, consumer_id: u64, order: consumer::Order) {
        self.request(consumer_id, order).await;
    }

    /// Whether the consumer has got the order.
    async fn request(&mut self, consumer_id: u64, order: consumer::Order) -> bool {
        match self.consumers.get(&consumer_id) {
            Some(consumer) => consumer.orders.send(order).await.is_ok(),
            None => false,
        }
    }

    async fn request_or_refuse(&mut self, consumer_id: u64, request_id: u64, order: consumer::Order) -> Result<(), End> {
        if !self.request(consumer_id, order).await {
            let (error, message) = no_consumer(consumer_id);
            self.out.refuse(request_id, error, message).await?;
        }
        Ok(())
    }

    /// Lets go of everything. What was taken in is published and settled; what was handed out goes back.
    async fn end(mut self, end: End) {
        let last_words = match &end {
            // Nobody listens, or what there is to say has been said.
            End::Left | End::HalfOpen | End::Io(_) | End::Refused(_) => None,
            End::Frame(_) | End::Silent | End::Unknown(_) => Some(ServerError::NotAllowed),
            End::Expired => Some(ServerError::Authentication),
            End::Stopped => Some(ServerError::ServiceNotReady),
        };
        if let Some(error) = last_words {
            let word = self.out.refuse(u64::MAX, error, end.to_string());
            let _ = timeout(LAST_WORDS_TIME_MAX, word).await;
        } else if !matches!(end, End::Refused(_)) {
            self.writer.abort();
        }
        self.producers.clear();
        self.consumers.clear();
        while self.tasks.join_next().await.is_some() {}
        drop(self.out);
        if timeout(LAST_WORDS_TIME_MAX, &mut self.writer).await.is_err() {
            self.writer.abort();
        }
    }
}

/// Tells the client's kernel at once that its bytes have come, for which Linux takes up to 40 ms where nothing else is to be sent. Some clients, the
/// `pulsar` crate among them, leave Nagle's algorithm on, so that each small command waits for this word about the one before: a consumer
/// that asked for a thousand messages at a time got 20,000 a second. The kernel forgets the wish, so it is repeated with each read.
fn confirm_at_once(stream: &TcpStream) {
    // Where it fails, or is not known, clients are only slower.
    #[cfg(target_os = "linux")]
    let _ = stream.set_quickack(true);
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

fn no_consumer(consumer_id: u64) -> Refusal {
    (ServerError::ConsumerNotFound, format!("there is no consumer {consumer_id} on this connection"))
}

/// Waits for room. It is never closed.
async fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, End> {
    room.clone().acquire_many_owned(bytes as u32).await.map_err(|_| End::Left)
}
