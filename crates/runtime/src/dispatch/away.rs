//! A worker that cannot be reached. What has not been sent to it has not been tried, so its messages wait in hand, within the attempt that is counted already.

use super::{Closing, Edge};
use crate::{TaskError, ids};
use leatworks_broker::Message;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The first pause before a worker is called again, and the longest: a restart on the same machine takes tenths of a second, and a worker that has come back
/// on another is found within seconds. There is no limit to how often: a message is not to blame for a worker that is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often an edge says that its worker is away: each of the messages in hand would say it by itself.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// When an edge has last said that its worker is away, and how many messages wait for it now.
#[derive(Debug, Default)]
pub(super) struct Absence {
    told: Mutex<Option<Instant>>,
    waiting: AtomicU64,
}

impl Absence {
    fn tell(&self, edge: &Edge, error: &TaskError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            let messages = self.waiting.load(Relaxed);
            tracing::warn!(edge = edge.def.id, messages, %error, "the worker cannot be reached; its messages wait for it, and no attempt is counted");
        }
    }
}

/// The wait of one message.
pub(super) struct Away<'a> {
    edge: &'a Edge,
    looks: u32,
}

impl<'a> Away<'a> {
    pub(super) fn new(edge: &'a Edge) -> Self {
        Self { edge, looks: 0 }
    }

    /// Waits before the worker is called again. False if the dispatcher is to end instead.
    pub(super) async fn wait(&mut self, message: &Message, error: &TaskError, closing: &Closing) -> bool {
        let absence = &self.edge.absence;
        if self.looks == 0 {
            absence.waiting.fetch_add(1, Relaxed);
        }
        absence.tell(self.edge, error);
        // Nothing is stuck: it is known what is waited for.
        if let Some(watch) = &self.edge.watch {
            watch.moved();
        }
        let longest = PAUSE.0.saturating_mul(1 << self.looks.min(16)).min(PAUSE.1);
        // All that wait would otherwise come at once.
        let pause = longest.mul_f64(0.5 + ids::spread(message.id, self.looks) / 2.0);
        self.looks += 1;
        tokio::select! {
            biased;
            () = closing.clone().into_asked() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if self.looks > 0 {
            self.edge.absence.waiting.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::serve, *};
    use crate::{
        Context, Counts,
        def::{EdgeDef, Retry, TaskDef, TopologyDef, example},
        handler::{Answers, BatchHandler, Call, Handler, Output},
        plan::TaskPlan,
        topics,
    };
    use leatworks_broker::{BoxFuture, Broker, Limits, MemoryBroker, Publish};
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    };

    const MESSAGES: u32 = 20;

    static TASK: TaskDef = TaskDef { retry: Retry { attempts: 2, ..example::TASK.retry }, parallelism: 4, ..example::TASK };

    static EDGE: EdgeDef = EdgeDef {
        id: "[*]-->task",
        from: None,
        to: "task",
        label: None,
        topic: "t-task",
        subscription: "task",
        retry_topic: "t-task-RETRY",
        dead_letter_topic: "t-task-DLQ",
    };

    static TOPOLOGY: TopologyDef = TopologyDef { tasks: &[&TASK], edges: &[EDGE], ..example::TOPOLOGY };

    /// A worker that is away for so many calls. When it is back it takes batches, and then it goes away once more.
    #[derive(Default)]
    struct Absent {
        calls_left: AtomicU32,
        batches: AtomicBool,
        handled: AtomicU32,
        highest_attempt: AtomicU32,
    }

    impl Absent {
        fn call(&self, cx: &Context) -> Result<Vec<Output>, TaskError> {
            self.highest_attempt.fetch_max(cx.attempt(), Relaxed);
            if self.calls_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(TaskError::unreached("nobody is there"));
            }
            self.handled.fetch_add(1, Relaxed);
            Ok(Vec::new())
        }
    }

    impl Handler for Absent {
        fn handle<'a>(&'a self, _: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
            let result = self.call(cx);
            self.batches.store(result.is_ok(), Relaxed);
            Box::pin(std::future::ready(result))
        }

        fn batch(&self) -> Option<&dyn BatchHandler> {
            self.batches.load(Relaxed).then_some(self)
        }
    }

    impl BatchHandler for Absent {
        fn handle_all<'a>(&'a self, calls: &'a [Call], _: Duration, answers: Answers) -> BoxFuture<'a, ()> {
            Box::pin(async move {
                // The first is handled, and then it is gone.
                for (index, call) in calls.iter().enumerate() {
                    let result = self.call(&call.cx);
                    if self.batches.swap(false, Relaxed) {
                        self.calls_left.store(30, Relaxed);
                    }
                    let _ = answers.send((index, result));
                }
            })
        }
    }

    async fn dispatched(
        absent: &Arc<Absent>,
    ) -> (Arc<dyn Broker>, tokio::sync::watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Limits::default()));
        topics::create(broker.as_ref(), &(&TOPOLOGY).into()).await.unwrap();
        let publish = |number: u32| {
            let id = leatworks_broker::MessageId(u128::from(number) + 1);
            let message = Message { id, root: id, payload: "1".into(), ..Message::default() };
            Publish { topic: EDGE.topic.into(), message: message.into(), sequence: None }
        };
        broker.publish((0..MESSAGES).map(publish).collect()).await.unwrap();
        let counts = Arc::new(Counts::new(&TOPOLOGY));
        let edge = Edge::new(broker.clone(), Some(absent.clone()), &EDGE, &TaskPlan::new(&TASK), counts);
        let (close, closing) = Closing::new();
        let serving = tokio::spawn(async move { serve(Arc::new(edge), closing).await.unwrap() });
        (broker, close, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_away_costs_no_attempt() {
        let absent = Arc::new(Absent { calls_left: AtomicU32::new(1000), ..Absent::default() });
        let (broker, close, serving) = dispatched(&absent).await;
        let account = loop {
            let account = broker.account(TOPOLOGY.name).await.unwrap();
            if account.in_flight == 0 {
                break account;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((account.done, account.dead_lettered), (u64::from(MESSAGES), 0));
        assert_eq!(absent.handled.load(Relaxed), MESSAGES, "each once");
        assert_eq!(absent.highest_attempt.load(Relaxed), 1, "it was the first attempt at each");
        close.send_replace(true);
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_dispatcher_that_ends_gives_back_what_waits_for_a_worker() {
        let absent = Arc::new(Absent { calls_left: AtomicU32::new(u32::MAX), ..Absent::default() });
        let (broker, close, serving) = dispatched(&absent).await;
        let waiting = async || {
            let stats = broker.topic_stats(EDGE.topic).await.unwrap().unwrap();
            let subscription = &stats.subscriptions[EDGE.subscription];
            (subscription.backlog, subscription.in_flight)
        };
        while waiting().await.1 == 0 || absent.calls_left.load(Relaxed) > u32::MAX - 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        close.send_replace(true);
        let began = Instant::now();
        serving.await.unwrap();
        assert!(began.elapsed() < PAUSE.1, "it does not wait for the worker");
        assert_eq!(waiting().await, (u64::from(MESSAGES), 0));
        assert_eq!(broker.account(TOPOLOGY.name).await.unwrap().dead_lettered, 0);
    }
}
