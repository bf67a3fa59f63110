//! What crosses while faults come: `start --> left & right --> join --> sink`, five tasks, so that every root is seen twice at the sink.

use super::log::{self, Log};
use leatworks::{
    Codec, Context, Permanent, Setup, Task, TaskError,
    def::{Drawings, EdgeDef, Kind, Retry, RouteDef, TaskDef, TopologyDef},
    open_task,
};
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Once},
    time::{Duration, Instant},
};

/// The topology's name.
pub(crate) const NAME: &str = "faults";

/// The topic by which roots enter.
pub(crate) const INGRESS: &str = "faults-start";

/// The file in the folder of the logs that holds the sink as long as it is there.
pub(crate) const HOLD_FILE: &str = "hold";

/// How often a held sink looks whether it is let go.
const HOLD_LOOK: Duration = Duration::from_millis(5);

/// A message. Its filler follows from its number, so whoever sees it knows whether it is what was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    /// The number of its root, from 1 on.
    pub(crate) sequence: u64,
    /// `L` or `R` behind the fork.
    pub(crate) way: Option<char>,
    /// Letters that no store can compress to nothing.
    filler: String,
}

impl Parcel {
    pub(crate) fn new(sequence: u64, bytes: usize) -> Self {
        Self { sequence, way: None, filler: filler(sequence, bytes) }
    }

    /// Whether its filler is the one of its number.
    pub(crate) fn is_whole(&self) -> bool {
        self.filler == filler(self.sequence, self.filler.len())
    }
}

fn filler(sequence: u64, bytes: usize) -> String {
    let mut state = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..bytes).map(letter).collect()
}

/// How a message fails on purpose, at the task `right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Poison {
    /// Permanently: it is given up at once.
    Permanent,
    /// With an error that is tried again.
    Error,
    /// With a panic.
    Panic,
    /// By ending the process.
    Abort,
    /// By taking memory until the process is ended for it.
    Memory,
    /// By never coming back from an `await`.
    Hang,
    /// By never coming back, and never awaiting: no timeout can end it.
    Block,
}

impl Poison {
    /// The cause that the dead letter must name. What hangs without awaiting, and what ends the process, leaves nobody to say more.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Hang => "timeout",
            Self::Abort | Self::Memory | Self::Block => "worker-died",
        }
    }
}

/// What the tasks are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The folder of the logs.
    pub(crate) logs: PathBuf,
    /// Roots that fail at `right`, in rising order, and how.
    pub(crate) poison: Vec<(u64, Poison)>,
    /// Every so many roots one fails permanently; zero for none.
    pub(crate) permanent_each: u64,
    /// How long a failed message asks to wait, in milliseconds.
    pub(crate) retry_after_ms: u64,
    /// How long the sink is held up by a message at most while the hold file is there, in milliseconds; with zero it does not look for it.
    pub(crate) hold_ms: u64,
}

impl Orders {
    /// The settings of every task.
    pub(crate) fn settings(&self) -> serde_json::Value {
        serde_json::json!({ "orders": self })
    }

    /// How this root fails.
    pub(crate) fn poison_of(&self, sequence: u64) -> Option<Poison> {
        let permanent = self.permanent_each > 0 && sequence.is_multiple_of(self.permanent_each);
        let named = self.poison.binary_search_by_key(&sequence, |(poisoned, _)| *poisoned);
        named.ok().map(|place| self.poison[place].1).or(permanent.then_some(Poison::Permanent))
    }
}

/// A task with its orders and its logs, which are open from its start on.
#[derive(Deserialize)]
struct Place {
    orders: Orders,
    #[serde(skip)]
    observed: Option<Arc<Log>>,
    #[serde(skip)]
    attempts: Option<Arc<Log>>,
}

impl Place {
    fn open(&mut self) -> Result<(), TaskError> {
        let open = |name| Log::open(&self.orders.logs, name).map(Arc::new).map_err(TaskError::permanent);
        (self.observed, self.attempts) = (Some(open(log::OBSERVED)?), Some(open(log::ATTEMPTS)?));
        Ok(())
    }

