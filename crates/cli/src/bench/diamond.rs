//! The topology that is measured: `a --> b & c --> d`, four edges, every task passing its message on.

use leatworks::{
    Codec, Context, Task, TaskError,
    def::{Drawings, EdgeDef, Kind, Retry, RouteDef, TaskDef, TopologyDef},
    open_task,
};
use std::time::Duration;

/// Edges of the diamond that one root crosses: `a-->b`, `a-->c`, `b-->d`, `c-->d`. The way in is not counted.
pub(crate) const HOPS_PER_ROOT: u64 = 4;

/// Messages of one edge that are handled at once: enough that the edge's work, not the wait for one commit, is what is measured.
const PARALLELISM: usize = 256;

const RETRY: Retry = Retry { attempts: 3, backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1) };

/// Gives what it gets.
#[derive(serde::Deserialize)]
pub(crate) struct Pass;

impl Task for Pass {
    type In = String;
    type Out = String;

    async fn run(&self, message: String, _cx: &Context) -> Result<String, TaskError> {
        Ok(message)
    }
}

#[derive(serde::Deserialize)]
struct End;

impl Task for End {
    type In = String;
    type Out = ();

    async fn run(&self, _message: String, _cx: &Context) -> Result<(), TaskError> {
        Ok(())
    }
}

const fn task(name: &'static str, kind: Kind, routes: &'static [RouteDef]) -> TaskDef {
    TaskDef {
        project: "bench",
        topology: "bench",
        name,
        version: env!("CARGO_PKG_VERSION"),
        codec: Codec::Json,
        kind,
        retry: RETRY,
        timeout: Duration::from_secs(30),
        parallelism: PARALLELISM,
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

static A: TaskDef = task("a", Kind::Rust(open_task::<Pass>), &[RouteDef { label: None, topic: "bench-a.out" }]);
static B: TaskDef = task("b", Kind::Rust(open_task::<Pass>), &[RouteDef { label: None, topic: "bench-b.out" }]);
static C: TaskDef = task("c", Kind::Rust(open_task::<Pass>), &[RouteDef { label: None, topic: "bench-c.out" }]);
static D: TaskDef = task("d", Kind::Rust(open_task::<End>), &[]);

/// The diamond.
pub(crate) static DIAMOND: TopologyDef = TopologyDef {
    name: "bench",
    project: "bench",
    version: env!("CARGO_PKG_VERSION"),
    description: "the diamond that leat bench measures",
    codec: Codec::Json,
    tasks: &[&A, &B, &C, &D],
    edges: &[
        edge!("[*]-->a", None, "a", "bench-a"),
        edge!("a-->b", Some("a"), "b", "bench-a.out"),
        edge!("a-->c", Some("a"), "c", "bench-a.out"),
        edge!("b-->d", Some("b"), "d", "bench-b.out"),
        edge!("c-->d", Some("c"), "d", "bench-c.out"),
    ],
    drawings: Drawings { mermaid: "flowchart LR\n    a --> b & c --> d\n", dot: "", svg: "", text: "a --> b & c --> d" },
};
