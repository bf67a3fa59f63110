//! One connection to one broker: requests find their answers, and what comes for a producer or a consumer finds it.

use super::{
    error::{PulsarError, Shown},
    limits::{ANSWER_TIME_MAX, CONNECT_TIME_MAX, KEEP_ALIVE},
    net,
    options::PulsarOptions,
};
use crate::wire::{
    frame::{self, Entry, FRAME_BYTES_MAX},
    proto::{AuthData, AuthResponse, Command, Connect, Nothing},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Frames that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Requests beyond which those are forgotten that nobody waits for any more.
const GIVEN_UP_MAX: usize = 1_024;

/// What comes for a producer or a consumer.
pub(crate) type Incoming = (Command, Option<Entry>);

/// A connection. Its end closes the channels of everything on it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    out: mpsc::UnboundedSender<Bytes>,
    table: Mutex<Option<Table>>,
    next: AtomicU64,
    ended: watch::Sender<bool>,
    shown: Shown,
    message_bytes_max: usize,
}

#[derive(Default)]
struct Table {
    requests: HashMap<u64, oneshot::Sender<Command>>,
    producers: HashMap<u64, mpsc::UnboundedSender<Incoming>>,
    consumers: HashMap<u64, mpsc::UnboundedSender<Incoming>>,
}

impl Table {
    fn expect(&mut self, number: u64, sender: oneshot::Sender<Command>) {
        if self.requests.len() >= GIVEN_UP_MAX {
            self.requests.retain(|_, waiting| !waiting.is_closed());
        }
        self.requests.insert(number, sender);
    }
}

impl Link {
    /// Connects to a broker, and through it to `behind` if it is a proxy.
    pub(crate) async fn open(options: &Arc<PulsarOptions>, url: &str, behind: Option<&str>) -> Result<Self, PulsarError> {
        let opening = Self::open_now(options, url, behind);
        let late = || PulsarError::Away(format!("`{url}` did not answer within {CONNECT_TIME_MAX:?}"));
        timeout(CONNECT_TIME_MAX, opening).await.map_err(|_| late())?
    }

