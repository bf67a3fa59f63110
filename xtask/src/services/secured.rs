//! The client's tests on two real Pulsars: one for everybody, and one that asks for TLS, a token, and rights.

use super::pulsar::{ALL_FEATURES, Options, Pulsar, Secret, free_port};
use crate::{ci::run_command, clients};
use anyhow::{Context, Result};
use std::{path::Path, process::Command};

/// Certificates that are good for nothing but these tests: an authority, and a server on 127.0.0.1 that it vouches for.
const CERTIFICATES: &str = "crates/pulsar/tests/client/tls";

/// What runs against them: the client by itself, topologies, and the binaries of the showcase.
const TESTS: [(&str, &str); 3] = [("leatworks-pulsar", "client"), ("leatworks", "pulsar"), ("showcase", "pulsar")];

/// Starts both and runs the tests. Gives why foreign clients could not take part, if they could not.
pub(crate) fn test_client() -> Result<Option<String>> {
    let open = Pulsar::start(&Options { settings: ALL_FEATURES, ..Options::default() })?;
    let certificates = Path::new(CERTIFICATES).canonicalize().context("the repository's root is where this runs")?;
    let file = |name: &str| certificates.join(name).display().to_string();
    let (tls_port, certificate, key) = (free_port()?.to_string(), file("server.pem"), file("server-key.pem"));
    let settings = [
        ("brokerServicePortTls", tls_port.as_str()),
        ("tlsCertificateFilePath", &certificate),
        ("tlsKeyFilePath", &key),
        ("authorizationEnabled", "true"),
    ];
    let secret = Secret::for_tests();
    let secured =
        Pulsar::start(&Options { settings: &[ALL_FEATURES, &settings].concat(), secret: Some(&secret), ..Options::default() })?;
    for (package, test) in TESTS {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "-p", package, "--features", "real-pulsar", "--test", test]);
        // Most of a test is waiting for the service, which has the cores as well.
        cargo.args(["--", "--test-threads", "6"]);
        cargo.env("LEAT_PULSAR_URL", format!("pulsar://127.0.0.1:{}", open.port));
        cargo.env("LEAT_PULSAR_ADMIN_URL", format!("http://127.0.0.1:{}", open.web_port));
        cargo.env("LEAT_PULSAR_TLS_URL", format!("pulsar+ssl://127.0.0.1:{tls_port}"));
        cargo.env("LEAT_PULSAR_TLS_ADMIN_URL", format!("http://127.0.0.1:{}", secured.web_port));
        cargo.env("LEAT_PULSAR_TOKEN_KEY", secret.key);
        run_command(&mut cargo)?;
    }
    clients::edges::check(open.port, open.web_port)
}
