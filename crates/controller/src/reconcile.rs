//! One reconciliation: reads what is asked for and what is there, does what the plan says, and tells how it is. Why it is called does not matter, and it
//! may be cut off anywhere: the next one begins with what is there then.

use crate::{
    brokers::{self, Brokers, QueueError},
    cluster::{Cluster, ClusterError},
    crd::{RemovedEdges, Retiring, Topology, TopologySpec, TopologyStatus},
    events, graph,
    metrics::Metrics,
    names::{self, Kind},
    plan::{self, Observed, Outcome, Plan, Queues, Settings, Site, Step},
    revision,
    watch::Key,
};
use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use leatworks_broker::Broker;
use leatworks_topology as model;
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How often all of a topology is looked at without a reason: what nobody tells, such as a lost subscription, is found then.
const RESYNC: Duration = Duration::from_secs(600);

/// How long a subscription counts as known: less than is between two such looks, of which each then asks for all of them.
const KNOWN: Duration = Duration::from_secs(300);

/// How often a topology is looked at while something of it is not ready, in case that no watch tells when it is. Seldom enough for a thousand that wait for a busy cluster at once: a
/// look is six calls or more, so at 30 s these looks alone would be two hundred calls a second.
const UNREADY: Duration = Duration::from_secs(300);

/// How often the backlogs of removed edges are asked for.
const RETIRING: Duration = Duration::from_secs(2);

/// How often the backlogs of edges are asked for that are scaled by them: as often as an autoscaler looks.
const SCALING: Duration = Duration::from_secs(15);

/// How many objects of a topology are applied at once. Answers take their time, above all where the API server is busy, and most of that is waiting; several topologies do so side by
/// side, and an API server lets a client have some tens of calls at a time.
const APPLIED_AT_ONCE: usize = 4;

/// The kinds of objects that are compared with what is to be there.
const OBSERVED: [Kind; 4] = [Kind::ConfigMap, Kind::Service, Kind::Deployment, Kind::Autoscaler];

/// What a reconciliation leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The topology is gone.
    Forget,
    /// Something failed that may go well later.
    Retry,
    /// Look again after that.
    After(Duration),
}

/// Reconciles topologies.
pub struct Reconciler {
    /// The API server.
    pub cluster: Cluster,
    /// The brokers.
    pub brokers: Arc<dyn Brokers>,
    /// What else is known.
    pub settings: Settings,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The name of this process in events.
    pub instance: String,
    /// What is known to be subscribed. It is only known while this controller leads: another one may have removed it since.
    subscribed: Mutex<HashMap<Key, Subscribed>>,
}

/// What is known to be subscribed of one resource.
#[derive(Default)]
struct Subscribed {
    /// The resource's id and its broker.
    of: String,
    /// When each edge was seen.
    edges: HashMap<String, Instant>,
}

/// What can be deployed, with its objects.
struct Deployable {
    spec: TopologySpec,
    graph: model::Topology,
    objects: Vec<Value>,
}

/// A resource that can be read, as it was read.
struct Resource {
    key: Key,
    live: Value,
    uid: String,
    topology: Topology,
}

impl Resource {
    fn site<'a>(&'a self, deployable: &'a Deployable, settings: &'a Settings) -> Site<'a> {
        Site {
            name: &self.key.name,
            namespace: &self.key.namespace,
            uid: &self.uid,
            spec: &deployable.spec,
            graph: &deployable.graph,
            settings,
        }
    }
}

/// Checks all that can be checked of a resource, and gives its objects.
///
/// # Errors
/// Why it cannot be deployed.
fn deployable(key: &Key, uid: &str, spec: &TopologySpec, settings: &Settings) -> Result<Deployable, String> {
    let graph = graph::compile(&key.name, spec).map_err(|error| error.to_string())?;
    let site = Site { name: &key.name, namespace: &key.namespace, uid, spec, graph: &graph, settings };
    let objects = plan::desired(site).map_err(|refusal| refusal.to_string())?;
    Ok(Deployable { spec: spec.clone(), graph, objects })
}

