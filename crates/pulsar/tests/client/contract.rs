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
    contract::{self, Place, Promises},
    contract_scenarios,
};
use leatworks_pulsar::{PulsarBroker, PulsarOptions};
use std::sync::Arc;

/// One `#[tokio::test]` for each scenario.
macro_rules! suite {
    (() anew: [$($file:ident::$name:ident,)*] reopened: [$($other:ident::$more:ident,)*]) => {
        suite! { @ $($name,)* $($more,)* }
    };
    (@ $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                contract::run(stringify!($name), Namespace::new(service::options())).await;
            }
        )*
    };
}

contract_scenarios!(suite!());

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