    async fn open_now(options: &Arc<PulsarOptions>, url: &str, behind: Option<&str>) -> Result<Self, PulsarError> {
        let stream = net::connect(options, url).await?;
        let token = token(options)?;
        let shown = Shown::of(token.as_deref());
        let (mut read, mut write) = tokio::io::split(stream);
        let away = |error: std::io::Error| PulsarError::Away(format!("`{url}`: {error}"));
        let connect = Connect {
            client_version: concat!("leatworks ", env!("CARGO_PKG_VERSION")).to_owned(),
            protocol_version: Some(19),
            auth_method_name: token.is_some().then(|| "token".to_owned()),
            auth_data: token.map(Bytes::from),
            proxy_to_broker_url: behind.and_then(|url| url.split_once("://")).map(|(_, address)| address.to_owned()),
        };
        write.write_all(&encoded(Command::Connect(connect))).await.map_err(away)?;
        let mut buffer = BytesMut::new();
        let greeting = loop {
            if let Some(frame) =
                frame::decode(&mut buffer, FRAME_BYTES_MAX).map_err(|error| PulsarError::Away(error.to_string()))?
            {
                break frame.command;
            }
            if read.read_buf(&mut buffer).await.map_err(away)? == 0 {
                return Err(PulsarError::Away(format!("`{url}` closed the connection instead of greeting")));
            }
        };
        let message_bytes_max = match greeting {
            Some(Command::Connected(connected)) => connected.max_message_size.unwrap_or_default(),
            Some(Command::Error(error)) => return Err(PulsarError::of_server(error.error, &error.message, shown)),
            _ => return Err(PulsarError::Away(format!("`{url}` greets in no way that is known"))),
        };
        let (out, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            out,
            table: Mutex::new(Some(Table::default())),
            next: AtomicU64::new(1),
            ended: watch::Sender::new(false),
            shown,
            message_bytes_max: usize::try_from(message_bytes_max)
                .ok()
                .filter(|bytes| *bytes > 0)
                .unwrap_or(frame::MESSAGE_BYTES_MAX),
        });
        tokio::spawn(write_all(shared.clone(), write, queue));
        tokio::spawn(read_all(shared.clone(), read, buffer, options.clone()));
        Ok(Self { shared })
    }

    /// The largest message that the broker takes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.shared.message_bytes_max
    }

    /// Whether it has ended.
    pub(crate) fn is_ended(&self) -> bool {
        *self.shared.ended.borrow()
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.shared.end();
    }

    /// A number for a request, a producer or a consumer that no other on this connection has.
    pub(crate) fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Relaxed)
    }

    /// Sends a command that is not answered.
    pub(crate) fn send(&self, command: Command) -> Result<(), PulsarError> {
        self.send_bytes(encoded(command))
    }

    /// Sends frames.
    pub(crate) fn send_bytes(&self, bytes: Bytes) -> Result<(), PulsarError> {
        self.shared.out.send(bytes).map_err(|_| ended())
    }

    /// Sends a request and waits for its answer; an answer that is an error is one.
    pub(crate) async fn ask(&self, request: impl FnOnce(u64) -> Command) -> Result<Command, PulsarError> {
        let number = self.number();
        let (sender, answer) = oneshot::channel();
        self.shared.table().as_mut().ok_or_else(ended)?.expect(number, sender);
        self.send(request(number))?;
        match timeout(ANSWER_TIME_MAX, answer).await {
            Ok(Ok(Command::Error(error))) => Err(self.error(error.error, &error.message)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(ended()),
            Err(_) => {
                // Whether it was done is not known, and a later answer would be taken for another's: the connection is of no more use.
                self.end();
                Err(PulsarError::Away(format!("no answer within {ANSWER_TIME_MAX:?}")))
            }
        }
    }

    /// An error of the broker.
    pub(crate) fn error(&self, code: i32, message: &str) -> PulsarError {
        PulsarError::of_server(code, message, self.shared.shown)
    }

    /// Where what comes for a producer goes from now on.
    pub(crate) fn register_producer(&self, number: u64) -> Result<mpsc::UnboundedReceiver<Incoming>, PulsarError> {
        let (sender, incoming) = mpsc::unbounded_channel();
        self.shared.table().as_mut().ok_or_else(ended)?.producers.insert(number, sender);
        Ok(incoming)
    }

    /// Where what comes for a consumer goes from now on.
    pub(crate) fn register_consumer(&self, number: u64) -> Result<mpsc::UnboundedReceiver<Incoming>, PulsarError> {
        let (sender, incoming) = mpsc::unbounded_channel();
        self.shared.table().as_mut().ok_or_else(ended)?.consumers.insert(number, sender);
        Ok(incoming)
    }

    /// Forgets a producer or a consumer.
    pub(crate) fn forget(&self, number: u64) {
        if let Some(table) = self.shared.table().as_mut() {
            table.producers.remove(&number);
            table.consumers.remove(&number);
        }
    }
}

pub(crate) fn token(options: &PulsarOptions) -> Result<Option<String>, PulsarError> {
    let path = || options.token_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    options.token_now().map_err(|error| PulsarError::File { path: path(), why: error.to_string() })
}

fn ended() -> PulsarError {
    PulsarError::Away("the connection has ended".to_owned())
}

fn encoded(command: Command) -> Bytes {
    let mut out = BytesMut::new();
    frame::encode(&mut out, command);
    out.freeze()
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Option<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who waits for something on this connection hears of its end.
    fn end(&self) {
        drop(self.table().take());
        self.ended.send_replace(true);
    }

    fn route(&self, command: Command, entry: Option<Entry>) {
        let mut table = self.table();
        let Some(table) = table.as_mut() else { return };
        let to = match &command {
            Command::SendReceipt(receipt) => table.producers.get(&receipt.producer_id),
            Command::SendError(error) => table.producers.get(&error.producer_id),
            Command::Message(message) => table.consumers.get(&message.consumer_id),
            Command::CloseProducer(close) => return drop(table.producers.remove(&close.producer_id)),
            Command::CloseConsumer(close) => return drop(table.consumers.remove(&close.consumer_id)),
            _ => {
                if let Some(to) = request_of(&command).and_then(|number| table.requests.remove(&number)) {
                    // Who does not wait any more needs no answer.
                    let _ = to.send(command);
                }
                return;
            }
        };
        if let Some(to) = to {
            // Who is gone needs nothing any more.
            let _ = to.send((command, entry));
        }
    }
}

