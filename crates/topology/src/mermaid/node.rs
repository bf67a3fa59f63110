//! Nodes: ids, the five shapes that are read with their texts, classes, and the shapes that are refused by name.

use std::ops::Range;

use super::Word;
use super::statement::Parser;
use super::text::shown;
use crate::Shape;
use crate::diagnostics::codes;

/// A node where it is mentioned.
pub(super) struct Mention {
    pub(super) node: usize,
    pub(super) span: Range<usize>,
}

/// How an outline begins and ends, what to call it, and the shape that it is read as.
struct Outline {
    open: &'static str,
    close: &'static [&'static str],
    name: &'static str,
    shape: Option<Shape>,
}

const fn outline(open: &'static str, close: &'static [&'static str], name: &'static str, shape: Option<Shape>) -> Outline {
    Outline { open, close, name, shape }
}

/// Longer openings before shorter ones with the same beginning.
const OUTLINES: [Outline; 16] = [
    outline("(((", &[")))"], "a double circle", None),
    outline("((", &["))"], "a circle", None),
    outline("([", &["])"], "a stadium", Some(Shape::Stadium)),
    outline("(-", &["-)"], "an ellipse", None),
    outline("(", &[")"], "a rounded box", Some(Shape::Rounded)),
    outline("[[", &["]]"], "a subroutine box", None),
    outline("[(", &[")]"], "a cylinder", Some(Shape::Cylinder)),
    outline("[/", &["/]", "\\]"], "a parallelogram or trapezoid", None),
    outline("[\\", &["\\]", "/]"], "a parallelogram or trapezoid", None),
    outline("[|", &["]"], "a box with properties", None),
    outline("[", &["]"], "a box", Some(Shape::Rectangle)),
    outline("{{", &["}}"], "a hexagon", None),
    outline("{", &["}"], "a diamond", Some(Shape::Diamond)),
    outline(">", &["]"], "a flag", None),
    outline("@{", &["}"], "a shape by its name", None),
    outline("<[", &["]"], "a block arrow", None),
];

impl<'a> Parser<'a> {
    /// Reads a node that begins here; `None` when none does.
    pub(super) fn node(&mut self) -> Option<Mention> {
        let start = self.cursor.at();
        let id = self.id()?;
        let node = self.mention(&id);
        self.outline(node);
        while self.cursor.rest().starts_with(":::") {
            self.class_of(node);
        }
        Some(Mention { node, span: start..self.cursor.at() })
    }

    /// Reads an id by the rules of Mermaid's lexer: signs that no name may have are part of it, so that the name is refused as a whole.
    fn id(&mut self) -> Option<Word> {
        let start = self.cursor.at();
        let rest = self.cursor.rest();
        let mut chars = rest.char_indices().peekable();
        let mut len = 0;
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            let fits = match c {
                '-' => !matches!(next, None | Some('>' | '-' | '.')) || (at > 0 && next.is_none_or(char::is_whitespace)),
                '=' => !matches!(next, Some('=' | '>')),
                '%' => !rest[at..].starts_with("%%"),
                '!' | '#' | '$' | '&' | '\'' | '*' | '+' | '.' | '`' | '?' | '\\' | '_' | '/' | '"' => true,
                c => c.is_alphanumeric() || !c.is_ascii() && !c.is_whitespace() && !"→⟶⇒➔➜–—".contains(c),
            };
            if !fits {
                break;
            }
            len = at + c.len_utf8();
        }
        let text = &rest[..len];
        // A lone `&` joins nodes; it is no node itself.
        if text.is_empty() || text == "&" || text == "-" {
            return None;
        }
        self.cursor.move_to(start + len);
        Some(Word { text: text.to_owned(), span: start..start + len })
    }

    /// Reads the outline and the text of a node, if they are there.
    fn outline(&mut self, node: usize) {
        let start = self.cursor.at();
        let rest = self.cursor.rest();
        let Some(outline) = OUTLINES.iter().find(|outline| rest.starts_with(outline.open)) else { return };
        if outline.open == ">" && self.cursor.find_in_line(outline.close).is_none() {
            return;
        }
        self.cursor.move_to(start + outline.open.len());
        let text = match outline.shape {
            Some(_) => self.outlined_text(start, outline),
            None => self.foreign_outline(start, outline),
        };
        if let Some(text) = text {
            let node = self.sketch_node(node);
            node.text = Some(text).filter(|text| !text.is_empty());
            node.shape = outline.shape.unwrap_or_default();
        }
    }

    /// Steps over an outline that is not read.
    fn foreign_outline(&mut self, start: usize, outline: &Outline) -> Option<String> {
        let end = match self.cursor.find_in_line(outline.close) {
            Some((at, len)) => self.cursor.at() + at + len,
            None => self.cursor.line_end(),
        };
        self.cursor.move_to(end.max(self.cursor.at()));
        let span = start..self.cursor.at();
        let diagnostic =
            self.at(&codes::SHAPE, &span, format!("{} is not supported as the shape of a task", outline.name), outline.name);
        self.report(diagnostic.with_help("use `a[Text]`, `a(Text)`, `a{Text}`, `a([Text])` or `a[(Text)]`"));
        None
    }

    /// Reads a text and the end of its outline.
    fn outlined_text(&mut self, start: usize, outline: &Outline) -> Option<String> {
        let close = outline.close[0];
        self.cursor.eat_while(char::is_whitespace);
        let (text, quoted) = if self.cursor.rest().starts_with('"') {
            (self.quoted_text()?, true)
        } else {
            // `/` and `\` stand before the `]` of other shapes only.
            (self.cursor.eat_while(|c| !"[](){}|\"".contains(c)), false)
        };
        if quoted {
            self.cursor.eat_while(char::is_whitespace);
        }
        if self.cursor.eat(close) {
            return Some(shown(text));
        }
        let wrong = self.cursor.peek();
        let stopped = self.cursor.at();
        self.cursor.move_to(start);
        let line_end = self.cursor.line_end();
        match wrong {
            Some(c) if stopped < line_end && !quoted => {
                let span = stopped..stopped + c.len_utf8();
                let diagnostic =
                    self.at(&codes::UNREADABLE, &span, format!("`{c}` in a text without quotes"), "ends the text here");
                let help = format!("put the text in quotes: `{}\"…\"{close}`", outline.open);
                self.report(diagnostic.with_help(help));
            }
            _ => {
                let span = start..start + outline.open.len();
                let diagnostic = self.at(&codes::UNCLOSED, &span, format!("`{}` is never closed", outline.open), "opened here");
                self.report(diagnostic.with_help(format!("close it with `{close}`")));
            }
        }
        self.cursor.skip_line();
        None
    }

    /// Reads a text in quotes, which may run over several lines.
    fn quoted_text(&mut self) -> Option<&'a str> {
        let start = self.cursor.at();
        self.cursor.eat("\"");
        let markdown = self.cursor.rest().starts_with('`');
        let text = self.cursor.eat_while(|c| c != '"');
        if !self.cursor.eat("\"") {
            self.cursor.move_to(start);
            let span = start..self.cursor.line_end();
            let diagnostic = self.at(&codes::UNCLOSED, &span, "a quoted text is never closed", "begins here");
            self.report(diagnostic.with_help("close it with `\"`; write `#quot;` for a quote inside the text"));
            self.cursor.skip_line();
            return None;
        }
        if markdown {
            let span = start..self.cursor.at();
            let diagnostic = self.at(&codes::MARKDOWN, &span, "Markdown in texts is not supported", "a Markdown text");
            self.report(diagnostic.with_help("remove the backticks inside the quotes"));
        }
        Some(text.trim_matches('`'))
    }

    /// Reads `:::class`.
    fn class_of(&mut self, node: usize) {
        let start = self.cursor.at();
        self.cursor.eat(":::");
        let class = self.cursor.peek_word();
        // `a:::x-->b`: the dashes belong to the arrow.
        let class = class.split("--").next().unwrap_or_default().trim_end_matches('-');
        self.cursor.move_to(start + 3 + class.len());
        if class.is_empty() {
            let span = start..self.cursor.at();
            let diagnostic = self.at(&codes::UNREADABLE, &span, "no class behind `:::`", "a class is missing");
            self.report(diagnostic.with_help("write `a:::name`, with `classDef name fill:#f9f` elsewhere"));
            return;
        }
        let class = class.to_owned();
        let node = self.sketch_node(node);
        if !node.classes.contains(&class) {
            node.classes.push(class);
        }
    }
}
