//! `leat deploy`: shows the plan, applies the resource, and waits until it runs.

use super::{
    args::{Deploy, Wait},
    block_on, cluster, difference, render,
};
use crate::{
    args::Global,
    exit::{Code, Failure, Result, say},
    project::Found,
};
use leatworks_controller::{
    cluster::Cluster,
    crd::{Condition, State, Topology, TopologyStatus},
    names,
    plan::{Settings, Step},
    reconcile::{self, Preview},
    watch::Key,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often the resource is looked at while it is waited for.
const POLL: Duration = Duration::from_secs(1);

/// `leat deploy`.
pub(crate) fn deploy(args: &Deploy, global: &Global, found: &Found) -> Result {
    let mut resources = render::render(&args.render, found)?;
    block_on(async {
        let (cluster, namespace) = cluster(args.context.context.as_deref()).await?;
        let namespace = args.render.namespace.clone().unwrap_or(namespace);
        for resource in &mut resources {
            resource["metadata"]["namespace"] = namespace.as_str().into();
            show(&cluster, resource, args.diff).await?;
        }
        for resource in &resources {
            let applied = cluster.apply_topology(resource, args.dry_run.is_some()).await?;
            if !global.quiet {
                let how = if args.dry_run.is_some() { "Checked" } else { "Applied" };
                eprintln!("{how:>12} {} in {namespace}", name(&applied));
            }
        }
        if args.dry_run.is_none() && args.wait.wait {
            let deadline = Instant::now() + *args.wait.timeout;
            for resource in &resources {
                wait(&cluster, &namespace, name(resource), deadline, &args.wait, global.quiet).await?;
            }
        }
        Ok(())
    })
}

fn name(resource: &Value) -> &str {
    resource["metadata"]["name"].as_str().unwrap_or_default()
}

/// The plan as the controller will make it, as far as it can be known without the broker.
async fn show(cluster: &Cluster, resource: &Value, diff: bool) -> Result {
    let topology: Topology = serde_json::from_value(resource.clone()).map_err(|error| Failure::new(Code::Internal, error))?;
    let key = Key { namespace: topology.metadata.namespace.clone().unwrap_or_default(), name: name(resource).to_owned() };
    let live = cluster.topology(&key.namespace, &key.name).await?;
    let uid = live.as_ref().and_then(|live| live["metadata"]["uid"].as_str()).unwrap_or_default();
    // What runs jobs is the controller's affair.
    let settings = Settings { leat_image: Some("leat".to_owned()), jobs_account: Some("jobs".to_owned()) };
    let preview = reconcile::preview(cluster, &key, uid, &topology.spec, &settings).await?;
    let preview = preview.map_err(|why| Failure::new(Code::Invalid, format!("`{}` would be refused: {why}", key.name)))?;
    say!("{} in {}:", key.name, key.namespace);
    if preview.plan.steps.is_empty() && preview.plan.retiring.is_empty() {
        say!("  nothing changes");
    }
    for step in &preview.plan.steps {
        tell(step, &preview, live.is_none(), diff);
    }
    for entry in &preview.plan.retiring {
        say!("  - edge {}: its backlog: {:?}", entry.edge, entry.policy);
    }
    Ok(())
}

fn tell(step: &Step, preview: &Preview, is_new: bool, diff: bool) {
    match step {
        Step::Subscribe | Step::Unsubscribe(_) => {}
        Step::Delete { kind, name, .. } => say!("  - {} {name}", kind.names().1),
        Step::Apply { object, .. } => {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let live = preview.live(kind, name);
            let part = [names::EDGE, names::TASK].iter().find_map(|label| {
                let metadata = &object["metadata"];
                metadata["annotations"].get(label).or_else(|| metadata["labels"].get(label))?.as_str()
            });
            say!(
                "  {} {kind} {name}{}",
                if live.is_some() { '~' } else { '+' },
                part.map(|part| format!("  ({part})")).unwrap_or_default()
            );
            if let Some(live) = live.filter(|_| diff && !is_new) {
                let mut desired = object.clone();
                if let Some(annotations) = desired["metadata"]["annotations"].as_object_mut() {
                    annotations.remove(names::APPLIED);
                }
                difference::lines(live, &desired).iter().for_each(|line| say!("      {line}"));
            }
        }
    }
}

/// Waits until a topology is ready as it is asked for now.
pub(super) async fn wait(cluster: &Cluster, namespace: &str, name: &str, deadline: Instant, args: &Wait, quiet: bool) -> Result {
    let mut told = String::new();
    loop {
        let live = cluster.topology(namespace, name).await?;
        let Some(live) = live else { return Err(Failure::new(Code::Nothing, format!("`{name}` was removed meanwhile"))) };
        let status: TopologyStatus = serde_json::from_value(live["status"].clone()).unwrap_or_default();
        let is_current = status.observed_generation == live["metadata"]["generation"].as_i64();
        let message = match status.conditions.iter().find(|condition| condition.kind == "Ready") {
            Some(ready) if is_current => ready.message.clone(),
            _ => "waiting for the controller".to_owned(),
        };
        if is_current && status.state == Some(State::Ready) {
            if !quiet {
                eprintln!("{:>12} {name}: tasks {}, edges {}", "Ready", shown(&status.tasks_ready), shown(&status.edges_ready));
            }
            return Ok(());
        }
        if is_current && status.state == Some(State::Refused) {
            return Err(Failure::new(Code::Invalid, format!("`{name}` is refused: {message}")));
        }
        if !quiet && message != told {
            eprintln!("{:>12} {name}: {message}", "Waiting");
            told = message;
        }
        if Instant::now() >= deadline {
            let parts = status
                .tasks
                .iter()
                .chain(&status.edges)
                .filter_map(|part| Some(format!("\n  {}: {}", part.name, part.message.as_ref()?)));
            let conditions = status.conditions.iter().filter(|condition| condition.status == "False").map(line);
            let all: String = conditions.chain(parts).collect();
            return Err(Failure::new(Code::TimedOut, format!("`{name}` is not ready after {}:{all}", args.timeout)));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn shown(count: &Option<String>) -> &str {
    count.as_deref().unwrap_or("?")
}

fn line(condition: &Condition) -> String {
    format!("\n  {}: {}", condition.kind, condition.message)
}
