//! What a task gets before its first message.

use crate::{TaskError, def::TaskDef, settings};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a task is started with: its definition, its settings, and the directory it may keep files in.
#[derive(Clone, Debug)]
pub struct Setup {
    task: &'static TaskDef,
    settings: Value,
    data: PathBuf,
}

impl Setup {
    /// A setup; `settings` is the task's table of the runtime configuration, and null or empty if it has none.
    pub fn new(task: &'static TaskDef, settings: Value, data: PathBuf) -> Self {
        Self { task, settings, data }
    }

    /// The task's definition.
    pub fn task(&self) -> &'static TaskDef {
        self.task
    }

    /// The data directory of the installation. Tasks may keep files in a folder of their own name in it.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The task's settings as a type.
    ///
    /// # Errors
    /// A permanent error that names the key that is unknown, missing or of the wrong type.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        settings::from_value(&self.settings).map_err(|error| {
            TaskError::permanent(format!("settings of task `{}` of `{}`: {error}", self.task.name, self.task.topology))
        })
    }
}
