//! The build version: which source a binary was built from.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The variable by which `leat build` hands the build version to the build script, so that both speak of the same one.
pub(crate) const VARIABLE: &str = "LEAT_BUILD_VERSION";

/// The build version of the package at `root`: `0.1.0` without git, `0.1.0+6e1cb8c` in a clean repository, and
/// `0.1.0+6e1cb8c.dirty` with uncommitted changes.
pub fn build_version(root: &Path, package_version: &str) -> String {
    let Some(commit) = commit(root) else { return package_version.to_owned() };
    let dirty = git(root, &["status", "--porcelain", "--", "."]).is_none_or(|changes| !changes.is_empty());
    join(package_version, &commit, if dirty { ".dirty" } else { "" })
}

/// The build version as a build script can know it: it does not run when a source file changes, so instead of whether there are
/// uncommitted changes it says `dev`.
pub(crate) fn script_version(root: &Path, package_version: &str) -> String {
    commit(root).map_or_else(|| package_version.to_owned(), |commit| join(package_version, &commit, ".dev"))
}

/// The file that changes whenever the commit does, if there is a repository.
pub(crate) fn commit_file(root: &Path) -> Option<PathBuf> {
    ["logs/HEAD", "HEAD"]
        .into_iter()
        .filter_map(|file| git(root, &["rev-parse", "--git-path", file]))
        .map(|path| root.join(path))
        .find(|path| path.is_file())
}

fn commit(root: &Path) -> Option<String> {
    git(root, &["rev-parse", "--short=7", "HEAD"])
}

/// A version may already hold build metadata, which a second `+` would make invalid.
fn join(version: &str, commit: &str, mark: &str) -> String {
    let separator = if version.contains('+') { '.' } else { '+' };
    format!("{version}{separator}{commit}{mark}")
}

/// What git prints, or nothing where there is no git, no repository or no commit.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_version_tells_commit_and_changes() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let root = root.path();
        assert_eq!(build_version(root, "1.2.3"), "1.2.3");
        let git = |args: &[&str]| {
            let identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"];
            let status = Command::new("git").args(identity).args(args).current_dir(root).status().expect("git runs");
            assert!(status.success());
        };
        git(&["init", "--quiet"]);
        assert_eq!(build_version(root, "1.2.3"), "1.2.3", "a repository without a commit");
        git(&["commit", "--quiet", "--allow-empty", "--message", "first"]);
        let commit = commit(root).expect("a commit");
        assert_eq!(build_version(root, "1.2.3"), format!("1.2.3+{commit}"));
        assert_eq!(build_version(root, "1.2.3+linux"), format!("1.2.3+linux.{commit}"));
        assert_eq!(script_version(root, "1.2.3"), format!("1.2.3+{commit}.dev"));
        assert!(commit_file(root).is_some());
        std::fs::write(root.join("new"), "").expect("a file");
        assert_eq!(build_version(root, "1.2.3"), format!("1.2.3+{commit}.dirty"));
    }
}
