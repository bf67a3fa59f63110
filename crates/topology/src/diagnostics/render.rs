//! Diagnostics in rustc's manner, by the renderer that rustc itself uses.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Label};

/// Wide enough that no sensible line of a project file is cut, and the same everywhere, so that expected outputs do not depend on the terminal.
const WIDTH: usize = 160;

pub(super) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut out = String::new();
    for diagnostic in &diagnostics.list {
        out.push_str(&renderer.render(&[group(diagnostics, diagnostic)]));
        out.push_str("\n\n");
    }
    let count = diagnostics.list.len();
    let summary = if count == 1 { "1 error in the project".to_owned() } else { format!("{count} errors in the project") };
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
        group = match diagnostics.sources.get(file) {
            Some(text) => {
                let labels = diagnostic.labels.iter().filter(|label| label.file() == file);
                group.element(Snippet::source(&**text).path(file).annotations(labels.map(|label| annotation(text, label))))
            }
            None => group.element(Origin::path(file)),
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

fn annotation<'a>(text: &str, label: &'a Label) -> annotate_snippets::Annotation<'a> {
    let kind = if label.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
    let annotation = kind.span(on_boundaries(text, label.span()));
    if label.text.is_empty() { annotation } else { annotation.label(&*label.text) }
}

/// Moves a span to character boundaries inside the text: the renderer panics on anything else.
fn on_boundaries(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
