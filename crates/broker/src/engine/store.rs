//! What the engine needs from the place that keeps its events: nothing in memory, a journal on disk.

use crate::{
    Message, Result,
    state::{Event, State},
};
use std::{future::Future, sync::Arc};

/// Keeps events in order, and messages until they are freed.
pub(crate) trait Store: Send + Sync + 'static {
    /// Where a message's bytes are.
    type Handle: Clone + PartialEq + Send + Sync + 'static;

    /// The state as it is kept.
    type Snapshot: Send;

    /// What an acknowledged write survives, for people.
    fn durability(&self) -> &'static str;

    /// Fails if the store has failed.
    fn check(&self) -> Result<()>;

    /// Whether this much can be appended now. `urgent` is for what lets go of messages, which may use the last reserve.
    fn has_room(&self, bytes: usize, urgent: bool) -> bool;

    /// Waits until there may be room, or tells why there will be none.
    fn room(&self, bytes: usize, urgent: bool) -> impl Future<Output = Result<()>> + Send;

    /// Puts an event in order and gives its sequence. Called with the engine locked and room made sure of; never blocks.
    fn append(&self, event: Event<Arc<Message>>) -> (u64, Event<Self::Handle>);

    /// The sequence of the last event.
    fn last(&self) -> u64;

    /// Waits until everything up to this event survives the end of the process, if this store survives it at all.
    fn written(&self, sequence: u64) -> impl Future<Output = Result<()>> + Send;

    /// Waits until everything up to this event is as durable as the level says.
    fn durable(&self, sequence: u64) -> impl Future<Output = Result<()>> + Send;

    /// Whether everything up to this event is as durable as the level says.
    fn is_durable(&self, sequence: u64) -> bool;

    /// Takes note of messages that nobody needs any more.
    fn free(&self, handles: &mut Vec<Self::Handle>);

    /// Reads messages back, each for itself, since damage is limited to what it hit.
    fn load(&self, handles: &[Self::Handle]) -> impl Future<Output = Vec<Result<Message>>> + Send;

    /// The state as it is now. Called with the engine locked.
    fn snapshot(&self, state: &State<Self::Handle>) -> Self::Snapshot;

    /// Makes everything durable, with the state as it is at the end, and lets go of what is held.
    fn close(&self, snapshot: Self::Snapshot) -> impl Future<Output = Result<()>> + Send;
}
