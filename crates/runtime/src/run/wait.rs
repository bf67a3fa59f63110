//! Waiting: until nothing is pending, or until a run is stopped.

use super::Stop;
use crate::{def::EdgeDef, dispatch, topics};
use leatworks_broker::{Broker, Result};
use std::time::Duration;
use tokio::sync::watch;

/// The first pause between two looks at what is pending; short, so that a quick run ends quickly.
const LOOK_FIRST: Duration = Duration::from_millis(2);

/// The longest pause, so that a long run is not disturbed.
const LOOK_MAX: Duration = Duration::from_millis(50);

/// The longest pause where another system is asked, which takes a request for each topic.
const LOOK_FAR_MAX: Duration = Duration::from_millis(500);

/// Waits until nothing is pending on these edges.
///
/// Two looks in a row must find nothing pending and nothing published between them: so it does not matter whether the broker looks at all
/// topics at the same instant.
pub(super) async fn drained(broker: &dyn Broker, edges: &[&'static EdgeDef]) -> Result<()> {
    let pause_max = if broker.promises().accounts { LOOK_MAX } else { LOOK_FAR_MAX };
    let mut pause = LOOK_FIRST;
    let mut before = None;
    loop {
        let pending = dispatch::patiently(|| topics::pending(broker, edges)).await?;
        if pending.messages == 0 && before == Some(pending) {
            return Ok(());
        }
        if pending.messages > 0 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
        before = Some(pending);
    }
}

/// Waits until a run is to end: at once, or when the limit has passed after it was asked to drain.
pub(super) async fn stopped(stop: &mut watch::Receiver<Stop>, drain_limit: Duration) {
    // If the sender is gone, nobody can stop the run.
    if stop.wait_for(|stop| *stop >= Stop::Drain).await.is_err() {
        std::future::pending::<()>().await;
    }
    let now = async {
        if stop.wait_for(|stop| *stop == Stop::Now).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    if tokio::time::timeout(drain_limit, now).await.is_err() {
        tracing::warn!(?drain_limit, "the time to drain is over; the next run goes on with what is pending");
    }
}
