//! From a project to the text of its generated files. Pure: the same project and package give the same bytes.

use crate::{
    text::literal,
    view::{ProjectView, TaskView, TopologyView},
};
use handlebars::{Handlebars, handlebars_helper};
use leatworks_topology::Project;
use serde::Serialize;

/// What generated code needs to know of the package it becomes part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The name of its library in Rust, `mailroom` or `my_project`.
    pub library: String,
    /// The build version that its binaries tell, see [`build_version`](crate::build_version).
    pub version: String,
}

/// One generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Its name in the output folder.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// All generated files of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The library's module, one file per binary, and the drawings, in an order that depends on the project alone.
    pub files: Vec<GeneratedFile>,
    /// The binaries: each topology, then its tasks.
    pub binaries: Vec<String>,
}

/// Why code could not be generated. Both kinds are faults of Leatworks, not of a project.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A template does not fit its data.
    #[error("template `{template}`: {cause}")]
    Template {
        /// The template's name under `templates/codegen`.
        template: &'static str,
        /// What handlebars says.
        cause: String,
    },
    /// What a template gave is no Rust.
    #[error("generated file `{file}` is no Rust: {cause}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What the parser says.
        cause: syn::Error,
    },
}

/// The file that `leatworks::topologies!()` includes. No binary can have this name, since a task's name has no dot.
const LIBRARY_FILE: &str = "topologies.rs";

const TOPOLOGIES: &str = "topologies";
const BINARY: &str = "binary";

/// Generates the code of a project for a package.
///
/// # Errors
/// [`GenerateError`] means that Leatworks itself is wrong: a [`Project`] has passed every check.
pub fn generate(project: &Project, package: &Package) -> Result<Generated, GenerateError> {
    let templates = templates()?;
    let view = ProjectView::new(project, package);
    let mut files = vec![rust(LIBRARY_FILE, &render(&templates, TOPOLOGIES, &view)?)?];
    let mut binaries = Vec::new();
    for topology in &view.topologies {
        for binary in binary_views(&package.library, topology) {
            files.push(rust(&format!("{}.rs", binary.name), &render(&templates, BINARY, &binary)?)?);
            binaries.push(binary.name);
        }
    }
    for topology in view.topologies {
        files.push(GeneratedFile { name: topology.page, text: page(&topology.docs) });
        files.extend(topology.drawings.into_iter().map(|drawing| GeneratedFile { name: drawing.file, text: drawing.text }));
    }
    Ok(Generated { files, binaries })
}

#[derive(Serialize)]
struct BinaryView {
    #[serde(skip)]
    name: String,
    entry: &'static str,
    library: String,
    topology: String,
    definition: String,
}

fn binary_views(library: &str, topology: &TopologyView) -> Vec<BinaryView> {
    let view = |name: &str, entry, definition| BinaryView {
        name: name.to_owned(),
        entry,
        library: library.to_owned(),
        topology: topology.module.clone(),
        definition,
    };
    let whole = view(&topology.name, "main_topology", "TOPOLOGY".to_owned());
    let task = |task: &TaskView| view(&task.name, "main_task", format!("tasks::{}", task.constant));
    std::iter::once(whole).chain(topology.tasks.iter().map(task)).collect()
}

/// Lines of documentation as the page that rustdoc includes. Each begins with the blank that follows `///`.
fn page(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

handlebars_helper!(text_helper: |value: str| literal(value));

/// The registry: strict, so that a misspelt field is an error, and without HTML escaping, since what comes out is Rust.
fn templates() -> Result<Handlebars<'static>, GenerateError> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.register_helper("text", Box::new(text_helper));
    for (name, template) in [
        (TOPOLOGIES, include_str!("../templates/codegen/topologies.hbs")),
        (BINARY, include_str!("../templates/codegen/binary.hbs")),
        ("duration", include_str!("../templates/codegen/duration.hbs")),
        ("builtin", include_str!("../templates/codegen/builtin.hbs")),
    ] {
        registry
            .register_template_string(name, template)
            .map_err(|error| GenerateError::Template { template: name, cause: error.to_string() })?;
    }
    Ok(registry)
}

fn render(templates: &Handlebars<'_>, template: &'static str, view: &impl Serialize) -> Result<String, GenerateError> {
    templates.render(template, view).map_err(|error| GenerateError::Template { template, cause: error.to_string() })
}

fn rust(file: &str, text: &str) -> Result<GeneratedFile, GenerateError> {
    let syntax = syn::parse_file(text).map_err(|cause| GenerateError::Syntax { file: file.to_owned(), cause })?;
    Ok(GeneratedFile { name: file.to_owned(), text: prettyplease::unparse(&syntax) })
}
