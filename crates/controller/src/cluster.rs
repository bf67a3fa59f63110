//! The Kubernetes API as the controller uses it: few calls, each with a limit in time, each write behind the fence of the lease.

use crate::{
    crd::{GROUP, TopologyStatus, VERSION},
    lease::{Fence, NotLeader},
    metrics::Metrics,
    names::{self, Kind},
};
use futures_util::future::try_join_all;
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    },
    core::{GroupVersionKind, ObjectList},
};
use serde_json::{Value, json};
use std::{future::Future, sync::Arc, time::Duration};

/// How long one call may take. A server that is alive answers within a second; one behind a dead connection never does.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);

/// How many objects are asked for at a time: an answer of a thousand Deployments has some MB.
const PAGE: u32 = 250;

/// Something could not be done on the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Another controller may lead by now, so nothing is written.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// What was decided on has changed since.
    #[error("{0} has changed meanwhile")]
    Changed(String),
    /// An object of that name belongs to somebody else.
    #[error("{0} exists already and is not this topology's: remove it, or give the topology another name")]
    Foreign(String),
    /// The API server says no, or cannot be reached.
    #[error("{doing}: {source}")]
    Api {
        /// What was being done.
        doing: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The API server does not answer.
    #[error("{0}: no answer within {CALL_TIME_MAX:?}")]
    TimedOut(String),
}

impl ClusterError {
    /// Whether the object is not there, or no longer.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the same call may succeed later without anybody changing the resource.
    pub fn is_retryable(&self) -> bool {
        !matches!(self.code(), Some(400 | 422)) && !matches!(self, Self::Foreign(_))
    }

    /// The status that the API server has answered with.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, ClusterError>;

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    fence: Fence,
    metrics: Arc<Metrics>,
}

/// The resource as the client names it.
pub fn topology_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, "Topology"), "topologies")
}

impl Cluster {
    /// A cluster whose writes stand behind this fence.
    pub fn new(client: Client, fence: Fence, metrics: Arc<Metrics>) -> Self {
        Self { client, fence, metrics }
    }

    /// Whether anything may be written now.
    ///
    /// # Errors
    /// If another controller may lead.
    pub fn check(&self) -> Result<()> {
        Ok(self.fence.check()?)
    }

