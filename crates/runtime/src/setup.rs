//! What a task gets before its first message.

use crate::{TaskError, def::TaskDef, settings};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The places that tasks have named as those of their results: task and path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(Arc<Mutex<BTreeSet<(&'static str, PathBuf)>>>);

impl Results {
    /// Notes a place; a task may name several.
    pub(crate) fn add(&self, task: &'static str, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((task, path));
    }

    /// All of them, in the order of the tasks' names.
    pub(crate) fn all(&self) -> Vec<(&'static str, PathBuf)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// What a task is started with: its definition, its settings, and the directory it may keep files in.
#[derive(Clone, Debug)]
pub struct Setup {
    task: &'static TaskDef,
    settings: Value,
    data: PathBuf,
    results: Results,
    is_check: bool,
}

impl Setup {
    /// A setup; `settings` is the task's table of the runtime configuration, and null or empty if it has none.
    pub fn new(task: &'static TaskDef, settings: Value, data: PathBuf) -> Self {
        Self { task, settings, data, results: Results::default(), is_check: false }
    }

    pub(crate) fn with_results(self, results: Results) -> Self {
        Self { results, ..self }
    }

    /// This for a task of which nothing is wanted but whether it can be made of its settings.
    pub(crate) fn for_check(self) -> Self {
        Self { is_check: true, ..self }
    }

    /// Whether the task is not to be started, which may do anything.
    pub(crate) fn is_check(&self) -> bool {
        self.is_check
    }

    /// Says where the task lays its results, so that a run can tell it at its end.
    pub fn results_at(&self, path: impl Into<PathBuf>) {
        self.results.add(self.task.name, path.into());
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
