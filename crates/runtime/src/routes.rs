//! The routes of a task as programs name them that know nothing of its types.

use crate::{
    TaskError,
    def::{TaskDef, TopologyDef},
};

/// The routes of a task by the names that a program may give.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    task: &'static TaskDef,
    /// The tasks behind this one, each with its route.
    targets: Vec<(&'static str, usize)>,
}

impl Routes {
    pub(crate) fn new(task: &'static TaskDef, topology: &'static TopologyDef) -> Self {
        let behind = topology.edges.iter().filter(|edge| edge.from == Some(task.name));
        let targets = behind.filter_map(|edge| {
            let route = task.routes.iter().position(|route| route.topic == edge.topic)?;
            Some((edge.to, route))
        });
        Self { task, targets: targets.collect() }
    }

    /// The route of an output: its type is a label, a task behind this one (bare, or as `<topology>-<task>`), or left out if there is one
    /// route only.
    ///
    /// # Errors
    /// A permanent error if no route is meant by it.
    pub(crate) fn find(&self, kind: Option<&str>) -> Result<Option<usize>, TaskError> {
        let routes = self.task.routes;
        let Some(kind) = kind else {
            return match routes.len() {
                0 => Ok(None),
                1 => Ok(Some(0)),
                _ => Err(TaskError::permanent(format!("an output has no `type`, and there are several: {}", self.known()))),
            };
        };
        if let Some(route) = routes.iter().position(|route| route.label == Some(kind)) {
            return Ok(Some(route));
        }
        if self.task.ends.contains(&kind) {
            return Ok(None);
        }
        let bare = kind.strip_prefix(self.task.topology).and_then(|rest| rest.strip_prefix('-')).unwrap_or(kind);
        if let Some((_, route)) = self.targets.iter().find(|(target, _)| *target == kind || *target == bare) {
            return Ok(Some(*route));
        }
        if routes.is_empty() {
            return Ok(None);
        }
        Err(TaskError::permanent(format!("no edge of `{}` takes an output of type `{kind}`; {}", self.task.name, self.known())))
    }

    /// All names that mean a route or an end.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let labels = self.task.routes.iter().filter_map(|route| route.label);
        labels.chain(self.task.ends.iter().copied()).chain(self.targets.iter().map(|(name, _)| *name)).collect()
    }

    fn known(&self) -> String {
        format!("known are `{}`", self.names().join("`, `"))
    }
}
