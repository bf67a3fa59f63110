//! Finds the cluster: by the kubeconfig of a person, or by the service account of a pod.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, KubeconfigError},
};
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The cluster cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The context that was asked for is not there, or is incomplete.
    #[error("reading the kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// Neither a kubeconfig nor a service account says where the cluster is.
    #[error("no cluster: neither a kubeconfig nor a service account says where it is: {0}")]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The connection cannot be set up.
    #[error("setting up the connection to the cluster: {0}")]
    Client(#[from] kube::Error),
}

/// A cluster, and the namespace that is meant where none is named.
#[derive(Clone)]
pub struct Connected {
    /// The client.
    pub client: Client,
    /// The namespace of the context, or of the pod.
    pub namespace: String,
}

/// Connects to the cluster of this context of the kubeconfig; without one to that of the current context, or of the pod.
///
/// # Errors
/// See [`ConnectError`]. Nothing is asked of the cluster yet.
pub async fn connect(context: Option<&str>) -> Result<Connected, ConnectError> {
    let mut config = match context {
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT_TIME_MAX);
    let namespace = config.default_namespace.clone();
    Ok(Connected { client: Client::try_from(config)?, namespace })
}
