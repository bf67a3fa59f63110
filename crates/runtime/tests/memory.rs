//! What is done leaves nothing behind in memory. Alone in its file, so that no other test shares the process.

mod support;

use leatworks::{Context, Task, TaskError, broker::Broker, def::Kind, open_task, run::RunOptions, source::Line};
use std::{fs, sync::Arc};
use support::*;

/// A root that gives nothing, very often, leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_takes_no_memory() {
    const LINES: u64 = 60_000;
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.txt");
    fs::write(&input, "a line\n".repeat(LINES as usize)).unwrap();
    let nothing =
        node("nothing", Kind::Rust(open_task::<Nothing>)).source("lines", serde_json::json!({ "path": input }).to_string());
    let behind = node("behind", Kind::Rust(open_task::<Nothing>));
    let topology = topology("nothing", vec![nothing, behind], &["nothing-->behind"]);
    let broker = memory();
    let resident = |broker: Arc<dyn Broker>| async move {
        let report = run_with(broker, topology, RunOptions::default()).await.unwrap();
        assert_eq!((report.done, report.tasks["behind"].handled), (LINES, 0));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    // The first run fills the buffers and the allocator's pools; what each later one leaves behind would add up.
    let first = resident(broker.clone()).await;
    let mut last = first;
    for _ in 0..3 {
        last = resident(broker.clone()).await;
    }
    // 180,000 roots more at 64 bytes each would be 11 MB; the allocator may keep a little.
    assert!(last < first + 8 * 1024, "{first} kB grew to {last} kB");
}

#[derive(serde::Deserialize)]
struct Nothing;

impl Task for Nothing {
    type In = Line;
    type Out = Line;

    async fn run(&self, _line: Line, _cx: &Context) -> Result<Vec<Line>, TaskError> {
        Ok(Vec::new())
    }
}
