//! Where the service is, who asks, and what names are used there.

use super::{error::Answer, net};
use serde::Deserialize;
use std::path::PathBuf;

/// How a Pulsar service is reached. All of it can stand in a configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PulsarOptions {
    /// `pulsar://HOST:PORT`, or `pulsar+ssl://HOST:PORT` for TLS.
    pub url: String,
    /// Where the admin API is; by default port 8080 of the same host, 8443 with TLS.
    pub admin_url: Option<String>,
    /// The tenant.
    pub tenant: String,
    /// The tenant's namespace. It must exist.
    pub namespace: String,
    /// A token that says who asks.
    pub token: Option<Secret>,
    /// A file with the token. It is read again with each connection, so a token can be renewed.
    pub token_file: Option<PathBuf>,
    /// A file with the certificates, in PEM form, of those whose word about a server is taken. Needed with TLS.
    pub ca_file: Option<PathBuf>,
    /// A directory for what is on its way to the service about attempts; it may be shared, and is made if it is not there. With it a message that nobody had before is
    /// handed out while its attempt is being noted, which is a sync of the service sooner, and not afterwards. It must outlive the process, so that an attempt counts that ends with it.
    pub notes: Option<PathBuf>,
}

impl Default for PulsarOptions {
    /// A service on this machine, without TLS or a token, and `public/default`.
    fn default() -> Self {
        Self {
            url: "pulsar://127.0.0.1:6650".to_owned(),
            admin_url: None,
            tenant: "public".to_owned(),
            namespace: "default".to_owned(),
            token: None,
            token_file: None,
            ca_file: None,
            notes: None,
        }
    }
}

/// A text that is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl PulsarOptions {
    /// Whether a service can be asked by these, as far as that is known without asking it: the address is one, and with TLS there are certificates to trust.
    ///
    /// # Errors
    /// Those that [`connect`](crate::PulsarBroker::connect) would give.
    pub fn check(&self) -> Answer<()> {
        let (tls, ..) = net::parts(&self.url)?;
        if tls { net::tls_config(self, &self.url).map(drop) } else { Ok(()) }
    }

    /// The token, from wherever it is.
    pub(crate) fn token_now(&self) -> std::io::Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.text().to_owned())),
            (None, Some(file)) => std::fs::read_to_string(file).map(|text| Some(text.trim().to_owned())),
            (None, None) => Ok(None),
        }
    }

    /// A topic as Pulsar calls it.
    pub(crate) fn full(&self, topic: &str) -> String {
        format!("persistent://{}/{}/{topic}", self.tenant, self.namespace)
    }
}
