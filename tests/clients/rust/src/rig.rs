//! A client, a topic of its own, and short words for what every scenario does.

use futures::TryStreamExt;
use pulsar::{
    Authentication, Consumer, ConsumerOptions, OperationRetryOptions, Producer, ProducerOptions, Pulsar, SubType, TokioExecutor,
    consumer::{InitialPosition, Message},
    message::proto::MessageIdData,
    producer,
};
use std::{fmt::Debug, time::Duration};

/// How long a message that must come may take.
pub const COMES: Duration = Duration::from_secs(20);

/// How long a message that must not come is waited for.
pub const STAYS_AWAY: Duration = Duration::from_millis(500);

/// Why a scenario fails.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error}: {error:?}"))
    }
}

/// What every step of a scenario gives.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The consumers of this program.
pub type Bytes = Consumer<Vec<u8>, TokioExecutor>;

/// Fails unless both are equal.
pub fn same<T: PartialEq + Debug>(found: T, expected: T, what: &str) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let short = |value: &T| format!("{value:?}").chars().take(300).collect::<String>();
    Err(Failure(format!("{what}: {} instead of {}", short(&found), short(&expected))))
}

/// Fails unless the action was refused with an error that names the server's code.
pub fn refused<T>(result: Result<T, pulsar::Error>, code: &str) -> Outcome {
    match result {
        Ok(_) => Err(Failure(format!("not refused; {code} expected"))),
        Err(error) if format!("{error:?}").contains(code) => Ok(()),
        Err(error) => Err(Failure(format!("refused with {error:?} instead of {code}"))),
    }
}

/// The numbers from start to end, as texts.
pub fn numbers(start: usize, end: usize) -> Vec<String> {
    (start..end).map(|number| number.to_string()).collect()
}

/// A client with a topic of its own.
pub struct Rig {
    pub client: Pulsar<TokioExecutor>,
    pub topic: String,
}

/// Connects to the server under test.
pub async fn connect(token: Option<String>) -> Result<Pulsar<TokioExecutor>, pulsar::Error> {
    let url = std::env::var("PULSAR_URL").map_err(|error| pulsar::Error::Custom(format!("PULSAR_URL: {error}")))?;
    // By default a refused consumer is asked for without end, as the other one may leave.
    let impatient = OperationRetryOptions { max_retries: Some(2), operation_timeout: COMES, ..Default::default() };
    let mut builder = Pulsar::builder(url, TokioExecutor).with_operation_retry_options(impatient);
    if let Some(token) = token {
        builder = builder.with_auth(Authentication { name: "token".to_owned(), data: token.into_bytes() });
    }
    builder.build().await
}

impl Rig {
    /// Connects, and takes a topic.
    pub async fn new(token: Option<String>, topic: String) -> Outcome<Self> {
        Ok(Self { client: connect(token).await?, topic })
    }

    /// A consumer of that kind from the first message on.
    pub async fn consumer(&self, kind: SubType) -> Result<Bytes, pulsar::Error> {
        self.consumer_with(kind, |builder| builder).await
    }

    /// The same, with more options.
    pub async fn consumer_with(
        &self,
        kind: SubType,
        change: impl FnOnce(pulsar::ConsumerBuilder<TokioExecutor>) -> pulsar::ConsumerBuilder<TokioExecutor>,
    ) -> Result<Bytes, pulsar::Error> {
        let builder = self
            .client
            .consumer()
            .with_topic(&self.topic)
            .with_subscription("s")
            .with_subscription_type(kind)
            .with_options(ConsumerOptions { initial_position: InitialPosition::Earliest, ..Default::default() });
        change(builder).build().await
    }

    /// From now on a subscription that acknowledges nothing keeps the topic's messages, so that others can go back to them.
    pub async fn keep(&self) -> Outcome {
        let mut keeper = self.consumer_with(SubType::Exclusive, |builder| builder.with_subscription("keeper")).await?;
        Ok(keeper.close().await?)
    }

