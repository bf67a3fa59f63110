//! The contract suite on a real Pulsar: one named test for each scenario.
//!
//! The suite counts messages from zero, as the embedded broker does, and Pulsar has ledgers and entries. So a [`Numbered`] broker stands between
//! them.

use crate::{
    numbered::{Book, Numbered},
    service,
};
use leatworks_broker::{
    BoxFuture, Broker, Limits, Result,
    contract::{Place, Promises},
    contract_suite,
};
use leatworks_pulsar::{PulsarBroker, PulsarOptions};
use std::sync::Arc;

contract_suite!(durable, Namespace::new(service::options()));

/// A namespace of its own for each scenario.
struct Namespace {
    options: PulsarOptions,
    book: Arc<Book>,
    /// What processes leave here outlives them.
    _notes: tempfile::TempDir,
}

impl Namespace {
    fn new(options: PulsarOptions) -> Self {
        let namespace = service::unique("contract");
        service::put(&options, &format!("/admin/v2/namespaces/public/{namespace}"), "{}");
        let notes = tempfile::tempdir().unwrap();
        let options = PulsarOptions { namespace, notes: Some(notes.path().to_owned()), ..options };
        Self { options, book: Arc::default(), _notes: notes }
    }
}

impl Place for Namespace {
    fn promises(&self) -> Promises {
        Promises { reopen: true, crash: true, broker: PulsarBroker::promised(), limits: false }
    }

    fn open(&self, _: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        Box::pin(async move {
            let inner = PulsarBroker::connect(self.options.clone()).await?;
            Ok(Arc::new(Numbered { inner, book: self.book.clone() }) as Arc<dyn Broker>)
        })
    }
}
