//! Files that travel with messages: by name, not by content.

use crate::JobError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The key of a payload that lists the files of its message.
pub const FILES_KEY: &str = "leat-files";

/// The longest path of a file: what file systems and object stores bear.
const PATH_BYTES_MAX: usize = 1000;

/// A file that travels with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Its name for the worker: a path below `in/data` with `/` between folders.
    pub path: String,
    /// Where it lies in the store.
    pub key: String,
    /// How many bytes it has. A file that a person has laid into the store need not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The XXH3 checksum of its content, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xxh3: Option<String>,
}

/// A relative path from text that a worker or a message gives: nothing in it leads out of the folder that it is below.
pub(crate) fn relative(path: &str) -> Result<PathBuf, JobError> {
    let wrong = |why: &str| Err(JobError::permanent(format!("`{path}` is no path of a file here: {why}")));
    if path.len() > PATH_BYTES_MAX {
        return wrong("it is too long");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return wrong("it has a sign that no path has");
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return wrong("it is to be relative, without `.`, `..` and empty parts");
    }
    Ok(path.split('/').collect())
}

/// The file of this path below a folder. A link anywhere on the way is refused: it could lead to what is none of the worker's.
pub(crate) fn below(folder: &Path, path: &str) -> Result<PathBuf, JobError> {
    let mut at = folder.to_owned();
    let mut kind = None;
    for part in relative(path)?.components() {
        at.push(part);
        let found = std::fs::symlink_metadata(&at).map_err(|error| {
            JobError::failed(format!("an event names the file `{path}`, which is not in `out/data`: {error}"))
        })?;
        if found.file_type().is_symlink() {
            return Err(JobError::permanent(format!(
                "an event names the file `{path}`, which is a link or behind one: copy it instead"
            )));
        }
        kind = Some(found.file_type());
    }
    match kind {
        Some(kind) if kind.is_file() => Ok(at),
        _ => Err(JobError::permanent(format!("an event names the file `{path}`, which is a folder or no plain file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_folder() {
        for path in ["a", "a/b.txt", "größe/ü", "..a/b..", "a b"] {
            assert!(relative(path).is_ok(), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", ".", "../a", "a/../b", "a/./b", "a\\b", "a\nb", &"x".repeat(1001)] {
            assert!(relative(path).is_err(), "{path}");
        }
    }

    #[test]
    fn links_and_folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("deep/er")).unwrap();
        std::fs::write(folder.path().join("deep/er/a"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("linked")).unwrap();
        assert!(below(folder.path(), "deep/er/a").is_ok());
        for (path, told) in
            [("link", "link"), ("linked/hostname", "link"), ("deep/er", "folder"), ("missing", "not in `out/data`")]
        {
            let error = below(folder.path(), path).unwrap_err().to_string();
            assert!(error.contains(told), "{path}: {error}");
        }
    }
}
