//! Makes messages cross the edge: by the dispatcher, and by the broker's client alone.

use super::{
    super::{
        Failed,
        phase::{Phase, Profile},
    },
    line::Line,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use leatworks::{
    Codec, Counts,
    broker::{Ack, Broker, Confirm, Delivery, HandOff, Publish, Step, Subscribe, SubscriptionKind},
    new_root,
    plan::Plan,
    run::{self, Report, RunError, RunOptions, Stop},
};
use serde::Serialize;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

/// How often what has been handled is looked at. It bounds the error of the measured time.
const POLL: Duration = Duration::from_millis(1);

/// Nothing has been handled for so long: it will not be. Far above any pause of a service that works.
const STILL_MAX: Duration = Duration::from_secs(30);

/// What the client alone takes at once, and how many steps it has under way: what the dispatcher has too.
const AT_ONCE: usize = 1_024;
/// See [`AT_ONCE`].
const STEPS_MAX: usize = 4;

/// What the client alone may hold unsettled: as much as the dispatcher of an edge with a parallelism of 256.
const PERMITS: usize = 4_096 + 256;

/// Who takes messages, handles them and settles them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The dispatcher, with the task behind it.
    Dispatcher,
    /// A loop around the broker's client: receive, publish the same bytes, acknowledge, with as much under way as the dispatcher has.
    Client,
    /// The same loop with one message at a time, as one would write it first.
    Sequential,
}

/// How fast messages crossed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) per_s: f64,
    /// CPU time of this process for each message.
    pub(crate) cpu_us: f64,
    pub(crate) profile: Profile,
}

/// A running flow.
pub(super) struct Flow {
    counted: Counted,
    running: Running,
}

enum Counted {
    Dispatcher(Arc<Counts>),
    Client(Arc<AtomicU64>),
}

enum Running {
    Dispatcher(watch::Sender<Stop>, JoinHandle<Result<Report, RunError>>),
    Client(JoinHandle<Failed>),
}

impl Flow {
    /// Starts it on a line whose topics are there.
    pub(super) fn start(by: By, broker: &Arc<dyn Broker>, line: &Line, data: &Path) -> Self {
        if by == By::Dispatcher {
            let (stop, stopped) = watch::channel(Stop::Run);
            let counts = Arc::new(Counts::new(line.def));
            let options = RunOptions { serve: true, ..RunOptions::default() };
            let running = tokio::spawn(run::run(broker.clone(), Plan::new(line.def, data), options, counts.clone(), stopped));
            return Self { counted: Counted::Dispatcher(counts), running: Running::Dispatcher(stop, running) };
        }
        let handled = Arc::new(AtomicU64::new(0));
        let relay = Relay {
            broker: broker.clone(),
            input: line.input.clone(),
            subscription: line.edge.subscription.into(),
            output: line.output.clone(),
            handled: handled.clone(),
        };
        let (at_once, steps_max, permits) = if by == By::Client { (AT_ONCE, STEPS_MAX, PERMITS) } else { (1, 1, 1) };
        let running = tokio::spawn(async move {
            let Err(error) = relay.run(at_once, steps_max, permits).await;
            error
        });
        Self { counted: Counted::Client(handled), running: Running::Client(running) }
    }

    fn handled(&self) -> u64 {
        match &self.counted {
            Counted::Dispatcher(counts) => counts.tasks().values().map(|task| task.handled).sum(),
            Counted::Client(handled) => handled.load(Relaxed),
        }
    }

    /// Measures from when some messages have been handled until so many have been in all, or for so long.
    pub(super) async fn measure(&self, warm: u64, messages: u64, longest: Duration) -> Result<Rate, Failed> {
        self.wait(|handled| handled >= warm).await?;
        let phase = Phase::begin();
        let (start, before) = (Instant::now(), self.handled());
        self.wait(|handled| handled >= messages || start.elapsed() >= longest).await?;
        let handled = (self.handled() - before) as f64;
        let profile = phase.end();
        Ok(Rate { per_s: handled / profile.spent.elapsed_s, cpu_us: profile.spent.cpu_s * 1e6 / handled, profile })
    }

    async fn wait(&self, enough: impl Fn(u64) -> bool) -> Result<(), Failed> {
        let (mut last, mut since) = (self.handled(), Instant::now());
        while !enough(last) {
            let ended = match &self.running {
                Running::Dispatcher(_, running) => running.is_finished(),
                Running::Client(running) => running.is_finished(),
            };
            if ended {
                return Err("what handles the messages has ended".into());
            }
            tokio::time::sleep(POLL).await;
            let handled = self.handled();
            if handled > last {
                (last, since) = (handled, Instant::now());
            } else if since.elapsed() > STILL_MAX {
                return Err(format!("nothing was handled for {STILL_MAX:?}, after {handled} messages").into());
            }
        }
        Ok(())
    }

    /// Ends it. Where fewer than these have been handled the rest is left. A dispatcher must have handled each message at the first attempt.
    pub(super) async fn stop(self, messages: u64) -> Result<(), Failed> {
        let how = if self.handled() >= messages { Stop::Drain } else { Stop::Now };
        match self.running {
            Running::Dispatcher(stop, running) => {
                stop.send_replace(how);
                running.await??;
            }
            Running::Client(running) if running.is_finished() => return Err(running.await?),
            Running::Client(running) => {
                running.abort();
                // It has ended with what it was told, and its consumer with it.
                let _ = running.await;
            }
        }
        if let Counted::Dispatcher(counts) = self.counted {
            let failed: u64 = counts.tasks().values().map(|task| task.failed).sum();
            if failed > 0 {
                return Err(format!("{failed} attempts have failed, so this was no measurement of what succeeds").into());
            }
        }
        Ok(())
    }
}

/// The broker's client alone.
struct Relay {
    broker: Arc<dyn Broker>,
    input: Arc<str>,
    subscription: Arc<str>,
    output: Arc<str>,
    handled: Arc<AtomicU64>,
}

enum Never {}

impl Relay {
    async fn run(self, at_once: usize, steps_max: usize, permits: usize) -> Result<Never, Failed> {
        let subscribe = Subscribe {
            topic: self.input.to_string(),
            subscription: self.subscription.to_string(),
            kind: SubscriptionKind::Shared,
            consumer: "bench".to_owned(),
            permits,
            hand_off: HandOff::Durable,
        };
        let mut consumer = self.broker.subscribe(subscribe).await?;
        let mut steps = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(done) = steps.next(), if !steps.is_empty() => {
                    self.handled.fetch_add(done?, Relaxed);
                }
                received = consumer.receive(at_once), if steps.len() < steps_max => steps.push(self.step(received?)),
            }
        }
    }

    async fn step(&self, received: Vec<Delivery>) -> Result<u64, Failed> {
        let acks = received.iter().map(|delivery| Ack {
            topic: self.input.clone(),
            subscription: self.subscription.clone(),
            position: delivery.position,
            cumulative: false,
        });
        let publishes = received.iter().map(|delivery| Publish {
            topic: self.output.clone(),
            message: new_root(delivery.message.payload.clone(), Codec::Json, None).into(),
            sequence: None,
        });
        let step = Step {
            acks: acks.collect(),
            publishes: publishes.collect(),
            state: Vec::new(),
            guard: true,
            confirm: Confirm::Applied,
        };
        self.broker.commit(step).await?;
        Ok(received.len() as u64)
    }
}
