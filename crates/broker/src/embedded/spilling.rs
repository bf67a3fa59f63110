//! The embedded broker with as little of its index in memory as there can be. The blocks of this crate's own tests hold four messages, and with the limit
//! set to none each is spilled as soon as it may be.

use super::{Durability, Embedded, EmbeddedOptions};
use crate::{
    BoxFuture, Broker, Limits, Result,
    contract::{Place, Promises},
    contract_suite,
};
use std::sync::Arc;
use tempfile::TempDir;

contract_suite!(durable, OnDisk::new());

struct OnDisk {
    dir: TempDir,
}

impl OnDisk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
}

impl Place for OnDisk {
    fn promises(&self) -> Promises {
        Promises { reopen: true, crash: true, broker: crate::Promises::default(), limits: true }
    }

    fn open(&self, limits: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        let options = EmbeddedOptions {
            limits,
            durability: Durability::Process,
            cache_bytes_max: 0,
            checkpoint_bytes: 16_384,
            index_messages_max: 0,
            ..EmbeddedOptions::new(self.dir.path())
        };
        Box::pin(async move { Ok(Arc::new(Embedded::open(options)?) as Arc<dyn Broker>) })
    }
}
