//! New projects from the template under `templates/project`, which works with cargo-generate as well.

use handlebars::Handlebars;
use std::{
    io,
    path::{Path, PathBuf},
};

/// How [`new_project`] makes a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewProject {
    /// Take Leatworks from the crates of this checkout; otherwise from the package registry, in the version of this crate.
    pub workspace: Option<PathBuf>,
}

/// What [`new_project`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// How many files it has written.
    pub files: usize,
}

/// Why no project was made.
#[derive(Debug, thiserror::Error)]
pub enum NewProjectError {
    /// The name cannot be that of a project, a package and a broker's topic.
    #[error("`{name}` cannot be a project's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is something at the place already.
    #[error("`{}` exists already and is not empty", .0.display())]
    Occupied(PathBuf),
    /// A file could not be written.
    #[error("`{}`: {cause}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The template is broken, which is a fault of Leatworks.
    #[error("template `{file}`: {cause}")]
    Template {
        /// The file of the template.
        file: &'static str,
        /// What handlebars says.
        cause: String,
    },
}

macro_rules! template {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../templates/project/", $file)))),*]
    };
}

/// The files of the template. `.liquid` is what cargo-generate takes off a name: with it neither cargo nor git take the file for their own.
const FILES: &[(&str, &str)] = template![
    ".gitignore.liquid",
    "Cargo.toml.liquid",
    "Project.toml",
    "README.md",
    "build.rs",
    "data/orders.csv",
    "src/bin/check.rs",
    "src/bin/orders.rs",
    "src/bin/read.rs",
    "src/bin/report.rs",
    "src/bin/total.rs",
    "src/lib.rs",
    "src/tasks.rs",
    "tests/project.rs",
    "topologies/orders.toml",
];

/// Names that cargo or Rust keep for themselves, or that would shadow a crate which the generated code names.
const RESERVED: &[&str] = &[
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "leatworks",
    "leatworks-build",
    "proc-macro",
    "serde",
    "std",
    "test",
    "tokio",
];

/// The longest name: it becomes part of names that Kubernetes limits to 63 characters.
const NAME_LENGTH_MAX: usize = 63;

/// Makes a project named `name` in the folder `dir`, which must not exist or be empty.
///
/// # Errors
/// See [`NewProjectError`]. Nothing is ever overwritten.
pub fn new_project(dir: &Path, name: &str, options: &NewProject) -> Result<Made, NewProjectError> {
    check_name(name)?;
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        return Err(NewProjectError::Occupied(dir.to_owned()));
    }
    let files = render(name, options.workspace.as_deref())?;
    for (file, text) in &files {
        let path = dir.join(file);
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|cause| NewProjectError::Io { file: path.clone(), cause })?;
    }
    Ok(Made { files: files.len() })
}

fn check_name(name: &str) -> Result<(), NewProjectError> {
    let refuse = |reason: String| Err(NewProjectError::Name { name: name.to_owned(), reason });
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) || name.ends_with('-') {
        let better: String = name.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
        let better = better.trim_matches(|c: char| !c.is_ascii_lowercase());
        let hint = if better.is_empty() { String::new() } else { format!("; for example `{better}`") };
        return refuse(format!("it must begin with a letter and hold nothing but `a` to `z`, digits and `-`{hint}"));
    }
    if name.len() > NAME_LENGTH_MAX {
        return refuse(format!("it has {} characters, and {NAME_LENGTH_MAX} are possible", name.len()));
    }
    if RESERVED.contains(&name) || syn::parse_str::<syn::Ident>(&name.replace('-', "_")).is_err() {
        return refuse("cargo or Rust keep it for themselves".to_owned());
    }
    Ok(())
}

fn render(name: &str, workspace: Option<&Path>) -> Result<Vec<(PathBuf, String)>, NewProjectError> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    let values = serde_json::json!({ "project-name": name, "crate_name": name.replace('-', "_") });
    let mut files = Vec::new();
    for (file, template) in FILES {
        let text = registry
            .render_template(template, &values)
            .map_err(|error| NewProjectError::Template { file, cause: error.to_string() })?;
        let renamed = file.strip_suffix(".liquid").unwrap_or(file);
        let text = if renamed == "Cargo.toml" { take_from(&text, workspace) } else { text };
        files.push((PathBuf::from(renamed), text));
    }
    Ok(files)
}

/// Rewrites the dependencies on Leatworks. The template names the registry, since that is what cargo-generate's users have.
fn take_from(manifest: &str, workspace: Option<&Path>) -> String {
    let Some(workspace) = workspace else { return manifest.to_owned() };
    let version = env!("CARGO_PKG_VERSION");
    [("leatworks", "runtime"), ("leatworks-build", "build")].iter().fold(manifest.to_owned(), |text, (package, folder)| {
        let path = toml::Value::String(workspace.join("crates").join(folder).display().to_string());
        text.replace(&format!("\n{package} = \"{version}\"\n"), &format!("\n{package} = {{ path = {path} }}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn files_under(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files_under(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).expect("below").to_string_lossy().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_file_of_the_template_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/project");
        let mut found = BTreeSet::new();
        files_under(&root, &root, &mut found);
        let listed = FILES.iter().map(|(file, _)| (*file).to_owned());
        let expected: BTreeSet<String> = listed.chain(["cargo-generate.toml".to_owned()]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn stubs_of_the_template_are_stubs() {
        for (file, text) in FILES.iter().filter(|(file, _)| file.starts_with("src/bin/")) {
            assert_eq!(*text, crate::STUB, "{file}");
        }
    }

    #[test]
    fn both_sources_of_leatworks_stand_in_the_manifest() {
        let manifest = |workspace: Option<&str>| {
            let files = render("my-shop", workspace.map(Path::new)).expect("rendered");
            let (_, text) = files.into_iter().find(|(file, _)| file == Path::new("Cargo.toml")).expect("a manifest");
            text.parse::<toml::Table>().expect("TOML")
        };
        let table = manifest(None);
        assert_eq!(table["package"]["name"].as_str(), Some("my-shop"));
        assert_eq!(table["dependencies"]["leatworks"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(table["build-dependencies"]["leatworks-build"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        let table = manifest(Some("/src/leat \"works\""));
        assert_eq!(table["dependencies"]["leatworks"]["path"].as_str(), Some("/src/leat \"works\"/crates/runtime"));
        assert_eq!(table["build-dependencies"]["leatworks-build"]["path"].as_str(), Some("/src/leat \"works\"/crates/build"));
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_a_better_one() {
        for (name, expected) in [
            ("My_Shop", "for example `my-shop`"),
            ("1shop", "for example `shop`"),
            ("", "must begin with a letter"),
            ("../x", "for example `x`"),
            ("shop-", "for example `shop`"),
            ("fn", "keep it for themselves"),
            ("std", "keep it for themselves"),
            ("żółw", "must begin with a letter"),
        ] {
            let error = check_name(name).expect_err(name).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(check_name(&"a".repeat(64)).is_err());
        for name in ["shop", "my-shop-2"] {
            check_name(name).expect(name);
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("notes"), "").expect("a file");
        let error = new_project(dir.path(), "shop", &NewProject::default()).expect_err("refused");
        assert!(matches!(error, NewProjectError::Occupied(_)), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }
}
