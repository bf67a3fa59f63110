//! Progress of a run on standard error: bars by edge on a terminal, otherwise a line from time to time.

use crate::{counts::Counts, def::TopologyDef, topics};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use leatworks_broker::Broker;
use std::{
    io::IsTerminal,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// How often bars are drawn: often enough to look alive.
const DRAW: Duration = Duration::from_millis(100);

/// The same where another system is asked what is pending, which takes a request for each topic.
const DRAW_FAR: Duration = Duration::from_secs(1);

/// How often a line is written where nobody watches.
const LINE: Duration = Duration::from_secs(10);

/// Shows progress until the returned handle is dropped.
pub(crate) fn show(topology: &'static TopologyDef, counts: Arc<Counts>, broker: Arc<dyn Broker>, quiet: bool) -> Progress {
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let bars = (terminal && !quiet).then(|| Bars::new(topology));
    let shown = bars.clone();
    let task = (!quiet).then(|| {
        tokio::spawn(async move {
            match shown {
                Some(bars) => bars.draw(topology, &counts, broker.as_ref()).await,
                None => lines(topology, &counts).await,
            }
        })
    });
    Progress { task, bars }
}

/// Progress that is being shown.
pub(crate) struct Progress {
    task: Option<tokio::task::JoinHandle<()>>,
    bars: Option<Bars>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }
}

#[derive(Clone)]
struct Bars {
    all: MultiProgress,
    edges: Vec<ProgressBar>,
}

impl Bars {
    fn new(topology: &'static TopologyDef) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let width = topology.edges.iter().map(|edge| edge.id.len()).max().unwrap_or_default();
        let template = format!("{{prefix:>{width}}} {{bar:30}} {{pos:>9}}/{{len}} {{msg}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let edges = topology.edges.iter().map(|edge| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style.clone().progress_chars("━╸ "));
            bar.set_prefix(edge.id);
            bar
        });
        let edges = edges.collect();
        Self { all, edges }
    }

    async fn draw(&self, topology: &'static TopologyDef, counts: &Counts, broker: &dyn Broker) {
        let pause = if broker.promises().accounts { DRAW } else { DRAW_FAR };
        loop {
            tokio::time::sleep(pause).await;
            // A broker that fails ends the run with its own words.
            let Ok(stats) = broker.stats().await else { return };
            for ((bar, edge), counted) in self.edges.iter().zip(topology.edges).zip(counts.edges()) {
                let pending = topics::pending_in(&stats, &[edge]);
                let settled = counted.settled.load(Relaxed);
                bar.set_length(settled + pending.messages);
                bar.set_position(settled);
                let dead = counted.dead.load(Relaxed);
                if dead > 0 {
                    bar.set_message(format!("{dead} given up"));
                }
            }
        }
    }

    fn clear(&self) {
        // A terminal that has gone needs no clearing.
        let _ = self.all.clear();
    }
}

async fn lines(topology: &'static TopologyDef, counts: &Counts) {
    loop {
        tokio::time::sleep(LINE).await;
        let tasks = counts.tasks();
        let handled: u64 = tasks.values().map(|task| task.handled).sum();
        let by_task: Vec<String> =
            topology.tasks.iter().filter_map(|task| Some(format!("{} {}", task.name, tasks.get(task.name)?.handled))).collect();
        super::output::tell(&format!(
            "{:>12} {}: {handled} handled ({}), {} given up",
            "Running",
            topology.name,
            by_task.join(", "),
            counts.dead_letters()
        ));
    }
}
