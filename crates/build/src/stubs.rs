//! The stubs under `src/bin`: one constant file per binary. Its content never changes, only whether it is there.

use crate::manifest;
use leatworks_topology::Project;
use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
};

/// The content of every stub.
pub const STUB: &str = "\
//! A binary that Leatworks generates from `Project.toml`. This file is the same for every task: only whether it exists matters.

include!(concat!(env!(\"OUT_DIR\"), \"/\", env!(\"CARGO_BIN_NAME\"), \".rs\"));
";

/// Where cargo looks for binaries.
const FOLDER: &str = "src/bin";

/// How the stubs differ from the project's topologies and tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StubChange {
    /// Binaries without a stub, in order.
    pub added: Vec<String>,
    /// Stubs without a topology or task, in order.
    pub removed: Vec<String>,
}

impl StubChange {
    /// Whether the stubs are as they should be.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Why stubs could not be compared or written.
#[derive(Debug, thiserror::Error)]
pub enum StubError {
    /// A file of the user's own has the name of a topology or task.
    #[error(
        "`{file}` is not a stub of Leatworks, but `{name}` is a topology or task of this project: give one of them another name"
    )]
    Clash {
        /// The file, relative to the package.
        file: String,
        /// The topology or task.
        name: String,
    },
    /// The stubs are not those of the project, and must not or cannot be written here.
    #[error("{change}: not written, since {reason}; run `leat build` or `cargo build` in the source tree and commit `src/bin`")]
    Frozen {
        /// What would have to change.
        change: StubChange,
        /// Why nothing is written.
        reason: String,
    },
    /// A file could not be read, written or removed.
    #[error("`{file}`: {cause}")]
    Io {
        /// The file, relative to the package.
        file: String,
        /// What the system says.
        cause: io::Error,
    },
}

impl fmt::Display for StubChange {
    /// `task set changed: send without src/bin/send.rs, old without a task`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = self.added.iter().map(|name| format!("`{name}` has no {}", stub_file(name)));
        let removed = self.removed.iter().map(|name| format!("{} has no topology or task", stub_file(name)));
        out.write_str(&added.chain(removed).collect::<Vec<_>>().join(", "))
    }
}

fn stub_file(name: &str) -> String {
    format!("{FOLDER}/{name}.rs")
}

/// The binaries of a project: each topology and each task.
pub(crate) fn binaries(project: &Project) -> BTreeSet<String> {
    let of = |topology: &leatworks_topology::Topology| {
        let tasks = topology.tasks().iter().map(|task| task.name().to_string());
        std::iter::once(topology.name().to_string()).chain(tasks).collect::<Vec<_>>()
    };
    project.topologies().iter().flat_map(of).collect()
}

