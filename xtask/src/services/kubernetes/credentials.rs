//! The cluster's certificates and tokens, which are good for as long as it is up.

use super::{control, network};
use crate::ci::run_command;
use anyhow::{Context, Result};
use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The user who may do everything.
pub(super) const ADMINISTRATOR: &str = "admin";

/// Who there is beside the nodes: the name of the file, the user, and the group.
const USERS: [(&str, &str, &str); 4] = [
    (ADMINISTRATOR, "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
];

/// Where a user's configuration for clients is.
pub(super) fn kubeconfig(folder: &Path, user: &str) -> PathBuf {
    folder.join(format!("{user}.kubeconfig"))
}

/// The files that the API server and the controllers are given.
#[derive(Debug)]
pub(super) struct Credentials {
    folder: PathBuf,
}

impl Credentials {
    /// Makes an authority, a certificate for the API server, a key for service accounts, and a token for each user.
    pub(super) fn create(cluster: &Path, nodes: usize) -> Result<Self> {
        let made = Self::of(cluster);
        std::fs::create_dir_all(&made.folder)?;
        made.certificates()?;
        let mut users: Vec<(String, String, &str)> =
            USERS.iter().map(|(file, user, group)| ((*file).to_owned(), (*user).to_owned(), *group)).collect();
        users.extend((1..=nodes).map(|node| (format!("node{node}"), format!("system:node:node{node}"), "system:nodes")));
        let mut tokens = String::new();
        for (file, user, group) in users {
            let token = random()?;
            tokens += &format!("{token},{user},{user},{group}\n");
            std::fs::write(kubeconfig(cluster, &file), made.configuration(&token))?;
        }
        std::fs::write(made.file("tokens.csv"), tokens)?;
        Ok(made)
    }

    /// Those of a cluster that is up.
    pub(super) fn of(cluster: &Path) -> Self {
        Self { folder: cluster.join("credentials") }
    }

    /// One of the files.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn certificates(&self) -> Result<()> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = ["127.0.0.1", control::SERVICE_OF_THE_API, &network::address(1)].map(|address| format!("IP:{address}"));
        let all: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).chain(addresses).collect();
        std::fs::write(self.file("names"), format!("subjectAltName={}\n", all.join(",")))?;
        let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        self.openssl(&format!("req -x509 {curve} -keyout ca.key -subj /CN=leatworks-test -days 3650 -out ca.crt"))?;
        self.openssl(&format!("req -new {curve} -keyout api.key -subj /CN=kube-apiserver -out api.csr"))?;
        self.openssl("x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out api.crt -extfile names")?;
        self.openssl("genrsa -out accounts.key 2048")
    }

    fn openssl(&self, words: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        run_command(&mut command)
    }

    fn configuration(&self, token: &str) -> String {
        let server = format!("https://{}:{}", network::address(1), control::API_PORT);
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        })
        .to_string()
    }
}

/// A token that a pod cannot guess.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("reading `/dev/urandom`")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