    /// A producer of the rig's topic.
    pub async fn producer(&self, options: ProducerOptions) -> Outcome<Producer<TokioExecutor>> {
        Ok(self.client.producer().with_topic(&self.topic).with_options(options).build().await?)
    }

    /// Sends each text in a message of its own, and gives their identifiers.
    pub async fn send(&self, texts: &[String]) -> Outcome<Vec<MessageIdData>> {
        let mut producer = self.producer(ProducerOptions::default()).await?;
        let mut ids = Vec::new();
        for text in texts {
            let receipt = producer.send_non_blocking(text.as_str()).await?.await?;
            ids.extend(receipt.message_id);
        }
        producer.close().await?;
        Ok(ids)
    }
}

/// A message with a key and a property that follow from its number.
pub fn message(number: usize, payload: &str) -> producer::Message {
    producer::Message {
        payload: payload.as_bytes().to_vec(),
        partition_key: Some(format!("k{}", number % 3)),
        properties: [("n".to_owned(), number.to_string()), ("word".to_owned(), "grün".to_owned())].into(),
        event_time: Some(1000 + number as u64),
        ..Default::default()
    }
}

/// Sends without waiting in between, then waits for all receipts.
pub async fn send_all(producer: &mut Producer<TokioExecutor>, messages: Vec<producer::Message>) -> Outcome {
    let mut receipts = Vec::new();
    for message in messages {
        receipts.push(producer.send_non_blocking(message).await?);
    }
    // Only a batching producer has something to flush; the other answers with an error.
    let _ = producer.send_batch().await;
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// The next message, if one comes in time.
pub async fn next_within(consumer: &mut Bytes, limit: Duration) -> Outcome<Option<Message<Vec<u8>>>> {
    match tokio::time::timeout(limit, consumer.try_next()).await {
        Err(_) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(None)) => Err(Failure("the consumer ended".to_owned())),
        Ok(Ok(Some(message))) => Ok(Some(message)),
    }
}

/// That many messages, which must come.
pub async fn receive(consumer: &mut Bytes, count: usize, acknowledge: bool) -> Outcome<Vec<Message<Vec<u8>>>> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let Some(message) = next_within(consumer, COMES).await? else {
            return Err(Failure(format!("only {} of {count} messages came", messages.len())));
        };
        if acknowledge {
            consumer.ack(&message).await?;
        }
        messages.push(message);
    }
    Ok(messages)
}

/// The payload of a message as text.
pub fn text(message: &Message<Vec<u8>>) -> String {
    String::from_utf8_lossy(&message.deserialize()).into_owned()
}

/// The payloads of messages as texts.
pub fn texts(messages: &[Message<Vec<u8>>]) -> Vec<String> {
    messages.iter().map(text).collect()
}

/// These payloads come in this order, and nothing after them.
pub async fn exactly(consumer: &mut Bytes, expected: &[String]) -> Outcome {
    let found = texts(&receive(consumer, expected.len(), true).await?);
    same(found.as_slice(), expected, "payloads")?;
    match next_within(consumer, STAYS_AWAY).await? {
        None => Ok(()),
        Some(more) => Err(Failure(format!("{:?} came after all that should come", text(&more)))),
    }
}

/// So many messages, each with which of the consumers had it, as they come and acknowledged. Each consumer has some.
pub async fn shared_out(consumers: &mut [Bytes; 2], count: usize) -> Outcome<Vec<(usize, Message<Vec<u8>>)>> {
    let mut found = Vec::new();
    let deadline = std::time::Instant::now() + COMES;
    while found.len() < count && std::time::Instant::now() < deadline {
        for (at, consumer) in consumers.iter_mut().enumerate() {
            if let Some(message) = next_within(consumer, Duration::from_millis(50)).await? {
                consumer.ack(&message).await?;
                found.push((at, message));
            }
        }
    }
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    same(sorted(found.iter().map(|(_, message)| text(message)).collect()), sorted(numbers(0, count)), "payloads")?;
    let has_share = |at| found.iter().any(|(by, _)| *by == at);
    same(has_share(0) && has_share(1), true, "each consumer has a share")?;
    Ok(found)
}
