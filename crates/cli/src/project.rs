//! Finds the project that a command is about, and loads it with all its diagnostics.

use crate::{
    args::{Check, Global, Output},
    exit::{Code, Doing, Failure, Result, say},
};
use leatworks::config::{Config, Flags};
use leatworks_topology::{Diagnostics, Project, Topology};
use std::path::{Path, PathBuf};

/// A project that was found and is valid.
pub(crate) struct Found {
    /// The folder that holds `Project.toml`.
    pub(crate) root: PathBuf,
    /// What it declares.
    pub(crate) project: Project,
}

impl Found {
    /// The configuration of the project.
    ///
    /// From here on this process works in the project's folder, as `leat run` has the topology's own binary do: `leat.toml` lies there, and a relative path in it
    /// is the same for both, wherever the command was typed. A data folder that was typed is meant from where that was.
    pub(crate) fn config(&self, flags: Flags) -> Result<Config> {
        let data = flags.data.as_deref().map(absolute).transpose()?;
        std::env::set_current_dir(&self.root).doing(|| format!("going to the project's folder `{}`", self.root.display()))?;
        Config::load(self.project.name(), &Flags { data, ..flags }).map_err(|error| Failure::new(Code::Invalid, error))
    }

    /// The topology of this name; without one, the only topology that there is.
    pub(crate) fn topology(&self, name: Option<&str>) -> Result<&Topology> {
        let all = self.project.topologies();
        let names = || all.iter().map(|topology| format!("`{}`", topology.name().as_str())).collect::<Vec<_>>().join(", ");
        match (name, all) {
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::new(Code::Usage, format!("the project has several topologies; name one of {}", names()))),
            (Some(name), _) => self
                .project
                .topology(name)
                .ok_or_else(|| Failure::new(Code::Nothing, format!("no topology is called `{name}`; there are {}", names()))),
        }
    }
}

/// A path as it is meant here, for when this process works elsewhere.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).doing(|| format!("looking for `{}`", path.display()))
}

/// The folder of the project: the given one, or the nearest upwards that holds a `Project.toml`.
pub(crate) fn root(global: &Global) -> Result<PathBuf> {
    if let Some(root) = &global.project {
        return Ok(root.clone());
    }
    let here = std::env::current_dir()?;
    here.ancestors().find(|folder| folder.join("Project.toml").is_file()).map(PathBuf::from).ok_or_else(|| {
        Failure::new(
            Code::Invalid,
            format!(
                "no Project.toml in `{}` or above it; go to a project, name one with --project, or make one with `leat new NAME`",
                here.display()
            ),
        )
    })
}

/// Loads the project; all its errors go to standard error at once.
pub(crate) fn load(global: &Global, color: bool) -> Result<Found> {
    load_or(global, |diagnostics| eprint!("{}", diagnostics.render(color)))
}

/// Loads the project, or tells all its errors.
fn load_or(global: &Global, tell: impl FnOnce(&Diagnostics)) -> Result<Found> {
    let root = root(global)?;
    match leatworks_topology::load(&root) {
        Ok(project) => Ok(Found { root: absolute(&root)?, project }),
        Err(diagnostics) => {
            tell(&diagnostics);
            Err(Failure::reported(Code::Invalid))
        }
    }
}

/// `leat check`.
pub(crate) fn check(args: &Check, global: &Global, color: bool) -> Result {
    let for_people = args.message_format == Output::Table;
    let found = if for_people { load(global, color)? } else { load_or(global, print_json)? };
    // No data is looked at, so that there is no place for it is no error here.
    let config = found.config(Flags { data: Some(found.root.clone()), ..Flags::default() })?;
    let names = |topology: &'_ Topology| topology.tasks().iter().map(|task| task.name().to_string()).collect::<Vec<_>>();
    let topologies = found.project.topologies().iter().map(|topology| (topology.name().to_string(), names(topology)));
    config.fits(&topologies.collect()).map_err(|error| Failure::new(Code::Invalid, error))?;
    if for_people && !global.quiet {
        for topology in found.project.topologies() {
            let (tasks, edges) = (topology.tasks().len(), topology.edges().len());
            eprintln!("{:>12} {}: {tasks} tasks, {edges} edges, acyclic", "Checked", topology.name().as_str());
        }
        eprintln!("{:>12} the types of the edges are checked by `leat build`", "Note");
    }
    Ok(())
}

/// One JSON object a line, with bytes counted from 0 and lines and columns from 1.
fn print_json(diagnostics: &Diagnostics) {
    for diagnostic in diagnostics.iter() {
        let labels: Vec<_> = diagnostic
            .labels()
            .iter()
            .map(|label| {
                serde_json::json!({
                    "file": label.file(), "line": label.line(), "column": label.column(),
                    "start": label.span().start, "end": label.span().end,
                    "text": label.text(), "primary": label.primary(),
                })
            })
            .collect();
        let value = serde_json::json!({
            "schema": "leat.diagnostic/v1", "code": diagnostic.code(), "severity": diagnostic.severity().as_str(),
            "message": diagnostic.message(), "labels": labels, "help": diagnostic.help(), "note": diagnostic.note(),
        });
        say!("{value}");
    }
}
