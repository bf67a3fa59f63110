//! Names of topologies and tasks in the configuration.
//!
//! The topologies of a project share `leat.toml`, and those of all projects `config.toml`. So a topology knows of its own tasks only; of another one's name it
//! can tell no more than that it is nearly its own.

use super::{Config, ConfigError};
use crate::settings;
use std::collections::BTreeMap;

/// How many letters of a topology's name may be wrong for it to be meant: one in three, and no more than this.
const LETTERS_MAX: usize = 2;

impl Config {
    /// What may be a mistake in what is said of topologies, though another topology of the project may have that name.
    pub fn doubts(&self, topology: &str) -> Vec<String> {
        let nearly = self.topologies.keys().filter(|name| is_nearly(name, topology));
        nearly
            .map(|name| {
                let key = format!("topology.{name}");
                let place = self.places.of(&key);
                format!("`{key}` in {place} says nothing of `{topology}`; did you mean `topology.{topology}`?")
            })
            .collect()
    }

    /// Whether all that is said of topologies and tasks is said of those that a project has: the name of each topology, with those of its tasks. The file that
    /// all projects share may speak of others.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] for the first that it has not.
    pub fn fits(&self, project: &BTreeMap<String, Vec<String>>) -> Result<(), ConfigError> {
        for (name, config) in &self.topologies {
            let key = format!("topology.{name}");
            let Some(tasks) = project.get(name) else {
                if self.places.is_shared(&key) {
                    continue;
                }
                let known: Vec<&str> = project.keys().map(String::as_str).collect();
                let place = self.places.of(&key).to_owned();
                return Err(ConfigError::Unknown { place, hint: settings::hint(name, &known), key });
            };
            if let Some(task) = config.task.keys().find(|task| !tasks.contains(task)) {
                let known: Vec<&str> = tasks.iter().map(String::as_str).collect();
                return Err(self.unknown_task(name, task, &known));
            }
        }
        Ok(())
    }

    pub(super) fn unknown_task(&self, topology: &str, task: &str, known: &[&str]) -> ConfigError {
        let key = format!("topology.{topology}.task.{task}");
        ConfigError::Unknown { place: self.places.of(&key).to_owned(), hint: settings::hint(task, known), key }
    }
}

/// Whether a name is meant for another. Names that differ in nothing but numbers belong together, such as `orders-1` and `orders-2`.
fn is_nearly(name: &str, own: &str) -> bool {
    let letters = |name: &str| name.replace(|char: char| char.is_ascii_digit(), "").trim_end_matches('-').to_owned();
    let wrong = strsim::damerau_levenshtein(name, own);
    wrong <= LETTERS_MAX.min(own.chars().count() / 3) && letters(name) != letters(own)
}
