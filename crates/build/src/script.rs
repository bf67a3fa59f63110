//! The one call in `build.rs`.

use crate::{
    env::BuildScript,
    generate::{Generated, Package, generate},
    manifest,
    stubs::{self, StubChange},
    version,
};
use leatworks_topology::Project;
use std::{io, path::Path};

/// Reads `Project.toml`, generates the code of its topologies into `OUT_DIR` and keeps the stubs in `src/bin` fresh.
///
/// What is wrong with the project is reported as errors of the build, all of it at once. When topologies or tasks were added or
/// removed, the stubs are written and the build fails once with a sentence that says so, since cargo had already listed the binaries.
/// Nothing is written to the source tree where `CI` is set, with `LEAT_FROZEN=1`, or in a copy of the package that cargo made.
///
/// The script itself ends successfully in both cases: cargo fails the build for the errors alone, and would print them twice otherwise.
pub fn project() {
    let script = BuildScript::from_cargo();
    for variable in ["CI", "LEAT_FROZEN", version::VARIABLE] {
        script.rerun_if_env_changed(variable);
    }
    for file in ["build.rs", "Cargo.toml", "Project.toml"] {
        script.rerun_if_changed(&script.root.join(file));
    }
    if let Err(message) = run(&script) {
        script.error(&message);
    }
}

fn run(script: &BuildScript) -> Result<(), String> {
    let project = leatworks_topology::load(&script.root).map_err(|diagnostics| diagnostics.render(false))?;
    for file in project.files() {
        script.rerun_if_changed(&script.root.join(file));
    }
    let library = manifest::read(&script.root).map_err(|error| error.to_string())?.library;
    sync(script, &project)?;
    let package = Package { library, version: build_version(script) };
    let generated = generate(&project, &package).map_err(|error| format!("{error} (a fault of Leatworks)"))?;
    write(&script.out, &generated).map_err(|error| format!("writing to `{}`: {error}", script.out.display()))
}

/// One sentence per change, or what hinders it.
fn sync(script: &BuildScript, project: &Project) -> Result<(), String> {
    let change = stubs::sync_stubs(&script.root, project).map_err(|error| error.to_string())?;
    script.rerun_if_changed(&script.root.join("src/bin"));
    if change.is_empty() { Ok(()) } else { Err(announce(&change)) }
}

/// ``task `x` added: src/bin/x.rs written; run the same command again``.
fn announce(change: &StubChange) -> String {
    let list = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let told = |names: &[String], what: &str, done: &str| match names {
        [] => None,
        [name] => Some(format!("`{name}` {what}: src/bin/{name}.rs {done}")),
        names => Some(format!("{} {what}: their files in src/bin {done}", list(names))),
    };
    let parts = [told(&change.added, "added", "written"), told(&change.removed, "removed", "deleted")];
    format!("{}; run the same command again", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn build_version(script: &BuildScript) -> String {
    if let Ok(version) = std::env::var(version::VARIABLE) {
        return version;
    }
    if let Some(file) = version::commit_file(&script.root) {
        script.rerun_if_changed(&file);
    }
    version::script_version(&script.root, &script.version)
}

/// Writes what changed only: cargo and editors look at the time of a file.
fn write(out: &Path, generated: &Generated) -> io::Result<()> {
    for file in &generated.files {
        let path = out.join(&file.name);
        if std::fs::read(&path).is_ok_and(|text| text == file.text.as_bytes()) {
            continue;
        }
        std::fs::write(path, &file.text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_set_is_one_sentence() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (added, removed, expected) in [
            (&["x"][..], &[][..], "`x` added: src/bin/x.rs written; run the same command again"),
            (
                &["x", "y"],
                &["z"],
                "`x`, `y` added: their files in src/bin written, `z` removed: src/bin/z.rs deleted; run the same command again",
            ),
        ] {
            assert_eq!(announce(&StubChange { added: names(added), removed: names(removed) }), expected);
        }
    }
}
