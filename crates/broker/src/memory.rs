//! The broker that keeps everything in memory: for tests, and for work that may be lost.

use crate::{
    Message, Result,
    engine::{Clock, Engine, Limits, Store},
    state::{Event, State},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A broker in memory. It keeps the whole contract but survives nothing; its time is tokio's, so that paused time works.
#[derive(Clone)]
pub struct MemoryBroker {
    engine: Arc<Engine<MemoryStore>>,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new(limits: Limits) -> Self {
        Self { engine: Engine::new(MemoryStore::default(), State::default(), Clock::new(), limits) }
    }
}

crate::engine::broker_by_engine!(MemoryBroker);

/// Keeps nothing but the messages themselves: an event is as durable as it will ever be when it is applied.
#[derive(Default)]
struct MemoryStore {
    last: AtomicU64,
}

impl Store for MemoryStore {
    type Handle = Arc<Message>;

    fn durability(&self) -> &'static str {
        "memory"
    }

    fn has_room(&self, _bytes: usize, _urgent: bool) -> bool {
        true
    }

    async fn room(&self, _bytes: usize, _urgent: bool) -> Result<()> {
        Ok(())
    }

    fn append(&self, event: Event<Arc<Message>>) -> (u64, Event<Arc<Message>>) {
        (self.last.fetch_add(1, Ordering::Relaxed) + 1, event)
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    async fn written(&self, _sequence: u64) -> Result<()> {
        Ok(())
    }

    async fn durable(&self, _sequence: u64) -> Result<()> {
        Ok(())
    }

    fn is_durable(&self, _sequence: u64) -> bool {
        true
    }

    fn free(&self, handles: &mut Vec<Arc<Message>>) {
        handles.clear();
    }

    async fn load(&self, handles: &[Arc<Message>]) -> Vec<Result<Message>> {
        handles.iter().map(|message| Ok(Message::clone(message))).collect()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
