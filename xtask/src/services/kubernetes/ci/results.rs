//! What tasks write down, on a volume that this machine can read.

use super::{NAMESPACE, Site};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A folder on this machine that is a volume for pods.
pub(super) struct Results {
    name: String,
    folder: PathBuf,
}

impl Results {
    /// Makes the volume, and the claim by which pods get it.
    pub(super) fn make(site: &Site<'_>, name: &str) -> Result<Self> {
        let folder = site.cluster.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        // Containers run as a user without rights on this machine.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        volume(name, NAMESPACE, &folder).into_iter().try_for_each(|object| site.apply(object))?;
        Ok(Self { name: name.to_owned(), folder })
    }

    /// Where it is on this machine.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The volume of a pod that writes there.
    pub(super) fn volume(&self) -> Value {
        json!({"name": self.name, "persistentVolumeClaim": {"claimName": self.name}})
    }

    /// The environment by which a task is told its file: one for each pod, since two of them may write for a moment. `variable` is the setting.
    pub(super) fn env(&self, variable: &str) -> Value {
        json!([
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": variable, "value": format!("/{}/$(POD_NAME).jsonl", self.name)},
        ])
    }

    /// All lines that were written.
    pub(super) fn lines(&self) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
            // The last line may be half of one; its pod has not acknowledged it.
            lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
        Ok(lines)
    }
}

/// A folder of this machine as a volume, and the claim by which the pods of a namespace get it.
pub(crate) fn volume(name: &str, namespace: &str, folder: &Path) -> [Value; 2] {
    let size = json!({"storage": "1Mi"});
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "hostPath": {"path": folder},
            "claimRef": {"namespace": namespace, "name": name},
        },
    });
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": size},
        },
    });
    [volume, claim]
}

/// What is laid over a worker's pods: a volume, mounted under its name, and an environment.
pub(super) fn pod(volume: &Value, env: &Value) -> Value {
    let mount = json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap_or_default())});
    json!({"spec": {"volumes": [volume], "containers": [{"name": "worker", "env": env, "volumeMounts": [mount]}]}})
}
