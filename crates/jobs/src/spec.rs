//! What a job runs, and within which limits.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// The most bytes of files that one attempt may leave, unless the task says otherwise.
const OUTPUT: u64 = 1 << 30;

/// The most bytes of a log that are kept, unless the task says otherwise: a few thousand lines.
const LOG: u64 = 1 << 20;

/// What a job runs, and within which limits: the table `job` of a task. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The program and its arguments. An argument that begins with `./` is a path below the project's folder. Empty for the command of
    /// an image.
    pub command: Vec<String>,
    /// The image in which it runs on Kubernetes.
    pub image: Option<String>,
    /// The most memory that it may use with all of its processes; none for no limit.
    pub memory: Option<u64>,
    /// The most bytes that its files may have together.
    pub output: u64,
    /// The most bytes of its log that are kept: the beginning and the end.
    pub log: u64,
    /// Exit codes that say that another attempt is pointless.
    pub permanent: Vec<u8>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// Files with more of them, `NAME=value` on each line.
    pub env_files: Vec<PathBuf>,
    /// What it asks of a node of Kubernetes, such as `cpu` or `nvidia.com/gpu`.
    pub resources: BTreeMap<String, String>,
    /// Which nodes of Kubernetes it may run on, by their labels.
    pub node_selector: BTreeMap<String, String>,
    /// The Kubernetes secrets with which its image is pulled.
    pub pull_secrets: Vec<String>,
    /// The Kubernetes secrets whose keys are variables of its environment.
    pub secrets: Vec<String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            image: None,
            memory: None,
            output: OUTPUT,
            log: LOG,
            permanent: Vec::new(),
            env: BTreeMap::new(),
            env_files: Vec::new(),
            resources: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            pull_secrets: Vec::new(),
            secrets: Vec::new(),
        }
    }
}

impl Spec {
    /// Reads what the project's build has written.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The same of what was read already; without anything it is empty.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn of_value(value: Option<&serde_json::Value>) -> Result<Self, serde_json::Error> {
        value.map_or_else(|| Ok(Self::default()), Self::deserialize)
    }
}
