//! The contract suite: what every [`Broker`] must do, as named scenarios that every implementation runs.
//!
//! An implementation gives a [`Place`] and runs each of [`SCENARIOS`] on one; [`contract_suite!`](crate::contract_suite) makes a named
//! test of each. Scenarios run in real time, name everything they make anew, wait for conditions with a deadline and never assert that
//! something is fast, so that many of them can share one broker that lives long and is far away.

mod accounts;
mod closing;
mod crowd;
mod delays;
mod keys;
mod list;
mod looking;
mod model;
mod publishing;
mod receiving;
mod rig;
mod seeking;
mod settling;
mod steps;
mod subscriptions;
mod topics;

pub use list::SCENARIOS;

use crate::{BoxFuture, Broker, Limits, Result};
use rig::Rig;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// One named part of the contract.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it shows; also the name of its test.
    pub name: &'static str,
    /// What it can not be run without.
    pub needs: Needs,
    /// Runs it. It panics if the contract is broken.
    pub run: fn(Harness) -> BoxFuture<'static, ()>,
}

/// What a scenario cannot be run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// A broker that finds again what it held when it is opened anew.
    pub reopen: bool,
}

/// What an implementation promises beyond the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// What is closed can be opened again and holds what it held.
    pub reopen: bool,
    /// So does what was abandoned without being closed; see [`Place::crash`].
    pub crash: bool,
    /// What its brokers say of themselves.
    pub broker: crate::Promises,
    /// [`Place::open`] heeds the limits it is given.
    pub limits: bool,
}

/// Where an implementation keeps what it keeps. One is made for each scenario; at most one broker at a time is open on it.
pub trait Place: Send + Sync + 'static {
    /// What may be expected of its brokers.
    fn promises(&self) -> Promises;

    /// Opens the broker: on nothing the first time, then on what the one before has left.
    fn open(&self, limits: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>>;

    /// Ends a broker as the end of its process would, as well as can be done within one process. It is not closed, and nobody else holds it.
    fn crash(&self, broker: Arc<dyn Broker>) -> BoxFuture<'_, ()> {
        Box::pin(async move { drop(broker) })
    }
}

/// What a scenario gets: a place, and names that nobody else uses.
#[derive(Clone)]
pub struct Harness {
    place: Arc<dyn Place>,
}

/// How a broker ends before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Crashed,
}

impl Harness {
    /// A harness on this place.
    pub fn new(place: Arc<dyn Place>) -> Self {
        Self { place }
    }

    fn promises(&self) -> Promises {
        self.place.promises()
    }

    /// The ways of ending that this place survives.
    fn ends(&self) -> impl Iterator<Item = End> + use<> {
        let Promises { reopen, crash, .. } = self.promises();
        [(End::Closed, reopen), (End::Crashed, crash)].into_iter().filter(|(_, promised)| *promised).map(|(end, _)| end)
    }

    /// A broker with names of its own.
    async fn rig(&self) -> Rig {
        self.rig_with(Limits::default()).await
    }

    async fn rig_with(&self, limits: Limits) -> Rig {
        let broker = rig::ok(self.place.open(limits).await);
        Rig::new(self.clone(), broker, limits, unique())
    }
}

/// Runs the scenario of this name on a place.
///
/// # Panics
/// If the contract is broken, or if there is no such scenario.
pub async fn run(name: &str, place: impl Place) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.unwrap_or_else(|| panic!("there is no scenario `{name}`"));
    let harness = Harness::new(Arc::new(place));
    assert!(!scenario.needs.reopen || harness.promises().reopen, "`{name}` needs a broker that can be opened again");
    (scenario.run)(harness).await;
}

/// A number that no other scenario gets, in this process or, but for the clock's resolution, any other.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = u64::from(std::process::id()) << 12;
    // Microseconds since 1970 fit in 51 bits; a scenario that runs a thousand times a microsecond does not exist.
    (now.as_micros() as u64) ^ (process << 40) ^ (NEXT.fetch_add(1, Ordering::Relaxed) << 52)
}
