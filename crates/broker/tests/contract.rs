//! The contract suite on the brokers of this crate: one named test for each scenario.

use leatworks_broker::{
    BoxFuture, Broker, Limits, MemoryBroker, Result,
    contract::{self, Place, Promises},
    contract_scenarios,
};
use std::sync::Arc;

/// One `#[tokio::test]` for each scenario: `anew` for a broker that loses everything when it ends, `durable` for one that does not.
macro_rules! suite {
    (($module:ident, anew, $place:expr) anew: [$($file:ident::$name:ident,)*] reopened: [$($unfit:ident::$too:ident,)*]) => {
        suite! { @ $module, $place, $($name,)* }
    };
    (($module:ident, durable, $place:expr) anew: [$($file:ident::$name:ident,)*] reopened: [$($other:ident::$more:ident,)*]) => {
        suite! { @ $module, $place, $($name,)* $($more,)* }
    };
    (@ $module:ident, $place:expr, $($name:ident,)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    contract::run(stringify!($name), $place).await;
                }
            )*
        }
    };
}

contract_scenarios!(suite!(memory, anew, InMemory));

struct InMemory;

impl Place for InMemory {
    fn promises(&self) -> Promises {
        Promises { reopen: false, crash: false, atomic_step: true, limits: true }
    }

    fn open(&self, limits: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        Box::pin(async move { Ok(Arc::new(MemoryBroker::new(limits)) as Arc<dyn Broker>) })
    }
}
