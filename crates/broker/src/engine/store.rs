//! What the engine needs from the place that keeps its events: nothing in memory, a journal on disk.

use crate::{
    BrokerError, Durability, Message, MessageId, Result, TopicSpec,
    state::{Event, Index, Indexed, Missing, Run, State, SubscriptionId},
};
use leatworks_journal::Effect;
use std::{future::Future, sync::Arc};

/// An event that was put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Under which it is kept.
    pub(crate) sequence: u64,
    /// What it is to survive before anybody is told of it.
    pub(crate) level: Durability,
}

/// Keeps what happens in order, and messages until they are freed.
pub(crate) trait Store: Send + Sync + Sized + 'static {
    /// Where a message is.
    type Handle: From<Arc<Message>> + Clone + PartialEq + Send + Sync + 'static;

    /// What has happened and is not kept yet; it lies beside the state, under the same lock.
    type Group: Send + 'static;

    /// What an acknowledged write survives where a topic says nothing else.
    fn level(&self) -> Durability;

    /// Gets ready for a topic that is about to be made or changed, and takes out of it what this store has no use for.
    fn prepare(&self, spec: &mut TopicSpec) -> Result<()>;

    /// Fails if the store has failed.
    fn check(&self) -> Result<()>;

    /// Whether this much can be noted now. On a full disk its effect says how much of the reserve it may use.
    fn has_room(&self, group: &Self::Group, bytes: usize, effect: Effect) -> bool;

    /// How many bytes may be pending on a topic that something is moved on to; `None` unless the disk is full.
    fn wave_bytes(&self) -> Option<u64>;

    /// Waits until there may be room, or tells why there will be none.
    fn room(&self, bytes: usize, effect: Effect) -> impl Future<Output = Result<()>> + Send;

    /// Takes note of an event of at most so many bytes that is about to be applied, and tells under which sequence it is kept, and with which level.
    /// Room was made sure of; never blocks.
    fn note(&self, group: &mut Self::Group, state: &State<Self::Handle>, event: &Event<Self::Handle>, bytes: usize) -> Noted;

    /// Takes note of what applying an event has freed and told.
    fn applied(&self, group: &mut Self::Group, state: &mut State<Self::Handle>);

    /// Waits until everything up to this event is as durable as its level says.
    fn durable(&self, noted: Noted) -> impl Future<Output = Result<()>> + Send;

    /// Waits until every event so far is as durable as its own level says.
    fn all_durable(&self) -> impl Future<Output = Result<()>> + Send;

    /// Whether everything up to this event is as durable as the level says.
    fn is_durable(&self, noted: Noted) -> bool;

    /// Attempts of this message that the process before has begun and not ended, also if it was lost with it and has come again.
    fn attempts_before(&self, group: &mut Self::Group, subscription: SubscriptionId, position: u64, id: MessageId)
    -> Option<u32>;

    /// A message is about to be handed out. `stays` says that not even the loss of power gives its position to another one.
    fn hand_out(&self, group: &mut Self::Group, subscription: SubscriptionId, handed: (u64, u32), id: MessageId, stays: bool);

    /// Messages that were handed out are settled or are given back, up to this attempt, by an event of the open group.
    fn hand_back(&self, group: &mut Self::Group, subscription: SubscriptionId, start: u64, end: u64, attempt: u32);

    /// Nothing of this subscription is in hand, and its attempts start over.
    fn forget_hand(&self, group: &mut Self::Group, subscription: SubscriptionId);

    /// Makes what [`Store::hand_out`] has noted survive the end of the process. `take` gives access to the group.
    fn write_hand(&self, take: impl FnOnce(&mut dyn FnMut(&mut Self::Group))) -> Result<()>;

    /// About how many bytes a message takes when it is read back.
    fn size(handle: &Self::Handle) -> usize;

    /// Reads messages back, each for itself, since damage is limited to what it hit.
    fn load(&self, handles: &[Self::Handle]) -> impl Future<Output = Vec<Result<Arc<Message>>>> + Send;

    /// Reads the indexes of spilled blocks back, in order, each for itself.
    fn load_indexes(
        &self,
        missing: &[Missing<Self::Handle>],
    ) -> impl Future<Output = Result<Vec<Result<Index<Self::Handle>>>>> + Send;

    /// Finds the messages of a spilled block whose index cannot be read back, for this reason: what each says of itself, with the root that it names.
    fn find_anew(
        &self,
        missing: &Missing<Self::Handle>,
        runs: Vec<Run>,
        reason: &BrokerError,
    ) -> impl Future<Output = Result<Vec<Indexed<Self::Handle>>>> + Send;

    /// Makes everything durable and lets go of what is held.
    fn close(engine: &Arc<super::Engine<Self>>) -> impl Future<Output = Result<()>> + Send;
}
