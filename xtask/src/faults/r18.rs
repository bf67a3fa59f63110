//! R18: jobs on a real Kubernetes whose programs fail, hang, eat memory and lose their place, while everything that makes them is killed, and the API server answers as it
//! likes. Every attempt has one Job, nothing is lost, and nothing is left over. What is done is in `services/kubernetes/ci/jobs`, since continuous integration does
//! the short one of it on the cluster that it has.

use super::{Finding, Setting};
use crate::services::kubernetes;
use anyhow::Result;

pub(super) fn run(setting: &Setting) -> Result<Finding> {
    let _ = std::fs::remove_dir_all(&setting.folder);
    std::fs::create_dir_all(&setting.folder)?;
    kubernetes::r18(setting)
}
