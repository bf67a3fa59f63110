//! Connections to the API server, for what a command of its own for each call would be too slow.

use super::{Cluster, address, control::API_PORT, credentials::Credentials};
use anyhow::{Context as _, Result};
use hyper::{body::Body, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use std::{error::Error, sync::Arc};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// The API server, as clients in the cluster's network reach it.
pub(crate) struct ApiServer {
    connector: TlsConnector,
    name: ServerName<'static>,
    token: String,
}

impl ApiServer {
    /// That of a cluster.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(Credentials::of(&cluster.folder).file("ca.crt"))?)?;
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
        let configuration: serde_json::Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        let token = configuration["users"][0]["user"]["token"].as_str().context("the administrator has a token")?.to_owned();
        Ok(Self { connector: TlsConnector::from(Arc::new(client)), name: ServerName::try_from(address(1))?, token })
    }

    /// By which it knows the administrator.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A connection, which has one request at a time, and ends with its task.
    pub(crate) async fn connect<B>(&self) -> Result<(SendRequest<B>, JoinHandle<hyper::Result<()>>)>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let server = TcpStream::connect((address(1), API_PORT)).await.context("reaching the API server")?;
        server.set_nodelay(true)?;
        let server = self.connector.connect(self.name.clone(), server).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(server)).await?;
        Ok((sender, tokio::spawn(connection)))
    }
}