/// Compares the stubs in the package at `root` with the binaries of its project. Writes nothing.
pub(crate) fn compare(root: &Path, binaries: &BTreeSet<String>) -> Result<StubChange, StubError> {
    let mut change = StubChange::default();
    for name in binaries {
        let file = stub_file(name);
        match std::fs::read_to_string(root.join(&file)) {
            Ok(text) if is_stub(&text) => {}
            Ok(_) => return Err(StubError::Clash { file, name: name.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => change.added.push(name.clone()),
            Err(cause) => return Err(StubError::Io { file, cause }),
        }
        let folder = format!("{FOLDER}/{name}/main.rs");
        if root.join(&folder).exists() {
            return Err(StubError::Clash { file: folder, name: name.clone() });
        }
    }
    change.removed = stubs_in(root)?.into_iter().filter(|name| !binaries.contains(name)).collect();
    Ok(change)
}

/// The names of all stubs, told by their content: a file of the user's own is never among them.
fn stubs_in(root: &Path) -> Result<BTreeSet<String>, StubError> {
    let failed = |cause| StubError::Io { file: FOLDER.to_owned(), cause };
    let entries = match std::fs::read_dir(root.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(cause) => return Err(failed(cause)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let path: PathBuf = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), Some("rs")) = (name, path.extension().and_then(|ending| ending.to_str()))
            && std::fs::read_to_string(&path).is_ok_and(|text| is_stub(&text))
        {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Git may have written the file with the line ends of the system.
fn is_stub(text: &str) -> bool {
    text.replace("\r\n", "\n") == STUB
}

/// Writes missing stubs and removes those without a topology or task.
pub(crate) fn apply(root: &Path, change: &StubChange) -> Result<(), StubError> {
    let result = |file: String, result: io::Result<()>| {
        result.map_err(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StubError::Frozen { change: change.clone(), reason: format!("`{file}` cannot be written here ({cause})") }
            }
            _ => StubError::Io { file, cause },
        })
    };
    if !change.added.is_empty() {
        result(FOLDER.to_owned(), std::fs::create_dir_all(root.join(FOLDER)))?;
    }
    for name in &change.added {
        result(stub_file(name), std::fs::write(root.join(stub_file(name)), STUB))?;
    }
    for name in &change.removed {
        result(stub_file(name), std::fs::remove_file(root.join(stub_file(name))))?;
    }
    Ok(())
}

/// Brings the stubs of the package at `root` up to the project, and says what was changed.
///
/// # Errors
/// See [`StubError`]. Where the tree is frozen (`CI` is set, `LEAT_FROZEN=1`, or it is no source tree) a difference is an error and
/// nothing is written.
pub fn sync_stubs(root: &Path, project: &Project) -> Result<StubChange, StubError> {
    let change = compare(root, &binaries(project))?;
    match frozen(root) {
        _ if change.is_empty() => Ok(change),
        Some(reason) => Err(StubError::Frozen { change, reason }),
        None => apply(root, &change).map(|()| change),
    }
}

/// Why nothing may be written here, if so.
fn frozen(root: &Path) -> Option<String> {
    let set = |variable: &str| std::env::var(variable).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    let checkout = root.components().map(|part| part.as_os_str()).collect::<Vec<_>>();
    if let Some(variable) = ["LEAT_FROZEN", "CI"].into_iter().find(|variable| set(variable)) {
        Some(format!("`{variable}` is set"))
    } else if root.join("Cargo.toml.orig").exists() || checkout.windows(2).any(|pair| pair == ["git", "checkouts"]) {
        // Cargo leaves the original manifest beside the one it rewrote in every package that it unpacks.
        Some("this is a copy that cargo made of the package".to_owned())
    } else {
        None
    }
}

/// For a test in your project: panics unless every topology and task has its stub and no stub is left over.
///
/// ```no_run
/// #[test]
/// fn stubs_are_fresh() {
///     leatworks_build::assert_stubs_are_fresh(env!("CARGO_MANIFEST_DIR"));
/// }
/// ```
///
/// # Panics
/// If the stubs in `src/bin` under `root` are not those of its project, or the project is wrong; the message says what to do.
pub fn assert_stubs_are_fresh(root: impl AsRef<Path>) {
    if let Err(problem) = stubs_are_fresh(root.as_ref()) {
        panic!("{problem}");
    }
}

/// Whether every topology and task of the package at `root` has its stub and no stub is left over.
///
/// # Errors
/// What is wrong, in words for a person.
pub fn stubs_are_fresh(root: &Path) -> Result<(), String> {
    manifest::read(root).map_err(|error| error.to_string())?;
    let project = leatworks_topology::load(root).map_err(|diagnostics| diagnostics.render(false))?;
    let change = compare(root, &binaries(&project)).map_err(|error| error.to_string())?;
    if change.is_empty() { Ok(()) } else { Err(format!("{change}: run `leat build` or `cargo build`, and commit `src/bin`")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn stubs_follow_the_tasks_and_files_of_the_user_stay() {
        let own = "fn main() {}\n";
        let root = package(&[("src/bin/old.rs", STUB), ("src/bin/kept.rs", STUB), ("src/bin/own.rs", own)]);
        let wanted = names(&["kept", "fresh"]);
        let change = compare(root.path(), &wanted).expect("compared");
        assert_eq!(change, StubChange { added: vec!["fresh".to_owned()], removed: vec!["old".to_owned()] });
        assert_eq!(change.to_string(), "`fresh` has no src/bin/fresh.rs, src/bin/old.rs has no topology or task");
        apply(root.path(), &change).expect("applied");
        assert!(compare(root.path(), &wanted).expect("compared").is_empty());
        assert_eq!(std::fs::read_to_string(root.path().join("src/bin/own.rs")).expect("a file"), own);
        assert!(!root.path().join("src/bin/old.rs").exists());
    }

    #[test]
    fn a_file_of_the_user_is_never_taken_for_a_stub() {
        for file in ["src/bin/send.rs", "src/bin/send/main.rs"] {
            let root = package(&[("src/bin/other.rs", STUB), (file, "fn main() {}")]);
            let error = compare(root.path(), &names(&["send", "other"])).expect_err("a clash");
            assert!(matches!(&error, StubError::Clash { file: clash, .. } if clash == file), "{error}");
        }
    }

    #[test]
    fn line_ends_of_the_system_do_not_matter() {
        let root = package(&[("src/bin/send.rs", &STUB.replace('\n', "\r\n"))]);
        assert!(compare(root.path(), &names(&["send"])).expect("compared").is_empty());
    }

    #[test]
    fn a_copy_made_by_cargo_is_frozen() {
        let root = package(&[("Cargo.toml.orig", "")]);
        assert!(frozen(root.path()).is_some());
        assert!(frozen(Path::new("/x/.cargo/git/checkouts/shop-1/2")).is_some());
    }
}
