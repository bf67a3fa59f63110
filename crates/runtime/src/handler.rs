//! Tasks and folds with their types erased, so that one dispatcher serves them all and a binary does not pay for each type again.

use crate::{
    Cause, Codec, Context, Fold, Outputs, Route, Setup, Task, TaskError,
    codec::{self, Bytes},
    def::TaskDef,
};
use leatworks_broker::{BoxFuture, Message};
use serde::{Serialize, de::DeserializeOwned};
use std::{marker::PhantomData, sync::Arc, time::Duration};

/// Makes the handler of a task.
pub type OpenHandler = for<'a> fn(&'a Setup) -> BoxFuture<'a, Result<Arc<dyn Handler>, TaskError>>;

/// Makes the handler of a fold.
pub type OpenFold = for<'a> fn(&'a Setup) -> BoxFuture<'a, Result<Arc<dyn FoldHandler>, TaskError>>;

/// One output of a task, encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Which of the task's routes it takes, as an index into [`TaskDef::routes`]; none if nothing follows.
    pub route: Option<usize>,
    /// A topic that is none of these routes; its handler has made sure that it exists.
    pub topic: Option<Arc<str>>,
    /// Its key; none to inherit that of the input.
    pub key: Option<String>,
    /// The payload, in the codec of the topology.
    pub payload: Bytes,
}

/// Handles messages: a Rust task, an HTTP worker, a source or a sink.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. The future may be dropped at any `await`.
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>>;

    /// Makes durable what came of messages that were handled well. They are settled only after this has succeeded; if it fails, each of
    /// them has failed and is tried again. Called once for each batch, maybe for several at once.
    fn flush<'a>(&'a self, _messages: Handled<'a>) -> BoxFuture<'a, Result<(), TaskError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Who takes several messages at once, if it is better so just now.
    fn batch(&self) -> Option<&dyn BatchHandler> {
        None
    }
}

/// Handles several messages at once, for handlers to whom handing each over by itself costs more than handling it.
pub trait BatchHandler: Send + Sync {
    /// Handles all of them and tells, in any order, what came of each: its index among the calls, and the result. Each may take `timeout`, which the handler sees
    /// to. A message of which nothing is told has failed and is tried again. The future may be dropped at any `await`.
    fn handle_all<'a>(&'a self, calls: &'a [Call], timeout: Duration, answers: Answers) -> BoxFuture<'a, ()>;
}

/// A message of a batch.
#[derive(Clone, Debug)]
pub struct Call {
    /// The message.
    pub message: Message,
    /// What its task knows about it.
    pub cx: Context,
}

/// Where a batch handler tells what came of a message.
pub type Answers = tokio::sync::mpsc::UnboundedSender<(usize, Result<Vec<Output>, TaskError>)>;

/// The messages of a batch as they were handled, in their order. They are only copied for who asks for them.
pub type Handled<'a> = Box<dyn Iterator<Item = Message> + Send + 'a>;

/// Handles the messages of a fold.
pub trait FoldHandler: Send + Sync + 'static {
    /// A state from a snapshot, or an empty one.
    ///
    /// # Errors
    /// If the snapshot is not what this version of the fold reads.
    fn state(&self, snapshot: Option<&[u8]>) -> Result<Box<dyn FoldState>, TaskError>;
}

/// The state of a fold.
pub trait FoldState: Send {
    /// Takes one message in. After an error the state is not to be used any more.
    ///
    /// # Errors
    /// What the fold says, or that the message is not what it takes.
    fn fold(&mut self, message: &Message, cx: &Context) -> Result<(), TaskError>;

    /// The state, encoded.
    ///
    /// # Errors
    /// If the state cannot be encoded.
    fn snapshot(&self) -> Result<Bytes, TaskError>;

    /// Makes the result.
    fn finish<'a>(self: Box<Self>, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>>
    where
        Self: 'a;
}

/// Opens a task without labelled edges.
pub fn open_task<T: Task>(setup: &Setup) -> BoxFuture<'_, Result<Arc<dyn Handler>, TaskError>> {
    Box::pin(open::<T>(setup, encode_plain::<T::Out>))
}

/// Opens a task with labelled edges.
pub fn open_routed<T: Task>(setup: &Setup) -> BoxFuture<'_, Result<Arc<dyn Handler>, TaskError>>
where
    T::Out: Route,
{
    Box::pin(open::<T>(setup, encode_routed::<T::Out>))
}

/// Opens a fold without labelled edges.
pub fn open_fold<F: Fold>(setup: &Setup) -> BoxFuture<'_, Result<Arc<dyn FoldHandler>, TaskError>> {
    Box::pin(open_folding::<F>(setup, encode_plain::<F::Out>))
}

/// Opens a fold with labelled edges.
pub fn open_fold_routed<F: Fold>(setup: &Setup) -> BoxFuture<'_, Result<Arc<dyn FoldHandler>, TaskError>>
where
    F::Out: Route,
{
    Box::pin(open_folding::<F>(setup, encode_routed::<F::Out>))
}

