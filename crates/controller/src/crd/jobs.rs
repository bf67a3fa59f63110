//! Where jobs keep their files.

#![allow(unreachable_pub, reason = "the derive copies each struct into a function of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where jobs keep the files that travel between tasks, their logs, and what became of them. All pods of jobs must reach it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.claim) != has(self.url)").message("files of jobs are either in a `claim` or at a `url`"))]
pub struct JobFiles {
    /// A PersistentVolumeClaim of this namespace that pods on all nodes can write to at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim: Option<String>,
    /// An object store, such as `s3://bucket/prefix`, where it is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub url: Option<String>,
    /// Options of the object store, such as `aws_endpoint`. They are no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Names of secrets whose keys are environment variables of what reads and writes the files, such as `AWS_SECRET_ACCESS_KEY`. Programs of jobs do not see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub secrets: Vec<String>,
    /// How long files, logs and records are kept, such as `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub keep: Option<String>,
}