/// Which request a command answers.
fn request_of(command: &Command) -> Option<u64> {
    match command {
        Command::Success(answer) => Some(answer.request_id),
        Command::Error(answer) => Some(answer.request_id),
        Command::ProducerSuccess(answer) => Some(answer.request_id),
        Command::PartitionMetadataResponse(answer) => Some(answer.request_id),
        Command::LookupResponse(answer) => Some(answer.request_id),
        Command::ConsumerStatsResponse(answer) => Some(answer.request_id),
        Command::GetLastMessageIdResponse(answer) => Some(answer.request_id),
        Command::GetTopicsResponse(answer) => Some(answer.request_id),
        Command::AckResponse(answer) => answer.request_id,
        _ => None,
    }
}

async fn write_all(shared: Arc<Shared>, mut write: WriteHalf<net::Stream>, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    let mut ended = shared.ended.subscribe();
    let writing = async {
        let mut out = BytesMut::with_capacity(WRITE_BYTES);
        while let Some(bytes) = queue.recv().await {
            out.extend_from_slice(&bytes);
            while out.len() < WRITE_BYTES {
                let Ok(bytes) = queue.try_recv() else { break };
                out.extend_from_slice(&bytes);
            }
            write.write_all(&out).await?;
            out.clear();
        }
        write.flush().await
    };
    tokio::select! {
        _ = writing => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
    shared.end();
    let _ = timeout(KEEP_ALIVE, write.shutdown()).await;
}

async fn read_all(shared: Arc<Shared>, mut read: ReadHalf<net::Stream>, mut buffer: BytesMut, options: Arc<PulsarOptions>) {
    let mut ended = shared.ended.subscribe();
    let reading = async {
        let mut asked = false;
        loop {
            match frame::decode(&mut buffer, FRAME_BYTES_MAX + (1 << 20)) {
                Ok(Some(frame)) => {
                    asked = false;
                    take(&shared, frame, &options);
                    continue;
                }
                Ok(None) => {}
                Err(error) => break tracing::warn!(%error, "a connection to Pulsar ends"),
            }
            buffer.reserve(64 << 10);
            match timeout(KEEP_ALIVE, read.read_buf(&mut buffer)).await {
                Ok(Ok(1..)) => asked = false,
                Ok(Ok(0)) => break,
                Ok(Err(error)) => break tracing::debug!(%error, "a connection to Pulsar ends"),
                Err(_) if asked => break tracing::warn!("a connection to Pulsar has gone silent"),
                Err(_) => {
                    asked = true;
                    let _ = shared.out.send(encoded(Command::Ping(Nothing {})));
                }
            }
        }
    };
    tokio::select! {
        () = reading => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
    shared.end();
}

fn take(shared: &Shared, frame: frame::Frame, options: &PulsarOptions) {
    let Some(command) = frame.command else { return };
    match command {
        Command::Ping(_) => {
            let _ = shared.out.send(encoded(Command::Pong(Nothing {})));
        }
        Command::Pong(_) => {}
        Command::AuthChallenge(_) => {
            let Ok(Some(token)) = options.token_now() else { return shared.end() };
            let response = AuthData { method: Some("token".to_owned()), data: Some(token.into()) };
            let _ = shared.out.send(encoded(Command::AuthResponse(AuthResponse { response: Some(response) })));
        }
        command if frame.rest.is_empty() => shared.route(command, None),
        command => match frame::decode_entry(frame.rest) {
            Ok(entry) => shared.route(command, Some(entry)),
            // The consumer is told by what is missing: an entry that nobody can read.
            Err(error) => {
                tracing::error!(%error, "an entry cannot be read");
                shared.route(command, None);
            }
        },
    }
}