    fn observe(&self, text: &str) {
        if let Some(log) = &self.observed {
            log.append(text);
        }
    }

    /// Says when the first message came, if the log can be opened.
    fn first(&self) {
        if let Ok(log) = Log::open(&self.orders.logs, log::OPENED) {
            log.append(&format!("d {}", log::now_ms()));
        }
    }

    /// Says so if a parcel is not what was sent.
    fn check(&self, parcel: &Parcel) {
        if !parcel.is_whole() {
            self.observe(&format!("c {}", parcel.sequence));
        }
    }
}

macro_rules! place {
    ($name:ident) => {
        #[derive(Deserialize)]
        struct $name(Place);
    };
}

/// The first message that this process handles.
static FIRST: Once = Once::new();

place!(Pass);
place!(Left);
place!(Right);
place!(Sink);

impl Task for Pass {
    type In = Parcel;
    type Out = Parcel;

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        self.0.open()
    }

    async fn run(&self, parcel: Parcel, _cx: &Context) -> Result<Parcel, TaskError> {
        FIRST.call_once(|| self.0.first());
        self.0.check(&parcel);
        Ok(parcel)
    }
}

impl Task for Left {
    type In = Parcel;
    type Out = Parcel;

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        self.0.open()
    }

    async fn run(&self, parcel: Parcel, _cx: &Context) -> Result<Parcel, TaskError> {
        self.0.check(&parcel);
        Ok(Parcel { way: Some('L'), ..parcel })
    }
}

impl Task for Right {
    type In = Parcel;
    type Out = Parcel;

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        self.0.open()
    }

    async fn run(&self, parcel: Parcel, cx: &Context) -> Result<Parcel, TaskError> {
        self.0.check(&parcel);
        let Some(poison) = self.0.orders.poison_of(parcel.sequence) else {
            return Ok(Parcel { way: Some('R'), ..parcel });
        };
        if let Some(log) = &self.0.attempts {
            let process = std::process::id();
            log.append(&format!("t {} {} {} {process}", parcel.sequence, cx.attempt(), monotonic_ms()));
        }
        Err(fail(poison).await?.retry_after(Duration::from_millis(self.0.orders.retry_after_ms)))
    }
}

/// Fails in this way, if it comes back at all.
async fn fail(poison: Poison) -> Result<TaskError, TaskError> {
    match poison {
        Poison::Permanent => Err(std::io::Error::other("poison")).permanent(),
        Poison::Error => Ok(TaskError::retryable("poison")),
        Poison::Panic => panic!("poison"),
        Poison::Abort => std::process::abort(),
        Poison::Memory => {
            let mut taken: Vec<Vec<u8>> = Vec::new();
            loop {
                // Written to, or the kernel would not give it.
                taken.push(vec![1; 8 << 20]);
                std::hint::black_box(&taken);
            }
        }
        Poison::Hang => std::future::pending().await,
        Poison::Block => loop {
            std::thread::park();
        },
    }
}

/// Milliseconds since the first call in this process.
fn monotonic_ms() -> u128 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis()
}

impl Task for Sink {
    type In = Parcel;
    type Out = ();

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        self.0.open()
    }

    async fn run(&self, parcel: Parcel, cx: &Context) -> Result<(), TaskError> {
        let Place { orders, .. } = &self.0;
        self.0.check(&parcel);
        let began = Instant::now();
        while began.elapsed().as_millis() < u128::from(orders.hold_ms) && orders.logs.join(HOLD_FILE).exists() {
            tokio::time::sleep(HOLD_LOOK).await;
        }
        let (way, now) = (parcel.way.unwrap_or('?'), log::now_ms());
        self.0.observe(&format!("s {} {way} {} {} {now}", parcel.sequence, cx.message_id(), cx.attempt()));
        Ok(())
    }
}

const RETRY: Retry = Retry { attempts: 3, backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1) };

