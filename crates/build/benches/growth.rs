//! How long it takes to parse, check and generate a topology, and how that grows with its tasks.
//!
//! `cargo bench -p leatworks-build` prints the best of some runs for 10, 100 and 1,000 tasks, and whether a thousand stay below a second. It
//! asserts nothing.

use leatworks_build::{Package, generate};
use leatworks_topology::load_from;
use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

/// Runs of each size; the best one says most about the code and least about the machine.
const RUNS: usize = 5;

/// What a thousand tasks may take.
const LIMIT: Duration = Duration::from_secs(1);

fn main() {
    println!(
        "{:>6}  {:>12}  {:>12}  {:>12}  {:>10}  {:>12}",
        "tasks", "parse+check", "generate", "together", "per task", "bytes"
    );
    let totals: Vec<Duration> = [10, 100, 1_000].into_iter().map(measure).collect();
    println!("a tenfold size takes {:.1} and {:.1} times as long", ratio(totals[1], totals[0]), ratio(totals[2], totals[1]));
    let verdict = if totals[2] < LIMIT { "met" } else { "missed" };
    println!("1,000 tasks take {:.2} of the limit of {LIMIT:?}: {verdict}", ratio(totals[2], LIMIT));
}

fn ratio(larger: Duration, smaller: Duration) -> f64 {
    larger.as_secs_f64() / smaller.as_secs_f64()
}

fn measure(tasks: usize) -> Duration {
    let root = "[project]\nname = \"bench\"\nmembers = [\"bench.toml\"]\n";
    let member = member(tasks);
    let package = Package { library: "bench".to_owned(), version: "0.1.0".to_owned() };
    let run = || {
        let begun = Instant::now();
        let project = load_from(&[("Project.toml", root), ("bench.toml", member.as_str())]);
        let project = project.unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)));
        let loaded = begun.elapsed();
        let generated = generate(black_box(&project), &package).unwrap_or_else(|error| panic!("{error}"));
        let bytes: usize = generated.files.iter().map(|file| file.text.len()).sum();
        (begun.elapsed(), loaded, bytes)
    };
    let (total, loaded, bytes) = (0..RUNS).map(|_| run()).min().expect("some runs");
    let per_task = total / u32::try_from(tasks).expect("few tasks");
    println!("{tasks:>6}  {loaded:>12.2?}  {:>12.2?}  {total:>12.2?}  {per_task:>10.2?}  {bytes:>12}", total - loaded);
    total
}

/// Layers of ten tasks, each giving to two of the next layer, a third of them by labels; each with a table of its own.
fn member(tasks: usize) -> String {
    let mut graph = String::from("flowchart LR\n");
    let mut tables = String::new();
    for task in 0..tasks {
        for step in [10, 11] {
            let (next, label) = (task + step, if task % 3 == 0 { format!("|way-{step}|") } else { String::new() });
            if next < tasks {
                writeln!(graph, "    task-{task}[Task {task}] -->{label} task-{next}").expect("a string takes all");
            }
        }
        writeln!(tables, "[[topology.task]]\nname = \"task-{task}\"\nparallelism = 2").expect("a string takes all");
    }
    // Ten tasks alone are one layer, so they make a chain.
    if tasks <= 10 {
        graph =
            (1..tasks).fold("flowchart LR\n".to_owned(), |graph, task| format!("{graph}    task-{} --> task-{task}\n", task - 1));
    }
    format!("[[topology]]\nname = \"bench\"\ngraph = \"\"\"\n{graph}\"\"\"\n{tables}")
}
