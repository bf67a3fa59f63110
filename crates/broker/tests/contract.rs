//! The contract suite on the brokers of this crate: one named test for each scenario, the embedded broker at each of its levels.

use leatworks_broker::{
    BoxFuture, Broker, Durability, Embedded, EmbeddedOptions, Limits, MemoryBroker, Result,
    contract::{Place, Promises},
    contract_suite,
};
use std::sync::Arc;
use tempfile::TempDir;

mod memory {
    use super::*;
    contract_suite!(anew, InMemory);
}

mod embedded_power {
    use super::*;
    contract_suite!(durable, OnDisk::new(Durability::Power));
}

mod embedded_interval {
    use super::*;
    contract_suite!(durable, OnDisk::new(Durability::Interval));
}

mod embedded_process {
    use super::*;
    contract_suite!(durable, OnDisk::new(Durability::Process).straining());
}

mod embedded_memory {
    use super::*;
    contract_suite!(durable, OnDisk::new(Durability::Memory));
}

struct InMemory;

impl Place for InMemory {
    fn promises(&self) -> Promises {
        Promises { reopen: false, crash: false, broker: leatworks_broker::Promises::default(), limits: true }
    }

    fn open(&self, limits: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        Box::pin(async move { Ok(Arc::new(MemoryBroker::new(limits)) as Arc<dyn Broker>) })
    }
}

struct OnDisk {
    dir: TempDir,
    durability: Durability,
    cache_bytes_max: usize,
    checkpoint_bytes: u64,
}

impl OnDisk {
    fn new(durability: Durability) -> Self {
        let EmbeddedOptions { cache_bytes_max, checkpoint_bytes, .. } = EmbeddedOptions::new("");
        Self { dir: tempfile::tempdir().unwrap(), durability, cache_bytes_max, checkpoint_bytes }
    }

    /// Nothing in the cache, and a checkpoint after every few records: what is delivered comes from disk.
    fn straining(self) -> Self {
        Self { cache_bytes_max: 0, checkpoint_bytes: 4_096, ..self }
    }
}

impl Place for OnDisk {
    fn promises(&self) -> Promises {
        Promises { reopen: true, crash: true, broker: leatworks_broker::Promises::default(), limits: true }
    }

    fn open(&self, limits: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        let Self { durability, cache_bytes_max, checkpoint_bytes, .. } = *self;
        let options =
            EmbeddedOptions { limits, durability, cache_bytes_max, checkpoint_bytes, ..EmbeddedOptions::new(self.dir.path()) };
        Box::pin(async move { Ok(Arc::new(Embedded::open(options)?) as Arc<dyn Broker>) })
    }
}