const fn task(name: &'static str, kind: Kind, routes: &'static [RouteDef]) -> TaskDef {
    TaskDef {
        project: NAME,
        topology: NAME,
        name,
        version: env!("CARGO_PKG_VERSION"),
        codec: Codec::Json,
        kind,
        retry: RETRY,
        timeout: Duration::from_secs(30),
        parallelism: 64,
        source: None,
        routes,
        ends: &[],
    }
}

macro_rules! edge {
    ($id:literal, $from:expr, $to:literal, $topic:literal) => {
        EdgeDef {
            id: $id,
            from: $from,
            to: $to,
            label: None,
            topic: $topic,
            subscription: $to,
            retry_topic: concat!($topic, "-", $to, "-RETRY"),
            dead_letter_topic: concat!($topic, "-", $to, "-DLQ"),
        }
    };
}

macro_rules! route {
    ($topic:literal) => {
        &[RouteDef { label: None, topic: $topic }]
    };
}

static START: TaskDef = task("start", Kind::Rust(open_task::<Pass>), route!("faults-start.out"));
static LEFT: TaskDef = task("left", Kind::Rust(open_task::<Left>), route!("faults-left.out"));
static RIGHT: TaskDef = task("right", Kind::Rust(open_task::<Right>), route!("faults-right.out"));
static JOIN: TaskDef = task("join", Kind::Rust(open_task::<Pass>), route!("faults-join.out"));
static SINK: TaskDef = task("sink", Kind::Rust(open_task::<Sink>), &[]);

/// The diamond with a tail.
pub(crate) static TOPOLOGY: TopologyDef = TopologyDef {
    name: NAME,
    project: NAME,
    version: env!("CARGO_PKG_VERSION"),
    description: "what crosses while faults come",
    codec: Codec::Json,
    tasks: &[&START, &LEFT, &RIGHT, &JOIN, &SINK],
    edges: &[
        edge!("[*]-->start", None, "start", "faults-start"),
        edge!("start-->left", Some("start"), "left", "faults-start.out"),
        edge!("start-->right", Some("start"), "right", "faults-start.out"),
        edge!("left-->join", Some("left"), "join", "faults-left.out"),
        edge!("right-->join", Some("right"), "join", "faults-right.out"),
        edge!("join-->sink", Some("join"), "sink", "faults-join.out"),
    ],
    drawings: Drawings { mermaid: "flowchart LR\n    start --> left & right --> join --> sink\n", dot: "", svg: "", text: "" },
};

/// The part of it that some tasks are, as a process has it that serves the edges to them and no others.
pub(crate) fn part(tasks: &[String]) -> &'static TopologyDef {
    let has = |name: &str| tasks.iter().any(|task| task == name);
    let defs: Vec<_> = TOPOLOGY.tasks.iter().copied().filter(|task| has(task.name)).collect();
    let edges: Vec<_> = TOPOLOGY.edges.iter().filter(|edge| has(edge.to)).cloned().collect();
    let TopologyDef { name, project, version, description, codec, drawings: Drawings { mermaid, dot, svg, text }, .. } = TOPOLOGY;
    let drawings = Drawings { mermaid, dot, svg, text };
    let (tasks, edges) = (Vec::leak(defs), Vec::leak(edges));
    Box::leak(Box::new(TopologyDef { name, project, version, description, codec, tasks, edges, drawings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_edges_to_its_tasks() {
        let part = part(&["left".to_owned(), "right".to_owned()]);
        let edges: Vec<_> = part.edges.iter().map(|edge| edge.id).collect();
        assert_eq!((part.tasks.len(), edges), (2, vec!["start-->left", "start-->right"]));
    }

    #[test]
    fn a_parcel_knows_whether_it_is_whole() {
        let parcel = Parcel::new(7, 50);
        assert!(parcel.is_whole());
        assert!(!Parcel { sequence: 8, ..parcel.clone() }.is_whole());
        let text = serde_json::to_string(&parcel).unwrap();
        let damaged = text.replacen(&parcel.filler[3..5], "..", 1);
        assert!(!serde_json::from_str::<Parcel>(&damaged).unwrap().is_whole());
    }
}
