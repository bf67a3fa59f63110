//! The commands for Kubernetes: `leat k8s`, `leat deploy`, `leat rollback` and `leat controller`.

mod args;
mod control;
mod deploy;
mod difference;
mod render;
mod rollback;

pub(crate) use args::{Controller, Deploy, K8s, Rollback};
pub(crate) use control::control;
pub(crate) use deploy::deploy;
pub(crate) use rollback::rollback;

use crate::{
    args::Global,
    exit::{Code, Failure, Result, write_out},
    project,
};
use leatworks_controller::{
    ConnectError, Connected,
    cluster::{Cluster, ClusterError},
    crd,
    lease::Fence,
    yaml::{self, YamlError},
};
use std::sync::Arc;

/// `leat k8s`.
pub(crate) fn k8s(args: &K8s, global: &Global, color: bool) -> Result {
    match args {
        K8s::Crd => {
            let definition = serde_json::to_value(crd::definition()).map_err(|error| Failure::new(Code::Internal, error))?;
            write_out(yaml::write(&definition)?.as_bytes());
        }
        K8s::Render(args) => {
            let resources = render::render(args, &project::load(global, color)?)?;
            let texts: std::result::Result<Vec<String>, YamlError> = resources.iter().map(yaml::write).collect();
            write_out(texts?.join("---\n").as_bytes());
        }
    }
    Ok(())
}

/// A cluster that a person writes to: no lease stands before it.
async fn cluster(context: Option<&str>) -> Result<(Cluster, String)> {
    let Connected { client, namespace } = leatworks_controller::connect(context).await?;
    Ok((Cluster::new(client, Fence::open(), Arc::default()), namespace))
}

/// Runs a command that talks with a cluster.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

impl From<YamlError> for Failure {
    fn from(error: YamlError) -> Self {
        Self::new(Code::Internal, error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(Code::Unreachable, error)
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let code = match error.code() {
            Some(400 | 422) => Code::Invalid,
            Some(401 | 403) => Code::Refused,
            Some(404) => Code::Nothing,
            Some(409) => Code::Conflict,
            _ => Code::Unreachable,
        };
        Self::new(code, error)
    }
}
