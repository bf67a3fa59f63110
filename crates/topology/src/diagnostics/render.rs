//! Diagnostics in rustc's manner, by the renderer that rustc itself uses.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Label};

/// Wide enough that no sensible line of a project file is cut, and the same everywhere, so that expected outputs do not depend on the terminal.
const WIDTH: usize = 160;

/// The most bytes of a file that are shown for one diagnostic; lines between labels are folded, but still have to be read.
const SNIPPET_BYTES_MAX: usize = 1 << 14;

pub(super) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut out = String::new();
    for diagnostic in &diagnostics.list {
        out.push_str(&renderer.render(&[group(diagnostics, diagnostic)]));
        out.push_str("\n\n");
    }
    let summary = match (diagnostics.found, diagnostics.list.len()) {
        (1, _) => "1 error in the project".to_owned(),
        (found, shown) if found > shown => format!("{found} errors in the project, the first {shown} of them shown"),
        (found, _) => format!("{found} errors in the project"),
    };
    out.push_str(&renderer.render(&[Group::with_title(Level::ERROR.primary_title(summary))]));
    out.push('\n');
    out
}

fn group<'a>(diagnostics: &'a Diagnostics, diagnostic: &'a Diagnostic) -> Group<'a> {
    let title = Level::ERROR.primary_title(&diagnostic.message).id(diagnostic.code.code);
    let mut group = Group::with_title(title);
    // One snippet for each file; the primary label comes first, so its file does too.
    let mut files: Vec<&str> = diagnostic.labels.iter().map(Label::file).collect();
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(*file));
    for file in files {
        let labels: Vec<&Label> = diagnostic.labels.iter().filter(|label| label.file() == file).collect();
        let text = diagnostics.sources.get(file);
        // When the labels are too far apart, the first alone; when its line is too long, its place alone.
        let snippet = text.and_then(|text| snippet(file, text, &labels).or_else(|| snippet(file, text, &labels[..1])));
        group = match snippet {
            Some(snippet) => group.element(snippet),
            None => group.element(Origin::path(file).line(labels[0].line).char_column(labels[0].column)),
        };
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    if let Some(note) = &diagnostic.note {
        group = group.element(Level::NOTE.message(note));
    }
    group.element(Level::NOTE.with_name("more").message(format!("leat explain {}", diagnostic.code.code)))
}

/// The lines from the first label to the last. Only this piece is handed on, since the renderer reads all it gets, for every
/// diagnostic; `None` when it is too large.
fn snippet<'a>(file: &'a str, text: &'a str, labels: &[&'a Label]) -> Option<Snippet<'a, Annotation<'a>>> {
    let spans = || labels.iter().map(|label| on_boundaries(text, label.span()));
    let first = spans().map(|span| span.start).min()?;
    let last = spans().map(|span| span.end).max()?;
    let from = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let to = text[last..].find('\n').map_or(text.len(), |at| last + at);
    let line = labels.iter().map(|label| label.line).min()?;
    let annotations = labels.iter().zip(spans()).map(|(label, span)| {
        let kind = if label.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(span.start - from..span.end - from);
        if label.text.is_empty() { annotation } else { annotation.label(&*label.text) }
    });
    let small = to - from <= SNIPPET_BYTES_MAX;
    small.then(|| Snippet::source(&text[from..to]).line_start(line).path(file).annotations(annotations))
}

/// Moves a span to character boundaries inside the text: the renderer panics on anything else.
fn on_boundaries(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