impl Reconciler {
    /// A reconciler that knows nothing yet.
    pub fn new(cluster: Cluster, brokers: Arc<dyn Brokers>, settings: Settings, metrics: Arc<Metrics>, instance: String) -> Self {
        Self { cluster, brokers, settings, metrics, instance, subscribed: Mutex::default() }
    }

    /// Brings one topology closer to what is asked for.
    ///
    /// # Errors
    /// If somebody else has changed something meanwhile, this controller does not lead any more, or the API server cannot be reached.
    pub async fn reconcile(&self, key: &Key) -> Result<Next, ClusterError> {
        let live = self.cluster.topology(&key.namespace, &key.name).await?;
        let Some(live) = live.filter(|live| live["metadata"].get("deletionTimestamp").is_none()) else {
            // Its objects are its own, so Kubernetes removes them. What the broker keeps is nobody's to remove.
            self.metrics.state(&key.namespace, &key.name, None);
            self.known().remove(key);
            return Ok(Next::Forget);
        };
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        match serde_json::from_value::<Topology>(live.clone()) {
            Ok(topology) => self.deploy(&Resource { key: key.clone(), live, uid, topology }).await,
            Err(error) => self.park(key, &live, &error.to_string()).await,
        }
    }

    /// A resource that cannot be read is left alone, and says why. What was deployed before is neither looked at nor touched.
    async fn park(&self, key: &Key, live: &Value, why: &str) -> Result<Next, ClusterError> {
        let old: TopologyStatus = serde_json::from_value(live["status"].clone()).unwrap_or_default();
        let refused = Some(format!("the resource cannot be read: {why}"));
        let outcome = Outcome { refused, revision: old.revision, ..Outcome::default() };
        self.metrics.scaled(&key.namespace, &key.name, &[]);
        let status =
            plan::status(live["metadata"]["generation"].as_i64(), None, &[], old.retiring.clone(), &outcome, &old, &now());
        self.tell(key, live, &old, &status).await?;
        Ok(Next::After(RESYNC))
    }

    async fn deploy(&self, resource: &Resource) -> Result<Next, ClusterError> {
        let Resource { key, live, uid, topology } = resource;
        let revisions = self.cluster.objects(&key.namespace, &key.name, &[Kind::Revision]).await?;
        let old = topology.status.clone().unwrap_or_default();
        let ours = revision::of(&revisions, uid);
        let mut outcome = Outcome::default();
        let current = deployable(key, uid, &topology.spec, &self.settings);
        let deployed = match current {
            Ok(current) => {
                outcome.revision = Some(self.record(resource, &current, [&ours, &revisions], old.revision).await?);
                Some(current)
            }
            Err(why) => {
                outcome.refused = Some(why);
                // What was deployed last goes on, and is still kept as it is; nothing older comes back.
                revision::all(&ours).into_iter().next().and_then(|before| {
                    outcome.revision = Some(before.number);
                    deployable(key, uid, &before.spec, &self.settings).ok()
                })
            }
        };
        let mut observed = Observed { status: old.clone(), ..Observed::default() };
        let mut retiring = old.retiring.clone();
        match &deployed {
            None => {
                // Of what was deployed last nobody knows any more how it is to be, so it is left as it is.
                outcome.revision = old.revision;
                self.metrics.scaled(&key.namespace, &key.name, &[]);
            }
            Some(deployed) => {
                let current = outcome.revision.unwrap_or_default();
                observed.begun = revision::begun(resource.site(deployed, &self.settings), &ours, old.revision, current);
                observed.objects = self.cluster.objects(&key.namespace, &key.name, &OBSERVED).await?;
                retiring = self.carry_out(resource, deployed, &mut observed, &mut outcome).await?;
            }
        }
        let site = deployed.as_ref().map(|deployed| resource.site(deployed, &self.settings));
        let status = plan::status(topology.metadata.generation, site, &observed.objects, retiring, &outcome, &old, &now());
        self.tell(key, live, &old, &status).await?;
        Ok(next(&status, &outcome, deployed.as_ref()))
    }