    /// Objects of a kind in one namespace.
    pub fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        doing: impl FnOnce() -> String,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        self.metrics.called(verb);
        match tokio::time::timeout(CALL_TIME_MAX, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(ClusterError::Api { doing: doing(), source: Box::new(source) }),
            Err(_) => Err(ClusterError::TimedOut(doing())),
        }
    }

    /// A resource as it is, whatever it holds; `None` if it is gone.
    pub async fn topology(&self, namespace: &str, name: &str) -> Result<Option<Value>> {
        let api = self.api(&topology_resource(), namespace);
        let found = self.call("get", || format!("reading topology `{name}`"), api.get_opt(name)).await?;
        Ok(found.map(|object| json!(object)))
    }

    /// The objects of a topology of some kinds.
    pub async fn objects(&self, namespace: &str, topology: &str, kinds: &[Kind]) -> Result<Vec<Value>> {
        let selector = format!("{}={topology},{}={}", names::TOPOLOGY, names::MANAGED_BY, names::LEATWORKS);
        // At once: how soon a topology is as it is asked for is a matter of how many answers are waited for.
        let lists = kinds.iter().map(|kind| self.of_kind(*kind, namespace, &selector));
        Ok(try_join_all(lists).await?.concat())
    }

    /// The pods of a topology, 250 at most: they are named to people, who read a few.
    ///
    /// # Errors
    /// If the API server cannot be reached or does not let this be read.
    pub async fn pods(&self, namespace: &str, topology: &str) -> Result<Vec<Value>> {
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(&format!("{}={topology}", names::TOPOLOGY)).limit(PAGE);
        let pods = self.call("list", || "listing pods".to_owned(), api.list(&params)).await?;
        Ok(pods.items.into_iter().map(|pod| json!(pod)).collect())
    }

    async fn of_kind(&self, kind: Kind, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let (api_version, word, plural) = kind.names();
        let api = self.api(&kind.resource(), namespace);
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page: ObjectList<DynamicObject> = self.call("list", || format!("listing {plural}"), api.list(&params)).await?;
            all.extend(page.items.into_iter().map(|object| {
                // Elements of a list do not say what they are.
                let mut object = json!(object);
                object["apiVersion"] = api_version.into();
                object["kind"] = word.into();
                object
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Makes an object, or brings it to this. `seen` is the version of the live object that this was decided on: if it has changed since, nothing
    /// is written.
    pub async fn apply(&self, object: &Value, seen: Option<&str>) -> Result<Value> {
        let (kind, name, namespace) = place(object);
        let doing = || format!("applying {kind} `{name}`");
        let Some(kind) = Kind::of(kind) else { return Err(ClusterError::Foreign(format!("{kind} `{name}`"))) };
        let api = self.api(&kind.resource(), namespace);
        let mut object = object.clone();
        match seen {
            Some(version) => object["metadata"]["resourceVersion"] = version.into(),
            // It was not found by its labels. Somebody else may have one of that name, which is not to be taken from them.
            None => {
                let found = self.call("get", doing, api.get_metadata_opt(name)).await?;
                if let Some(found) = found {
                    let labels = found.metadata.labels.unwrap_or_default();
                    let ours =
                        labels.get(names::TOPOLOGY).map(String::as_str) == object["metadata"]["labels"][names::TOPOLOGY].as_str();
                    let what = format!("{} `{name}`", kind.names().1);
                    return Err(if ours { ClusterError::Changed(what) } else { ClusterError::Foreign(what) });
                }
            }
        }
        self.fence.check()?;
        let params = PatchParams::apply(names::MANAGER).force();
        let patched = self.call("apply", doing, api.patch(name, &params, &Patch::Apply(&object))).await;
        Ok(json!(changed(patched, || format!("{} `{name}`", kind.names().1))?))
    }

    /// Removes an object, and its pods before it. What has no pods goes at once: otherwise it would wait for the cluster's own collector, which stands still for half a minute and longer after a
    /// start of the API server.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: &str, seen: &str) -> Result<()> {
        let policy = if kind == Kind::Deployment { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: Some(seen.to_owned()) }),
            ..DeleteParams::default()
        };
        let what = || format!("{} `{name}`", kind.names().1);
        self.fence.check()?;
        let api = self.api(&kind.resource(), namespace);
        let deleted = self.call("delete", || format!("removing {}", what()), api.delete(name, &params)).await;
        match changed(deleted, what) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Writes the status of a resource, unless that has changed since it was read.
    pub async fn set_status(&self, live: &Value, status: &TopologyStatus) -> Result<()> {
        let (_, name, namespace) = place(live);
        let resource = topology_resource();
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name, "namespace": namespace, "resourceVersion": live["metadata"]["resourceVersion"] },
            "status": status,
        });
        self.fence.check()?;
        let api = self.api(&resource, namespace);
        let params = PatchParams::apply(names::MANAGER).force();
        let written = self
            .call("status", || format!("writing the status of `{name}`"), api.patch_status(name, &params, &Patch::Apply(&body)))
            .await;
        changed(written, || format!("topology `{name}`")).map(drop)
    }

    /// Makes a resource, or brings it to this, as `leat deploy` does. With `dry_run` the API server only says what it would do.
    ///
    /// # Errors
    /// What the API server says, as of a rule that the resource breaks.
    pub async fn apply_topology(&self, object: &Value, dry_run: bool) -> Result<Value> {
        let (_, name, namespace) = place(object);
        let api = self.api(&topology_resource(), namespace);
        let mut params = PatchParams::apply(names::DEPLOYER).force().validation_strict();
        params.dry_run = dry_run;
        let applied =
            self.call("apply", || format!("applying topology `{name}`"), api.patch(name, &params, &Patch::Apply(object))).await?;
        Ok(json!(applied))
    }

    /// Tells an event about a resource.
    pub async fn event(&self, event: Value) -> Result<()> {
        let namespace = place(&event).2.to_owned();
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"), "events");
        let api = self.api(&resource, &namespace);
        let event: DynamicObject = serde_json::from_value(event).map_err(|error| ClusterError::Api {
            doing: "telling an event".to_owned(),
            source: Box::new(kube::Error::SerdeError(error)),
        })?;
        self.fence.check()?;
        self.call("event", || "telling an event".to_owned(), api.create(&PostParams::default(), &event)).await.map(drop)
    }

    /// One key of a secret.
    pub async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let api: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = self.call("get", || format!("reading secret `{name}`"), api.get_opt(name)).await?;
        Ok(found.and_then(|secret| secret.data?.remove(key)).map(|bytes| bytes.0))
    }
}

/// Kind, name and namespace of an object.
fn place(object: &Value) -> (&str, &str, &str) {
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"].get("namespace").and_then(Value::as_str).unwrap_or_default();
    (kind, name, namespace)
}

/// A conflict says that the decision was about an older state.
fn changed<T>(result: Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|error| if error.code() == Some(409) { ClusterError::Changed(what()) } else { error })
}
