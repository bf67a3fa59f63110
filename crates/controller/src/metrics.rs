//! What the controller counts, as Prometheus reads it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The upper bounds of the time of a reconciliation, in seconds.
const BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// Counters and gauges.
#[derive(Default)]
pub struct Metrics {
    silences: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    leads: bool,
    calls: BTreeMap<&'static str, u64>,
    results: BTreeMap<&'static str, u64>,
    buckets: [u64; BOUNDS.len()],
    seconds: f64,
    count: u64,
    /// The state of each topology, by namespace and name.
    states: BTreeMap<(String, String), &'static str>,
    /// The backlog of edges, by namespace, topology and edge.
    backlogs: BTreeMap<(String, String, String), i64>,
}

impl Metrics {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call to the API server.
    pub fn called(&self, verb: &'static str) {
        *self.inner().calls.entry(verb).or_default() += 1;
    }

    /// Whether this controller leads. One that does not knows nothing of topologies: the last numbers of an earlier leader would stand beside those of the
    /// present one, and an autoscaler takes the largest.
    pub fn leads(&self, leads: bool) {
        let mut inner = self.inner();
        inner.leads = leads;
        if !leads {
            inner.states.clear();
            inner.backlogs.clear();
        }
    }

    /// A watch that said nothing for too long.
    pub fn silence(&self) {
        self.silences.fetch_add(1, Relaxed);
    }

    /// A reconciliation.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        let mut inner = self.inner();
        *inner.results.entry(result).or_default() += 1;
        inner.count += 1;
        inner.seconds += took.as_secs_f64();
        for (bucket, bound) in inner.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(took.as_secs_f64() <= bound);
        }
    }

    /// How a topology is; `None` if it is gone.
    pub fn state(&self, namespace: &str, name: &str, state: Option<&'static str>) {
        let mut inner = self.inner();
        let key = (namespace.to_owned(), name.to_owned());
        match state {
            Some(state) if inner.leads => drop(inner.states.insert(key, state)),
            Some(_) => {}
            None => {
                inner.states.remove(&key);
                inner.backlogs.retain(|(of, topology, _), _| of != namespace || topology != name);
            }
        }
    }

    /// The backlog of an edge. A reconciliation that is cut off while the lead is lost may still come here, and is not heard.
    pub fn backlog(&self, namespace: &str, topology: &str, edge: String, messages: i64) {
        let mut inner = self.inner();
        if inner.leads {
            inner.backlogs.insert((namespace.to_owned(), topology.to_owned(), edge), messages);
        }
    }

    /// Which edges of a topology are scaled by their backlog; what is known of others is forgotten.
    pub fn scaled(&self, namespace: &str, topology: &str, edges: &[String]) {
        let is_other = |of: &str, name: &str| of != namespace || name != topology;
        self.inner().backlogs.retain(|(of, name, edge), _| is_other(of, name) || edges.contains(edge));
    }

    /// How many calls of these verbs were made.
    pub fn calls(&self, verbs: &[&str]) -> u64 {
        self.inner().calls.iter().filter(|(verb, _)| verbs.contains(*verb)).map(|(_, count)| count).sum()
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let inner = self.inner();
        let mut family = |name: &str, kind: &str, help: &str, values: Vec<(String, String)>| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        let one = |value: u64| vec![(String::new(), value.to_string())];
        let by = |label: &str, counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, count)| (format!("{{{label}=\"{name}\"}}"), count.to_string())).collect()
        };
        family("leatworks_controller_leader", "gauge", "Whether this controller leads.", one(inner.leads.into()));
        family("leatworks_controller_api_calls_total", "counter", "Calls to the API server.", by("verb", &inner.calls));
        family(
            "leatworks_controller_reconciles_total",
            "counter",
            "Reconciliations by how they ended.",
            by("result", &inner.results),
        );
        family(
            "leatworks_controller_watch_silences_total",
            "counter",
            "Watches that said nothing for too long.",
            one(self.silences.load(Relaxed)),
        );
        let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
        inner.states.values().for_each(|state| *states.entry(state).or_default() += 1);
        family("leatworks_topologies", "gauge", "Topologies by their state.", by("state", &states));
        let backlogs = inner.backlogs.iter().map(|((namespace, topology, edge), messages)| {
            (format!("{{namespace=\"{namespace}\",topology=\"{topology}\",edge=\"{edge}\"}}"), messages.to_string())
        });
        family("leatworks_edge_backlog", "gauge", "Messages that wait on an edge that is scaled by them.", backlogs.collect());
        let name = "leatworks_controller_reconcile_seconds";
        let _ = writeln!(out, "# HELP {name} How long a reconciliation takes.\n# TYPE {name} histogram");
        for (bucket, bound) in inner.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {0}\n{name}_sum {1}\n{name}_count {0}", inner.count, inner.seconds);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that tell of topologies and their edges.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let is_ours = |line: &&str| line.starts_with("leatworks_topologies{") || line.starts_with("leatworks_edge_backlog{");
        metrics.text().lines().filter(is_ours).map(str::to_owned).collect()
    }

    #[test]
    fn who_does_not_lead_says_nothing_of_topologies() {
        let metrics = Metrics::default();
        let tell = || {
            metrics.state("shop", "orders", Some("Ready"));
            metrics.backlog("shop", "orders", "a.b".to_owned(), 7);
        };
        metrics.leads(true);
        tell();
        assert_eq!(
            lines(&metrics),
            [
                "leatworks_topologies{state=\"Ready\"} 1",
                "leatworks_edge_backlog{namespace=\"shop\",topology=\"orders\",edge=\"a.b\"} 7"
            ]
        );
        metrics.leads(false);
        assert_eq!(lines(&metrics), Vec::<String>::new(), "another leads, and knows better");
        tell();
        assert_eq!(lines(&metrics), Vec::<String>::new(), "what is cut off comes too late");
        metrics.leads(true);
        assert_eq!(lines(&metrics), Vec::<String>::new(), "nothing comes back");
    }

    #[test]
    fn an_edge_that_is_no_longer_scaled_has_no_backlog() {
        let metrics = Metrics::default();
        metrics.leads(true);
        for (namespace, topology, edge) in [("n", "t", "a.b"), ("n", "t", "b.c"), ("n", "u", "a.b"), ("m", "t", "a.b")] {
            metrics.backlog(namespace, topology, edge.to_owned(), 1);
        }
        metrics.scaled("n", "t", &["b.c".to_owned()]);
        let found = lines(&metrics);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(!found.iter().any(|line| line.contains("namespace=\"n\",topology=\"t\",edge=\"a.b\"")), "{found:?}");
    }
}
