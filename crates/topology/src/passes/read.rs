//! Reads `Project.toml` and its members.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;

use toml::de::DeTable;

use crate::diagnostics::{At, Diagnostic, LineStarts, Place, Reports, codes};
use crate::spec::{self, SourceFile, Table, TopologySpec};
use crate::{FILE_BYTES_MAX, Sources};

/// The file that makes a folder a project.
const PROJECT_FILE: &str = "Project.toml";

/// The most syntax errors shown of one file: behind the first few they are mostly consequences.
const SYNTAX_ERRORS_MAX: usize = 10;

/// What the files say.
#[derive(Default)]
pub(super) struct Files {
    /// Missing only when something was reported.
    pub(super) project_name: Option<At<String>>,
    pub(super) description: Option<String>,
    pub(super) paths: Vec<String>,
    pub(super) topologies: Vec<TopologySpec>,
}

pub(super) fn run(sources: &dyn Sources, reports: &mut Reports) -> Files {
    let mut files = Files::default();
    let text = match sources.read(PROJECT_FILE) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("`{PROJECT_FILE}` cannot be read: {}", reason(&error));
            let help = "go to the folder that holds it, or make a project with `leat new NAME`";
            reports.push(Diagnostic::new(&codes::NOT_READ, message).with_help(help));
            return files;
        }
    };
    files.paths.push(PROJECT_FILE.to_owned());
    let Some(project) = with_table(PROJECT_FILE, text, reports, spec::project).flatten() else { return files };
    for (path, place) in members(&project.members, reports) {
        match sources.read(&path) {
            Ok(text) => {
                files.topologies.extend(with_table(&path, text, reports, spec::member).unwrap_or_default());
                files.paths.push(path);
            }
            Err(error) => unreadable(&path, &place, &error, reports),
        }
    }
    files.project_name = Some(project.name);
    files.description = project.description;
    files
}

/// Parses a file as TOML and hands its root on; nothing is read from a file with syntax errors, since keys may be missing for that reason only.
fn with_table<T>(path: &str, text: String, reports: &mut Reports, read: impl FnOnce(&Table<'_>, &mut Reports) -> T) -> Option<T> {
    let file = SourceFile { path: path.into(), text: text.into() };
    reports.add_file(&file.path, &file.text);
    let (root, errors) = DeTable::parse_recoverable(&file.text);
    let lines = LineStarts::new(&file.text);
    // One error for each line: the others on it are mostly consequences.
    let mut seen = HashSet::new();
    let spans = errors.iter().map(|error| (error.span().unwrap_or(0..0), error));
    for (span, error) in spans.filter(|(span, _)| seen.insert(lines.line(span.start))).take(SYNTAX_ERRORS_MAX) {
        let place = Place { file: file.path.clone(), span };
        let diagnostic =
            Diagnostic::at(&codes::SYNTAX, &place, format!("this is not TOML: {}", error.message()), "not understood");
        reports.push(diagnostic.with_help(syntax_help(error.message())));
    }
    errors.is_empty().then(|| read(&Table::root(&file, root.get_ref()), reports))
}

/// What mostly lies behind a message of the TOML parser.
fn syntax_help(message: &str) -> &'static str {
    if message.contains("string") {
        "close the text with the quotes it begins with; a text of several lines stands between `\"\"\"`"
    } else if message.contains("duplicate") {
        "each key and each `[table]` stands once; `[[topology]]` and `[[topology.task]]` have two brackets"
    } else {
        "see <https://toml.io> for how keys, texts and tables are written"
    }
}

/// The paths of the members, clean and each once.
fn members(listed: &[At<String>], reports: &mut Reports) -> Vec<(String, Place)> {
    let mut seen: HashMap<String, Place> = HashMap::new();
    let mut paths = Vec::new();
    for At { value, place } in listed {
        let Some(path) = inside(value) else {
            let message = format!("the member `{value}` is outside of the project");
            let diagnostic = Diagnostic::at(&codes::OUTSIDE, place, message, "leads out of the project");
            reports.push(
                diagnostic.with_help(format!("give a path below the folder of `{PROJECT_FILE}`, with `/` between folders")),
            );
            continue;
        };
        if path == PROJECT_FILE {
            let diagnostic = Diagnostic::at(&codes::MEMBER_TWICE, place, "the project is no member of itself", "this file");
            reports.push(diagnostic.with_help("declare topologies in a file of their own and list that"));
            continue;
        }
        if let Some(first) = seen.insert(path.clone(), place.clone()) {
            let diagnostic =
                Diagnostic::at(&codes::MEMBER_TWICE, place, format!("the member `{path}` is listed twice"), "again here");
            reports.push(diagnostic.also(&first, "first here").with_help("remove one of them"));
            continue;
        }
        paths.push((path, place.clone()));
    }
    paths
}

/// The path without `.` and `..`; `None` when it leaves the project or depends on the machine.
fn inside(path: &str) -> Option<String> {
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.is_empty() || path.starts_with('/') || path.contains(['\\', '\0']) || drive {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

fn unreadable(path: &str, place: &Place, error: &std::io::Error, reports: &mut Reports) {
    if error.kind() == ErrorKind::NotFound {
        let help = if path.contains(['*', '?']) {
            "list each file by its path; patterns are not expanded"
        } else {
            "create the file, or correct the path; it is relative to `Project.toml`"
        };
        let diagnostic = Diagnostic::at(&codes::MEMBER, place, format!("there is no member file `{path}`"), "not found");
        return reports.push(diagnostic.with_help(help));
    }
    let diagnostic =
        Diagnostic::at(&codes::NOT_READ, place, format!("`{path}` cannot be read: {}", reason(error)), "this member");
    reports.push(diagnostic.with_help("make it a readable UTF-8 text file"));
}

/// Why a file was not read, in words that are the same on every system.
fn reason(error: &std::io::Error) -> Arc<str> {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::FileTooLarge => format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20).into(),
        ErrorKind::InvalidData => "it is not UTF-8".into(),
        ErrorKind::InvalidInput | ErrorKind::IsADirectory => "it is not a file".into(),
        _ => error.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_inside_of_the_project() {
        for (path, expected) in [
            ("a.toml", Some("a.toml")),
            ("./topologies//a.toml", Some("topologies/a.toml")),
            ("topologies/../a.toml", Some("a.toml")),
            ("..a.toml", Some("..a.toml")),
            ("../a.toml", None),
            ("topologies/../../a.toml", None),
            ("/etc/passwd", None),
            ("C:/a.toml", None),
            ("topologies\\a.toml", None),
            ("", None),
            (".", None),
            ("a\0.toml", None),
        ] {
            assert_eq!(inside(path).as_deref(), expected, "of {path:?}");
        }
    }
}
