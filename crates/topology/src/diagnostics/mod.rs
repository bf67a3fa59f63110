//! What is wrong with a project: all of it at once, each with a code, a place, a label and a hint.

pub(crate) mod codes;
mod render;

pub use codes::CodeInfo;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::NAME_LENGTH_MAX;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// The project cannot be used as it stands.
    Error,
}

impl Severity {
    /// `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
        }
    }
}

/// A span of bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) span: Range<usize>,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    code: &'static CodeInfo,
    message: String,
    labels: Vec<Label>,
    help: Option<String>,
    note: Option<String>,
}

impl Diagnostic {
    /// Starts a diagnostic that is not about a place in a file.
    pub(crate) fn new(code: &'static CodeInfo, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), labels: Vec::new(), help: None, note: None }
    }

    /// Starts a diagnostic about a place.
    pub(crate) fn at(code: &'static CodeInfo, place: &Place, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self::new(code, message).labelled(place, label, true)
    }

    /// Adds a place that explains the first.
    pub(crate) fn also(self, place: &Place, label: impl Into<String>) -> Self {
        self.labelled(place, label, false)
    }

    fn labelled(mut self, place: &Place, text: impl Into<String>, primary: bool) -> Self {
        self.labels.push(Label { place: place.clone(), line: 0, column: 0, text: text.into(), primary });
        self
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Its stable code, such as `LW0101`.
    pub fn code(&self) -> &'static str {
        self.code.code
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        Severity::Error
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The places it is about, the primary one first; empty only when a file is missing.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Why it is so.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// A place in a file with what is to be said about it.
#[derive(Clone, Debug)]
pub struct Label {
    place: Place,
    line: usize,
    column: usize,
    text: String,
    primary: bool,
}

impl Label {
    /// The file, relative to the project's root.
    pub fn file(&self) -> &str {
        &self.place.file
    }

    /// The bytes of the file it is about.
    pub fn span(&self) -> Range<usize> {
        self.place.span.clone()
    }

    /// The line on which it starts, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters at which it starts, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is to be said about the place.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this is the place of the error itself and not one that explains it.
    pub fn primary(&self) -> bool {
        self.primary
    }
}

/// Everything that is wrong with a project, in the order of its files; never empty.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    found: usize,
    sources: BTreeMap<Arc<str>, Arc<str>>,
}

impl Diagnostics {
    /// The diagnostics in the order of the files.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// How many have been found; only the first 200 are kept.
    pub fn found(&self) -> usize {
        self.found
    }

    /// Iterates over the diagnostics.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// All of it in rustc's manner, with a closing count, with colours for a terminal or without.
    pub fn render(&self, color: bool) -> String {
        render::render(self, color)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// The most diagnostics that are kept; more are counted only. It bounds time and memory on files that are no project files at all.
const DIAGNOSTICS_MAX: usize = 200;

/// How many times a similar name is looked for. Looking compares with every known name, so a file of thousands of misspelled names would
/// otherwise take time in the square of its size; nobody reads that many hints.
const SUGGESTIONS_MAX: usize = 100;

/// Collects what the passes find.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    files: Vec<(Arc<str>, Arc<str>)>,
    list: Vec<Diagnostic>,
    found: usize,
    suggestions: usize,
}

impl Reports {
    /// Makes a file's text known, so that places in it can be shown.
    pub(crate) fn add_file(&mut self, path: &Arc<str>, text: &Arc<str>) {
        self.files.push((path.clone(), text.clone()));
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.found += 1;
        if self.list.len() < DIAGNOSTICS_MAX {
            self.list.push(diagnostic);
        }
    }

    /// How many have been found so far, to see whether a pass has found more.
    pub(crate) fn count(&self) -> usize {
        self.found
    }

    /// The known name that is most like a misspelled one: a third of its letters may differ, one in a short name.
    pub(crate) fn similar<'a>(&mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        self.suggestions += 1;
        if self.suggestions > SUGGESTIONS_MAX || name.len() > 2 * NAME_LENGTH_MAX {
            return None;
        }
        let distance_max = (name.chars().count() / 3).max(1);
        let lower = name.to_lowercase();
        let similar = known.into_iter().filter(|candidate| candidate.len().abs_diff(name.len()) <= 2 * distance_max);
        let distances = similar.map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate));
        distances.filter(|(distance, _)| *distance <= distance_max).min().map(|(_, candidate)| candidate)
    }

    /// The end of a compilation that has failed: everything in the order of the files.
    pub(crate) fn finish(mut self) -> Diagnostics {
        let rank: BTreeMap<Arc<str>, usize> =
            self.files.iter().enumerate().map(|(rank, (path, _))| (path.clone(), rank)).collect();
        self.list.sort_by_key(|diagnostic| match diagnostic.labels.first() {
            Some(label) => (rank.get(&label.place.file).copied(), label.place.span.start),
            None => (None, 0),
        });
        let starts: BTreeMap<&str, LineStarts<'_>> =
            self.files.iter().map(|(path, text)| (&**path, LineStarts::new(text))).collect();
        for label in self.list.iter_mut().flat_map(|diagnostic| &mut diagnostic.labels) {
            if let Some(starts) = starts.get(&*label.place.file) {
                (label.line, label.column) = starts.line_column(label.place.span.start);
            }
        }
        drop(starts);
        Diagnostics { list: self.list, found: self.found, sources: self.files.into_iter().collect() }
    }
}

/// The starts of a text's lines, to turn byte positions into lines and columns without reading the text again for each.
#[derive(Debug)]
pub(crate) struct LineStarts<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineStarts<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
        Self { text, starts: starts.collect() }
    }

    /// The line of a byte position, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Line and column in characters, both from 1.
    pub(crate) fn line_column(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}
