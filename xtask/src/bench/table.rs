//! The comparison with the real Pulsar, for people.

use super::{
    machine::Busy,
    pulsar::{Report, Run},
};

/// Threads of the server that are named.
const THREADS: usize = 4;

/// Says what one job gave, while others are still to come.
pub(super) fn tell(run: &Run) {
    let figures: Vec<String> = run.figures.iter().map(|(name, figure)| format!("{name} {}", short(*figure))).collect();
    println!("round {} {:<6} {} {:<8} {}", run.round + 1, run.server, run.client, run.job, figures.join(", "));
    println!("        {}", busy(&run.busy));
}

/// Which processes kept the cores busy.
pub(super) fn busy(busy: &Busy) -> String {
    let threads: Vec<String> = busy.threads.iter().take(THREADS).map(|(name, cores)| format!("{name} {cores:.2}")).collect();
    format!(
        "cores: server {:.2} ({}), clients {:.2}, others {:.2}",
        busy.server_cores,
        threads.join(", "),
        busy.clients_cores,
        busy.others_cores
    )
}

/// Prints everything.
pub(super) fn print(report: &Report) {
    println!("\n{}\n{}", report.leat, report.pulsar);
    println!(
        "messages of {} bytes; produce, consume and both: batches of up to 1,000 within 1 ms, 10,000 without a receipt at most; latency: {} a second, \
         without batches\nconsume: on a Shared subscription, each message acknowledged by itself; pulsar-perf groups what it sends of that within 100 ms",
        report.message_bytes, report.rate_per_s
    );
    for disk in &report.disk {
        println!(
            "round {}, before {:<6}: a sync of 4 KiB takes {:.2} ms, the slowest hundredth {:.2} ms",
            disk.round + 1,
            disk.before,
            disk.sync_p50_ms,
            disk.sync_p99_ms
        );
    }
    println!("\n{:<42} {:>20} {:>20} {:>7}  target", "", "leat", "pulsar", "ratio");
    for target in &report.targets {
        let rounds = |server| {
            let mut words = target.name.split(" / ");
            let mut word = || words.next().unwrap_or_default();
            let rounds = report.rounds(server, word(), word(), word());
            rounds.iter().map(|figure| short(*figure)).collect::<Vec<_>>().join(" | ")
        };
        let verdict = if target.met { "met" } else { "MISSED" };
        println!(
            "{:<42} {:>20} {:>20} {:>7.2}  {} {:.2}: {verdict}",
            target.name,
            rounds("leat"),
            rounds("pulsar"),
            target.figure,
            target.comparison,
            target.target
        );
        if let Some(profile) = &target.profile {
            println!("    {profile}");
        }
    }
}

fn short(figure: f64) -> String {
    if figure >= 1_000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}