/// Turns a value into its route and payload.
type Encode<T> = fn(&TaskDef, &T) -> Result<(Option<usize>, Bytes), TaskError>;

fn encode_plain<T: Serialize>(task: &TaskDef, value: &T) -> Result<(Option<usize>, Bytes), TaskError> {
    let payload = codec::encode(task.codec, value).map_err(|error| as_permanent(error.into()))?;
    Ok(((!task.routes.is_empty()).then_some(0), payload))
}

fn encode_routed<T: Route>(task: &TaskDef, value: &T) -> Result<(Option<usize>, Bytes), TaskError> {
    let (index, payload) = value.encode(task.codec);
    let payload = payload.map_err(|error| as_permanent(error.into()))?;
    // A task has a handful of routes, so looking through them is quicker than a map.
    let route = task.routes.iter().position(|route| route.label == T::LABELS.get(index).copied());
    Ok((route, payload))
}

fn as_permanent(error: TaskError) -> TaskError {
    TaskError::permanent(error)
}

/// Decodes a message; one that cannot be decoded is not tried again.
pub(crate) fn decode<T: DeserializeOwned>(codec: Codec, payload: &[u8]) -> Result<T, TaskError> {
    codec::decode(codec, payload).map_err(|error| TaskError::with_cause(Cause::Undecodable, error))
}

/// Decodes JSON without a copy of its texts.
pub(crate) fn decode_borrowed<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Result<T, TaskError> {
    serde_json::from_slice(json).map_err(|error| TaskError::with_cause(Cause::Undecodable, codec::DecodeError::from(error)))
}

fn encode_all<T>(
    task: &TaskDef,
    values: Vec<T>,
    encode: Encode<T>,
    key: fn(&T) -> Option<String>,
) -> Result<Vec<Output>, TaskError> {
    values
        .iter()
        .map(|value| {
            let (route, payload) = encode(task, value)?;
            Ok(Output { route, topic: None, key: key(value), payload })
        })
        .collect()
}

async fn open<T: Task>(setup: &Setup, encode: Encode<T::Out>) -> Result<Arc<dyn Handler>, TaskError> {
    let mut task: T = setup.settings()?;
    if !setup.is_check() {
        task.start(setup).await?;
    }
    Ok(Arc::new(RustTask { task, def: setup.task(), encode }))
}

struct RustTask<T: Task> {
    task: T,
    def: &'static TaskDef,
    encode: Encode<T::Out>,
}

impl<T: Task> Handler for RustTask<T> {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let input = decode(message.codec, &message.payload)?;
            let values = self.task.run(input, cx).await?.gather().await?;
            encode_all(self.def, values, self.encode, T::key)
        })
    }
}

async fn open_folding<F: Fold>(setup: &Setup, encode: Encode<F::Out>) -> Result<Arc<dyn FoldHandler>, TaskError> {
    let mut fold: F = setup.settings()?;
    if !setup.is_check() {
        fold.start(setup).await?;
    }
    Ok(Arc::new(RustFold { fold: Arc::new(fold), def: setup.task(), encode }))
}

struct RustFold<F: Fold> {
    fold: Arc<F>,
    def: &'static TaskDef,
    encode: Encode<F::Out>,
}

impl<F: Fold> FoldHandler for RustFold<F> {
    fn state(&self, snapshot: Option<&[u8]>) -> Result<Box<dyn FoldState>, TaskError> {
        let state = match snapshot {
            // MessagePack whatever the topology's codec is: it is smaller, and takes maps whose keys are not texts.
            Some(bytes) => codec::decode(Codec::MessagePack, bytes).map_err(|error| {
                TaskError::permanent(format!("the kept state of fold `{}` does not fit its type: {error}", self.def.name))
            })?,
            None => F::State::default(),
        };
        Ok(Box::new(RustState { fold: self.fold.clone(), def: self.def, encode: self.encode, state, input: PhantomData }))
    }
}

struct RustState<F: Fold> {
    fold: Arc<F>,
    def: &'static TaskDef,
    encode: Encode<F::Out>,
    state: F::State,
    input: PhantomData<fn(F::In)>,
}

impl<F: Fold> FoldState for RustState<F> {
    fn fold(&mut self, message: &Message, cx: &Context) -> Result<(), TaskError> {
        let input = decode(message.codec, &message.payload)?;
        self.fold.fold(&mut self.state, input, cx)
    }

    fn snapshot(&self) -> Result<Bytes, TaskError> {
        codec::encode(Codec::MessagePack, &self.state).map_err(|error| as_permanent(error.into()))
    }

    fn finish<'a>(self: Box<Self>, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let Self { fold, def, encode, state, .. } = *self;
            let values = fold.finish(state, cx).await?.gather().await?;
            encode_all(def, values, encode, F::key)
        })
    }
}
