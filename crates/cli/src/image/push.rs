//! Pushes an image to a registry.

use crate::exit::{Code, Doing, Failure, Result};
use leatworks_image::Image;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use std::{fmt::Display, time::Duration};

/// How long a registry may take to let us connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a registry may be silent. Some of them check a whole layer before they answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Who pushes.
const USER: &str = "LEAT_REGISTRY_USER";
const PASSWORD: &str = "LEAT_REGISTRY_PASSWORD";

/// A place in a registry.
#[derive(Debug)]
pub(crate) struct Target {
    reference: Reference,
}

impl Target {
    /// The place that an image's name means.
    pub(super) fn of(name: &str) -> Result<Self> {
        let reference: Reference =
            name.parse().map_err(|error| Failure::new(Code::Usage, format!("`{name}` is no name of an image: {error}")))?;
        Ok(Self { reference })
    }

    /// The same for an image that is to be pushed, whose name must have a registry: without one, names mean a registry that nobody has named.
    pub(super) fn to_push(name: &str) -> Result<Self> {
        let registry = name.split_once('/').map(|(registry, _)| registry);
        if registry.is_some_and(|registry| registry == "localhost" || registry.contains(['.', ':'])) {
            return Self::of(name);
        }
        let help = format!("`{name}` names no registry to push to; write it in front, as in `registry.example/{name}`");
        Err(Failure::new(Code::Usage, help))
    }

    /// Pushes what the registry does not have, and the manifest last, so that nobody finds half of an image.
    pub(super) fn push(&self, image: &Image) -> Result {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.doing(|| "starting the runtime".to_owned())?.block_on(self.send(image))
    }

    async fn send(&self, image: &Image) -> Result {
        // Another one may have been chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = self.reference.resolve_registry().to_owned();
        let failed = |what: &str, error: &dyn Display| {
            let help = "for one that wants to know who you are, set LEAT_REGISTRY_USER and LEAT_REGISTRY_PASSWORD";
            Failure::new(Code::Unreachable, format!("{what} the registry `{registry}`: {error}; {help}"))
        };
        let protocol = if is_loopback(&registry) { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = Client::new(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(ANSWER_LIMIT),
            ..ClientConfig::default()
        });
        let who = match (std::env::var(USER), std::env::var(PASSWORD)) {
            (Ok(user), Ok(password)) => RegistryAuth::Basic(user, password),
            _ => RegistryAuth::Anonymous,
        };
        client.auth(&self.reference, &who, RegistryOperation::Push).await.map_err(|error| failed("asking", &error))?;
        let packed = image.pack();
        for blob in packed.blobs() {
            let there = client.blob_exists(&self.reference, blob.digest).await;
            if !there.map_err(|error| failed("asking", &error))? {
                let sent = client.push_blob(&self.reference, blob.bytes.to_vec(), blob.digest).await;
                // Not every registry answers as it should; what it has afterwards is what counts.
                let there = sent.is_ok() || client.blob_exists(&self.reference, blob.digest).await.unwrap_or(false);
                sent.map(drop).or_else(|error| if there { Ok(()) } else { Err(failed("pushing to", &error)) })?;
            }
        }
        let manifest = packed.manifest();
        let kind = manifest.kind.parse().map_err(|error| failed("pushing to", &error))?;
        let sent = client.push_manifest_raw(&self.reference, manifest.bytes.to_vec(), kind).await;
        let has = client.fetch_manifest_digest(&self.reference, &who).await;
        match (sent, has) {
            (_, Ok(digest)) if digest == manifest.digest => Ok(()),
            (Err(error), _) | (Ok(_), Err(error)) => Err(failed("pushing to", &error)),
            (Ok(_), Ok(other)) => Err(failed("pushing to", &format!("it has {other} in place of {}", manifest.digest))),
        }
    }
}

/// Whether a registry is on this machine: those have no certificates.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain() {
        for (registry, plain) in [
            ("127.0.0.1:5000", true),
            ("localhost:5000", true),
            ("localhost", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("registry.example", false),
            ("localhost.example:5000", false),
        ] {
            assert_eq!(is_loopback(registry), plain, "{registry}");
        }
    }

    #[test]
    fn a_wrong_name_is_refused_with_its_reason() {
        for name in ["", "shop/UPPER:1", "a b", "shop:tag:tag"] {
            let failure = Target::of(name).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{name}");
        }
    }

    #[test]
    fn nothing_is_pushed_to_a_registry_that_nobody_has_named() {
        for name in ["shop:1", "team/shop:1"] {
            assert!(Target::to_push(name).unwrap_err().message.contains("registry.example"), "{name}");
        }
        for name in ["localhost/shop:1", "127.0.0.1:5000/shop:1", "registry.example/team/shop"] {
            assert!(Target::to_push(name).is_ok(), "{name}");
        }
    }
}