    /// Records what is deployed from now on, and lets go of what is too old to go back to.
    async fn record(
        &self,
        resource: &Resource,
        current: &Deployable,
        [ours, revisions]: [&[Value]; 2],
        told: Option<i64>,
    ) -> Result<i64, ClusterError> {
        let site = resource.site(current, &self.settings);
        let (number, object) = revision::record(site, ours, revisions);
        if let Some((object, seen)) = object {
            self.cluster.apply(&object, seen.as_deref()).await?;
            tracing::info!(revision = number, "a revision is deployed");
        }
        for old in revision::surplus(ours, current.spec.revision_history_limit, told) {
            let text = |pointer: &str| old.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (name, uid, seen) = (text("/metadata/name"), text("/metadata/uid"), text("/metadata/resourceVersion"));
            self.cluster.delete(Kind::Revision, &resource.key.namespace, name, uid, seen).await?;
        }
        Ok(number)
    }

    /// Makes the plan and does what it says. Gives the edges that are still being let go.
    async fn carry_out(
        &self,
        resource: &Resource,
        deployed: &Deployable,
        observed: &mut Observed,
        outcome: &mut Outcome,
    ) -> Result<Vec<Retiring>, ClusterError> {
        let site = resource.site(deployed, &self.settings);
        let missing = self.missing(resource, site);
        observed.subscribed = missing.is_empty();
        // Without the broker everything else can go on.
        match self.queues(site, observed).await {
            Ok(queues) => observed.queues = queues,
            Err(error) => outcome.failed = Some(error.to_string()),
        }
        let Plan { steps, mut retiring } = plan::plan(site, &deployed.objects, observed);
        for group in steps.chunk_by(plan::are_side_by_side) {
            tracing::debug!(?group, "steps");
            let done = match &group[0] {
                Step::Subscribe => match self.subscribe(resource, site, &missing).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        outcome.unsubscribed = Some(error.to_string());
                        break;
                    }
                },
                Step::Apply { .. } => self.apply(group, observed).await,
                Step::Delete { kind, name, uid, seen } => self.cluster.delete(*kind, site.namespace, name, uid, seen).await,
                Step::Unsubscribe(_) => {
                    self.let_go(resource, site, group, &mut retiring, outcome).await;
                    Ok(())
                }
            };
            match done {
                Ok(()) => {}
                Err(error @ (ClusterError::Changed(_) | ClusterError::NotLeader(_))) => return Err(error),
                Err(error) => {
                    outcome.failed = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(retiring)
    }

    /// Applies objects side by side. When one fails, those under way are cut off.
    async fn apply(&self, group: &[Step], observed: &mut Observed) -> Result<(), ClusterError> {
        let mut applied = stream::iter(group.to_vec())
            .map(async |step: Step| match step {
                Step::Apply { object, seen } => self.cluster.apply(&object, seen.as_deref()).await.map(Some),
                _ => Ok(None),
            })
            .buffer_unordered(APPLIED_AT_ONCE);
        while let Some(live) = applied.next().await {
            live?.into_iter().for_each(|live| replace(&mut observed.objects, live));
        }
        Ok(())
    }

    /// Removes the subscriptions of edges side by side: each takes some calls one after another.
    async fn let_go(
        &self,
        resource: &Resource,
        site: Site<'_>,
        group: &[Step],
        retiring: &mut Vec<Retiring>,
        outcome: &mut Outcome,
    ) {
        let entries: Vec<Retiring> = group
            .iter()
            .filter_map(|step| if let Step::Unsubscribe(entry) = step { Some(entry.clone()) } else { None })
            .collect();
        let mut gone = stream::iter(entries)
            .map(async |entry: Retiring| (self.unsubscribe(resource, site, &entry).await, entry.edge))
            .buffer_unordered(brokers::EDGES_AT_ONCE);
        while let Some((done, edge)) = gone.next().await {
            match done {
                Ok(()) => retiring.retain(|other| other.edge != edge),
                Err(error) => outcome.failed = Some(format!("removing the subscription of `{edge}`: {error}")),
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Subscribed>> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The edges of which it is not known that their subscriptions are there.
    fn missing(&self, resource: &Resource, site: Site<'_>) -> BTreeSet<String> {
        let of = format!("{} {:?}", resource.uid, site.spec.broker);
        let mut known = self.known();
        let known = known.entry(resource.key.clone()).or_default();
        if known.of != of {
            *known = Subscribed { of, edges: HashMap::new() };
        }
        let is_known = |edge: &String| known.edges.get(edge).is_some_and(|since| since.elapsed() < KNOWN);
        graph::edge_ids(site.graph).into_iter().filter(|edge| !is_known(edge)).collect()
    }

    async fn subscribe(&self, resource: &Resource, site: Site<'_>, edges: &BTreeSet<String>) -> Result<(), QueueError> {
        let broker = self.broker(site).await?;
        // Another one that leads meanwhile may have removed what would be made again, and nobody would take from it.
        self.cluster.check()?;
        let done = brokers::subscribe(broker.as_ref(), site.graph, edges).await;
        self.unless_failed(site, done).await?;
        if let Some(known) = self.known().get_mut(&resource.key) {
            known.edges.extend(edges.iter().map(|edge| (edge.clone(), Instant::now())));
        }
        Ok(())
    }

    async fn unsubscribe(&self, resource: &Resource, site: Site<'_>, entry: &Retiring) -> Result<(), QueueError> {
        if let Some(known) = self.known().get_mut(&resource.key) {
            known.edges.remove(&entry.edge);
        }
        let broker = self.broker(site).await?;
        self.cluster.check()?;
        let done = brokers::unsubscribe(broker.as_ref(), &entry.topic, &entry.subscription, &entry.retry_topic).await;
        self.unless_failed(site, done).await
    }

    async fn broker(&self, site: Site<'_>) -> Result<Arc<dyn Broker>, QueueError> {
        self.brokers.open(&self.cluster, site.namespace, &site.spec.broker).await
    }

    /// A broker whose connection has failed is connected anew the next time.
    async fn unless_failed<T>(&self, site: Site<'_>, result: Result<T, QueueError>) -> Result<T, QueueError> {
        if result.as_ref().is_err_and(QueueError::is_of_the_connection) {
            self.brokers.forget(site.namespace, &site.spec.broker).await;
        }
        result
    }

    /// What waits on edges that are drained, and on those that are scaled by it.
    async fn queues(&self, site: Site<'_>, observed: &Observed) -> Result<Queues, QueueError> {
        let mut wanted: Vec<(String, String, String, String)> = plan::drained(site, observed);
        let scaled: Vec<_> = plan::scaled(site);
        let names: Vec<String> = scaled.iter().map(|(edge, ..)| names::label(edge)).collect();
        self.metrics.scaled(site.namespace, site.name, &names);
        if wanted.is_empty() && scaled.is_empty() {
            return Ok(Queues::new());
        }
        wanted.extend(scaled.iter().cloned());
        let broker = self.broker(site).await?;
        let mut queues = Queues::new();
        let mut asked = stream::iter(wanted)
            .map(async |(edge, topic, subscription, retry_topic)| {
                (edge, brokers::queue(broker.as_ref(), &topic, &subscription, &retry_topic).await)
            })
            .buffer_unordered(brokers::EDGES_AT_ONCE);
        while let Some((edge, queue)) = asked.next().await {
            let queue = self.unless_failed(site, queue).await?;
            if scaled.iter().any(|(scaled, ..)| *scaled == edge) {
                self.metrics.backlog(site.namespace, site.name, names::label(&edge), queue.pending + queue.retrying);
            }
            queues.insert(edge, queue);
        }
        Ok(queues)
    }

    /// Writes the status if it is another, and tells events of what has changed.
    async fn tell(&self, key: &Key, live: &Value, old: &TopologyStatus, status: &TopologyStatus) -> Result<(), ClusterError> {
        self.metrics.state(&key.namespace, &key.name, status.state.map(crate::crd::State::as_str));
        if old == status && live.get("status").is_some() {
            return Ok(());
        }
        self.cluster.set_status(live, status).await?;
        for event in events::of(live, old, status, &self.instance, &now()) {
            // An event is for people who watch; nothing hangs on it.
            if let Err(error) = self.cluster.event(event).await {
                tracing::warn!(%error, "an event could not be told");
            }
        }
        Ok(())
    }
}

/// Puts what was applied in the place of what was seen before.
fn replace(objects: &mut Vec<Value>, live: Value) {
    let same = |known: &&mut Value| known["kind"] == live["kind"] && known["metadata"]["name"] == live["metadata"]["name"];
    match objects.iter_mut().find(same) {
        Some(known) => *known = live,
        None => objects.push(live),
    }
}

fn next(status: &TopologyStatus, outcome: &Outcome, deployed: Option<&Deployable>) -> Next {
    if outcome.failed.is_some() || outcome.unsubscribed.is_some() {
        return Next::Retry;
    }
    let scaled = deployed.is_some_and(|deployed| deployed.spec.edges.iter().any(|edge| edge.autoscale.is_some()));
    let unready = status.tasks.iter().chain(&status.edges).any(|part| part.message.is_some());
    Next::After(match () {
        () if status.retiring.iter().any(|entry| entry.policy != RemovedEdges::Park) => RETIRING,
        () if scaled => SCALING,
        () if unready => UNREADY,
        () => RESYNC,
    })
}

/// The time as the API server writes it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What `leat deploy` shows before it applies: the plan for a resource, by what is there, without the broker. `settings` stand for those of the controller where nothing
/// shows them.
///
/// # Errors
/// Why the resource cannot be deployed, as text; or what the API server says.
pub async fn preview(
    cluster: &Cluster,
    key: &Key,
    uid: &str,
    spec: &TopologySpec,
    settings: &Settings,
) -> Result<Result<Preview, String>, ClusterError> {
    let objects = cluster.objects(&key.namespace, &key.name, &OBSERVED).await?;
    let settings = as_seen(&objects).unwrap_or_else(|| settings.clone());
    let deployable = match deployable(key, uid, spec, &settings) {
        Ok(deployable) => deployable,
        Err(why) => return Ok(Err(why)),
    };
    let mut observed = Observed { objects, subscribed: true, ..Observed::default() };
    let site = Site { name: &key.name, namespace: &key.namespace, uid, spec, graph: &deployable.graph, settings: &settings };
    // What is let go is written into the status first, and the rest is done when it is there.
    observed.status.retiring = plan::plan(site, &deployable.objects, &observed).retiring;
    let plan = plan::plan(site, &deployable.objects, &observed);
    Ok(Ok(Preview { plan, observed: observed.objects }))
}

/// What the controller was told of jobs, by the adapter of one that is there: no other pod has a service account.
fn as_seen(objects: &[Value]) -> Option<Settings> {
    let pods = objects.iter().filter(|object| object["kind"] == "Deployment").map(|object| &object["spec"]["template"]["spec"]);
    let adapter = pods.into_iter().find(|pod| pod["serviceAccountName"].is_string())?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Settings { leat_image: text(&adapter["containers"][0]["image"]), jobs_account: text(&adapter["serviceAccountName"]) })
}

/// What would be done.
pub struct Preview {
    /// The steps.
    pub plan: Plan,
    /// What is there.
    pub observed: Vec<Value>,
}

impl Preview {
    /// The live object that a step is about.
    pub fn live(&self, kind: &str, name: &str) -> Option<&Value> {
        self.observed.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == json!(name))
    }
}
