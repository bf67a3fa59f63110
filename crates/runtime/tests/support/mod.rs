//! Topologies that are put together by hand, and runs of them on the memory broker.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this module")]

use leatworks::{
    Counts, DeadLetter,
    broker::{Broker, Limits, MemoryBroker},
    control::{Filter, Request, Response, perform},
    def::*,
    plan::Plan,
    run::{Report, RunError, RunOptions, Stop, run},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// A task of a graph under test.
pub struct Node {
    name: &'static str,
    kind: Kind,
    retry: Retry,
    timeout: Duration,
    parallelism: usize,
    source: Option<BuiltinDef>,
    ends: &'static [&'static str],
}

pub fn node(name: &'static str, kind: Kind) -> Node {
    let retry = Retry { attempts: 3, backoff: Duration::from_millis(5), max_backoff: Duration::from_millis(20) };
    Node { name, kind, retry, timeout: Duration::from_secs(30), parallelism: 1, source: None, ends: &[] }
}

impl Node {
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.retry.attempts = attempts;
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn parallelism(mut self, parallelism: usize) -> Self {
        self.parallelism = parallelism;
        self
    }

    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    pub fn ends(mut self, ends: &'static [&'static str]) -> Self {
        self.ends = ends;
        self
    }

    pub fn source(mut self, kind: &'static str, options: impl Into<String>) -> Self {
        self.source = Some(BuiltinDef { kind, options: leak(options.into()) });
        self
    }
}

pub fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A topology; edges are `a-->b` or `a-->|label|b`. Tasks are given in topological order.
pub fn topology(name: &'static str, nodes: Vec<Node>, edges: &[&'static str]) -> &'static TopologyDef {
    topology_with(name, Codec::Json, nodes, edges)
}

pub fn topology_with(name: &'static str, codec: Codec, nodes: Vec<Node>, edges: &[&'static str]) -> &'static TopologyDef {
    let mut defs = Vec::new();
    for edge in edges {
        let (from, rest) = edge.split_once("-->").expect("an edge");
        let (label, to) = match rest.strip_prefix('|') {
            Some(rest) => rest.split_once('|').map(|(label, to)| (Some(label), to)).expect("a label"),
            None => (None, rest),
        };
        let topic = match label {
            Some(label) => format!("{name}-{from}.out.{label}"),
            None => format!("{name}-{from}.out"),
        };
        defs.push(edge_def(edge, Some(from), to, label, leak(topic)));
    }
    let roots = nodes.iter().filter(|node| !defs.iter().any(|edge| edge.to == node.name));
    let mut all: Vec<EdgeDef> = roots
        .map(|node| edge_def(leak(format!("[*]-->{}", node.name)), None, node.name, None, leak(format!("{name}-{}", node.name))))
        .collect();
    all.extend(defs);
    let edges: &'static [EdgeDef] = Box::leak(all.into_boxed_slice());
    let tasks: Vec<&'static TaskDef> = nodes.into_iter().map(|node| task_def(name, codec, node, edges)).collect();
    let drawings = Drawings { mermaid: "flowchart LR", dot: "digraph {}", svg: "<svg/>", text: name };
    Box::leak(Box::new(TopologyDef {
        name,
        project: "test",
        version: "0",
        description: "",
        codec,
        tasks: Box::leak(tasks.into_boxed_slice()),
        edges,
        drawings,
    }))
}

fn task_def(topology: &'static str, codec: Codec, node: Node, edges: &'static [EdgeDef]) -> &'static TaskDef {
    let mut routes: Vec<RouteDef> = Vec::new();
    for edge in edges.iter().filter(|edge| edge.from == Some(node.name)) {
        let route = RouteDef { label: edge.label, topic: edge.topic };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    Box::leak(Box::new(TaskDef {
        project: "test",
        topology,
        name: node.name,
        version: "0",
        codec,
        kind: node.kind,
        retry: node.retry,
        timeout: node.timeout,
        parallelism: node.parallelism,
        source: node.source,
        routes: Box::leak(routes.into_boxed_slice()),
        ends: node.ends,
    }))
}

fn edge_def(
    id: &'static str,
    from: Option<&'static str>,
    to: &'static str,
    label: Option<&'static str>,
    topic: &'static str,
) -> EdgeDef {
    EdgeDef {
        id,
        from,
        to,
        label,
        topic,
        subscription: to,
        retry_topic: leak(format!("{topic}-{to}-RETRY")),
        dead_letter_topic: leak(format!("{topic}-{to}-DLQ")),
    }
}

pub fn memory() -> Arc<dyn Broker> {
    Arc::new(MemoryBroker::new(Limits::default()))
}

/// Runs a topology to its end.
pub async fn run_with(broker: Arc<dyn Broker>, topology: &'static TopologyDef, options: RunOptions) -> Result<Report, RunError> {
    let (_stop, stopped) = watch::channel(Stop::Run);
    let plan = Plan::new(topology, std::env::temp_dir());
    run(broker, plan, options, Arc::new(Counts::new(topology)), stopped).await
}

/// Runs a topology in which every root is `{}`-like JSON, given by number.
pub async fn run_roots(broker: Arc<dyn Broker>, topology: &'static TopologyDef, roots: u64) -> Report {
    let options = RunOptions { serve: true, ..RunOptions::default() };
    let (stop, stopped) = watch::channel(Stop::Run);
    leatworks::topics::create(broker.as_ref(), &topology.into()).await.expect("topics");
    send(&broker, topology, (0..roots).map(|number| number.to_string())).await;
    let plan = Plan::new(topology, std::env::temp_dir());
    let running = tokio::spawn(run(broker, plan, options, Arc::new(Counts::new(topology)), stopped));
    // Serving until asked to drain, which waits for all that is pending.
    stop.send(Stop::Drain).expect("the run listens");
    running.await.expect("no panic").expect("the run ends well")
}

/// Sends roots to the first ingress.
pub async fn send(broker: &Arc<dyn Broker>, topology: &TopologyDef, roots: impl Iterator<Item = String>) {
    let topic: Arc<str> = topology.edges[0].topic.into();
    let batch = roots
        .map(|text| leatworks::broker::Publish {
            topic: topic.clone(),
            message: leatworks::new_root(text.into(), Codec::Json, None).into(),
            sequence: None,
        })
        .collect();
    broker.publish(batch).await.expect("published");
}

/// What a topology has given up, the first hundred of it.
pub async fn dead_letters(broker: &Arc<dyn Broker>, topology: &'static TopologyDef) -> Vec<DeadLetter> {
    let request = Request::DeadLetters { topology: topology.into(), filter: Filter::default(), limit: 100 };
    match perform(broker.as_ref(), request, false).await {
        Response::DeadLetters(listed) => listed.letters,
        other => panic!("{other:?}"),
    }
}
