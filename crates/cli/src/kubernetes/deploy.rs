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
    cluster::{Cluster, ClusterError},
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
    let waited = wait_by(async || cluster.topology(namespace, name).await, name, deadline, args, quiet).await;
    match waited {
        Err(Failure { code: Code::TimedOut, message }) => {
            Err(Failure::new(Code::TimedOut, format!("{message}{}", pods(cluster, namespace, name).await)))
        }
        ended => ended,
    }
}

/// How many pods are named that do not run, each with its reason: the others mostly have the same.
const PODS_MAX: usize = 5;

/// The pods of a topology that wait for something, by lines.
async fn pods(cluster: &Cluster, namespace: &str, name: &str) -> String {
    let pods = match cluster.pods(namespace, name).await {
        Ok(pods) => pods,
        Err(error) => return format!("\n  its pods: {error}"),
    };
    let waiting: Vec<String> = pods.iter().filter_map(pod).collect();
    let more = waiting.len().saturating_sub(PODS_MAX);
    let more = if more > 0 { format!("\n  and {more} more pods") } else { String::new() };
    waiting.into_iter().take(PODS_MAX).collect::<String>() + &more
}

/// A pod that waits for something, and for what.
fn pod(pod: &Value) -> Option<String> {
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let unscheduled = list("/status/conditions").find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    let containers = || list("/status/initContainerStatuses").chain(list("/status/containerStatuses"));
    // This is how each container begins.
    let begins = |reason: &Value| reason == "ContainerCreating" || reason == "PodInitializing";
    let waiting = containers().map(|one| &one["state"]["waiting"]).find(|one| one.is_object() && !begins(&one["reason"]));
    // Why it was started anew is said by its last end.
    let ended = containers().map(|one| &one["lastState"]["terminated"]).find(|one| one.is_object());
    let why = unscheduled.or(waiting)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().replace('\n', " ");
    let last = ended.map(|one| format!("; its last end: {} {}", text(&one["reason"]), one["exitCode"])).unwrap_or_default();
    let metadata = &pod["metadata"];
    let part = metadata["annotations"].get(names::EDGE).or_else(|| metadata["labels"].get(names::TASK));
    let part = part.and_then(Value::as_str).map(|part| format!(" ({part})")).unwrap_or_default();
    Some(format!("\n  pod {}{part}: {}: {}{last}", text(&metadata["name"]), text(&why["reason"]), text(&why["message"])))
}

/// Looks again and again. An API server that is busy, or is started anew meanwhile, may leave a look without an answer; the next one may have it.
async fn wait_by(
    look: impl AsyncFn() -> std::result::Result<Option<Value>, ClusterError>,
    name: &str,
    deadline: Instant,
    args: &Wait,
    quiet: bool,
) -> Result {
    let mut told = String::new();
    loop {
        let (message, missing) = match look().await {
            Ok(None) => return Err(Failure::new(Code::Nothing, format!("`{name}` was removed meanwhile"))),
            Ok(Some(live)) => match judge(&live, name, quiet) {
                Judged::Over(end) => return end,
                Judged::Waiting(message, missing) => (message, missing),
            },
            Err(error) => {
                let message = format!("the API server: {error}");
                (message.clone(), format!("\n  {message}"))
            }
        };
        if !quiet && message != told {
            eprintln!("{:>12} {name}: {message}", "Waiting");
            told = message;
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(Code::TimedOut, format!("`{name}` is not ready after {}:{missing}", args.timeout)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a look has shown.
enum Judged {
    /// It need not be waited for any more.
    Over(Result),
    /// What is waited for in a few words, and all that is not as it should be, by lines.
    Waiting(String, String),
}

fn judge(live: &Value, name: &str, quiet: bool) -> Judged {
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
        return Judged::Over(Ok(()));
    }
    if is_current && status.state == Some(State::Refused) {
        return Judged::Over(Err(Failure::new(Code::Invalid, format!("`{name}` is refused: {message}"))));
    }
    let parts = status
        .tasks
        .iter()
        .chain(&status.edges)
        .filter_map(|part| Some(format!("\n  {}: {}", part.name, part.message.as_ref()?)));
    let conditions = status.conditions.iter().filter(|condition| condition.status == "False").map(line);
    Judged::Waiting(message, conditions.chain(parts).collect())
}

fn shown(count: &Option<String>) -> &str {
    count.as_deref().unwrap_or("?")
}

fn line(condition: &Condition) -> String {
    format!("\n  {}: {}", condition.kind, condition.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::RefCell;

    /// Waits by these looks, which come one after another; the last one comes again and again.
    fn waited(mut looks: Vec<std::result::Result<Value, &'static str>>, deadline: Instant) -> (Result, usize) {
        looks.reverse();
        let (looks, count) = (RefCell::new(looks), RefCell::new(0));
        let look = async || {
            *count.borrow_mut() += 1;
            let mut looks = looks.borrow_mut();
            let next = if looks.len() > 1 { looks.pop() } else { looks.last().cloned() };
            next.expect("a look").map(Some).map_err(|why| ClusterError::TimedOut(why.to_owned()))
        };
        let args = Wait { wait: true, timeout: Duration::from_secs(1).into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(wait_by(look, "orders", deadline, &args, true));
        (ended, count.into_inner())
    }

    fn live(state: &str) -> Value {
        json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 2, "state": state } })
    }

    #[test]
    fn a_pod_that_waits_says_for_what() {
        let status = |of: &str, state: Value| json!({ "metadata": { "name": "p", "labels": { names::TASK: "a" } }, "status": { of: [state] } });
        let waits =
            |reason: &str| json!({ "state": { "waiting": { "reason": reason, "message": "no\nimage" } }, "lastState": {} });
        let crashed = json!({ "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } }, "lastState": { "terminated": { "reason": "Error", "exitCode": 3 } } });
        let unscheduled = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes" });
        for (found, expected) in [
            (status("containerStatuses", waits("ErrImagePull")), Some("\n  pod p (a): ErrImagePull: no image")),
            (status("initContainerStatuses", waits("ErrImagePull")), Some("\n  pod p (a): ErrImagePull: no image")),
            (status("containerStatuses", crashed), Some("\n  pod p (a): CrashLoopBackOff: back-off; its last end: Error 3")),
            (status("conditions", unscheduled), Some("\n  pod p (a): Unschedulable: 0/1 nodes")),
            (status("containerStatuses", waits("ContainerCreating")), None),
            (status("containerStatuses", json!({ "state": { "running": {} } })), None),
        ] {
            assert_eq!(pod(&found).as_deref(), expected, "{found}");
        }
    }

    #[test]
    fn a_look_without_an_answer_is_followed_by_another() {
        let looks = vec![Ok(live("Progressing")), Err("reading topology `orders`"), Ok(live("Ready"))];
        let (ended, count) = waited(looks, Instant::now() + Duration::from_secs(600));
        assert!(ended.is_ok() && count == 3, "{ended:?} after {count} looks");
    }

    #[test]
    fn at_the_end_it_is_told_what_the_last_look_has_met() {
        let (ended, count) = waited(vec![Err("reading topology `orders`")], Instant::now());
        let failure = ended.expect_err("there is no answer");
        let text = format!("{failure:?}");
        assert!(text.contains("is not ready after 1s") && text.contains("reading topology `orders`"), "{text}");
        assert_eq!(count, 1, "the time is over");
    }
}
