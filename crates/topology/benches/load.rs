//! How long it takes to read and check a project, and how that grows with its tasks.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leatworks_topology::load_from;

/// A topology in which each task sends to the next two and has a text and a declaration.
fn member(tasks: usize) -> String {
    let mut graph = String::new();
    let mut declared = String::new();
    for n in 0..tasks {
        // Writing to a string cannot fail.
        let _ = writeln!(graph, "    task-{n}[Task {n}]");
        if n + 2 < tasks {
            let _ = writeln!(graph, "    task-{n} -->|next| task-{} & task-{}", n + 1, n + 2);
        }
        let _ = write!(declared, "\n[[topology.task]]\nname = \"task-{n}\"\ntimeout = \"10s\"\nretry = {{ attempts = 5 }}\n");
    }
    format!("[[topology]]\nname = \"all\"\ngraph = \"\"\"\nflowchart LR\n{graph}\"\"\"\n{declared}")
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    for tasks in [10, 100, 1_000, 5_000] {
        let member = member(tasks);
        let files = [("Project.toml", "[project]\nname = \"many\"\nmembers = [\"all.toml\"]\n"), ("all.toml", &*member)];
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_with_input(BenchmarkId::from_parameter(tasks), &files, |bencher, files| {
            bencher.iter(|| load_from(black_box(files)).expect("the project has nothing wrong"));
        });
    }
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
