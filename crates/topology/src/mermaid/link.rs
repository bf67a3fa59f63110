//! Links: the arrow that is read, and all those that are refused by name.

use std::ops::Range;

use super::Word;
use super::cursor::Cursor;
use super::statement::Parser;
use super::text::unquoted;
use crate::diagnostics::{Diagnostic, codes};

/// The longest id of an edge that is recognised. Without a limit every link would look through all of a long chain of dashes behind it.
const EDGE_ID_MAX: usize = 64;

/// A link as read.
pub(super) struct Arrow {
    pub(super) span: Range<usize>,
    pub(super) label: Option<Word>,
    pub(super) length: usize,
    /// False for `~~~`, which connects nothing.
    pub(super) connects: bool,
}

/// A label that begins and does not end.
struct Unclosed;

/// The body of a link, in the order in which they are told apart.
#[derive(Clone, Copy, PartialEq)]
enum Stroke {
    Solid,
    Thick,
    Dotted,
    Invisible,
}

/// The start of a link: `<`, `x` or `o` if there is one, then the stroke.
struct Opening {
    head: Option<char>,
    stroke: Stroke,
    /// Signs in the stroke: dashes, equals signs or dots.
    signs: usize,
    /// What closes it: `>`, `x`, `o`, `-`; `None` when a text follows.
    tail: Option<char>,
}

impl Parser<'_> {
    /// Reads a link that begins here, with its label; `None` when none does.
    pub(super) fn link(&mut self) -> Option<Arrow> {
        let start = self.cursor.at();
        self.edge_id();
        if let Some(arrow) = self.lookalike(start) {
            return Some(arrow);
        }
        let Some(opening) = opening(&mut self.cursor) else {
            self.cursor.move_to(start);
            return None;
        };
        let mut label = None;
        let mut tail = opening.tail;
        let mut signs = opening.signs;
        if tail.is_none() {
            let behind = self.cursor.at();
            let Some((word, closing)) = self.text_in_link(&opening) else {
                self.cursor.move_to(behind);
                if opening.head == Some('<') {
                    self.refuse_kind(&opening, None, &(start..behind));
                    return Some(Arrow { span: start..behind, label: None, length: 1, connects: false });
                }
                let span = start..self.cursor.line_end();
                self.unclosed_text(&span);
                self.cursor.skip_line();
                return Some(Arrow { span, label: None, length: 1, connects: false });
            };
            label = Some(word);
            tail = closing.tail;
            signs = closing.signs;
        }
        let span = start..self.cursor.at();
        self.refuse_kind(&opening, tail, &span);
        let Ok(piped) = self.pipe_label() else {
            return Some(Arrow { span, label: None, length: 1, connects: false });
        };
        if let Some(word) = piped
            && label.replace(word).is_some()
        {
            let diagnostic = self.at(&codes::UNREADABLE, &span, "an edge has two labels", "this edge");
            self.report(diagnostic.with_help("write either `-->|label|` or `-- label -->`"));
        }
        let label = label.filter(|word| self.label_is_there(word));
        Some(Arrow { span, label, length: signs.saturating_sub(1).max(1), connects: opening.stroke != Stroke::Invisible })
    }

    /// Refuses `e1@` before a link.
    fn edge_id(&mut self) {
        if let Some(len) = self.edge_id_here() {
            let start = self.cursor.at();
            self.cursor.move_to(start + len);
            let diagnostic = self.at(&codes::LINK, &(start..start + len), "ids of edges are not supported", "an edge's id");
            self.report(diagnostic.with_help("remove it: an edge is known by its two tasks and its label, as in `a-->|mail|b`"));
        }
    }

    /// The length of an edge's id with its `@`, if a link follows it.
    pub(super) fn edge_id_here(&self) -> Option<usize> {
        let rest = self.cursor.rest().as_bytes();
        let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let word = rest.iter().take(EDGE_ID_MAX).take_while(is_word).count();
        let link = rest.get(word + 1).is_some_and(|byte| matches!(byte, b'-' | b'=' | b'~' | b'<' | b'x' | b'o'));
        (word > 0 && rest.get(word) == Some(&b'@') && link).then_some(word + 1)
    }

    /// Takes `->`, `=>`, `→` and the like for the arrow that was meant.
    fn lookalike(&mut self, start: usize) -> Option<Arrow> {
        const LOOKALIKES: [&str; 13] = ["-->>", "->>", "->", "=>", "→", "⟶", "⇒", "➔", "➜", "–>", "—>", "–", "—"];
        let found = LOOKALIKES.into_iter().find(|sign| self.cursor.eat(sign))?;
        let span = start..self.cursor.at();
        let message = format!("`{found}` is no arrow in Mermaid");
        let diagnostic = self.at(&codes::LINK, &span, message, "not an arrow");
        self.report(diagnostic.with_help("write `-->`"));
        let label = self.pipe_label();
        Some(Arrow { span, connects: label.is_ok(), label: label.ok().flatten(), length: 1 })
    }

    /// Reads `label -->` behind `--`, on this line.
    fn text_in_link(&mut self, opening: &Opening) -> Option<(Word, Opening)> {
        let from = self.cursor.at();
        let sign = match opening.stroke {
            Stroke::Solid => "--",
            Stroke::Thick => "==",
            Stroke::Dotted => ".-",
            Stroke::Invisible => return None,
        };
        let (found, _) = self.cursor.find_in_line(&[sign])?;
        let mut text_end = from + found;
        let before = self.cursor.slice(from..text_end);
        // A head that belongs to the closing half, as in `a o-- text --o b` read backwards: it needs a blank before it.
        let head = ["<", " x", " o"].into_iter().find(|head| before.ends_with(head));
        if let Some(head) = head {
            text_end -= head.trim_start().len();
        }
        let text = self.cursor.slice(from..text_end);
        self.cursor.move_to(from + found + if opening.stroke == Stroke::Dotted { sign.len() } else { 0 });
        let closing = closing(&mut self.cursor, opening.stroke)?;
        Some((unquoted(text, from), closing))
    }

    fn unclosed_text(&mut self, span: &Range<usize>) {
        let diagnostic = self.at(&codes::UNCLOSED, span, "a label has no arrow behind it", "begins here");
        self.report(
            diagnostic
                .with_help("write `a -- label --> b` or `a -->|label| b`")
                .with_note("`--` alone begins a label; the arrow is `-->`"),
        );
    }

    /// Reads `|label|`, which may stand behind blanks. A label that never closes is reported, and the line is lost.
    fn pipe_label(&mut self) -> Result<Option<Word>, Unclosed> {
        let before = self.cursor.at();
        self.cursor.blanks();
        let start = self.cursor.at();
        if !self.cursor.eat("|") {
            self.cursor.move_to(before);
            return Ok(None);
        }
        let text = self.cursor.eat_while(|c| c != '|' && c != '\n');
        if self.cursor.eat("|") {
            return Ok(Some(unquoted(text, start + 1)));
        }
        let span = start..start + 1 + text.trim_end().len();
        let diagnostic = self.at(&codes::UNCLOSED, &span, "a label has no closing `|`", "begins here");
        self.report(diagnostic.with_help("write `a -->|label| b`"));
        Err(Unclosed)
    }

    fn label_is_there(&mut self, word: &Word) -> bool {
        if word.text.is_empty() {
            let around = word.span.start.saturating_sub(1)..word.span.end + 1;
            let diagnostic = self.at(&codes::UNREADABLE, &around, "a label is empty", "nothing in here");
            self.report(diagnostic.with_help("give the label a name, or write `-->`"));
        }
        !word.text.is_empty()
    }

    /// Reports every kind of link but the plain arrow.
    fn refuse_kind(&mut self, opening: &Opening, tail: Option<char>, span: &Range<usize>) {
        let (kind, help) = match (opening.stroke, opening.head, tail) {
            (Stroke::Solid, None, Some('>')) => return,
            (Stroke::Invisible, ..) => ("an invisible link", "remove it: a topology holds only edges that carry messages"),
            (_, Some('<'), Some('>')) => {
                ("an arrow with two heads", "write two edges, each with `-->`; together they must not form a loop")
            }
            (_, Some('<'), _) => ("an arrow to the left", "turn it round: `a <-- b` is written `b --> a`"),
            (_, Some('x'), _) | (_, _, Some('x')) => ("an edge with a cross", "write `-->`"),
            (_, Some('o'), _) | (_, _, Some('o')) => ("an edge with a circle", "write `-->`"),
            (Stroke::Solid, ..) => ("a link without an arrowhead", "write `-->`: messages go one way"),
            (Stroke::Thick, _, Some('>')) => ("a thick arrow", "write `-->`; `linkStyle` can make it thick"),
            (Stroke::Thick, ..) => ("a thick link", "write `-->`; `linkStyle` can make it thick"),
            (Stroke::Dotted, _, Some('>')) => ("a dotted arrow", "write `-->`; `linkStyle` can make it dotted"),
            (Stroke::Dotted, ..) => ("a dotted link", "write `-->`; `linkStyle` can make it dotted"),
        };
        let shown = self.cursor.slice(span.clone());
        let shown = match (shown.split_once(char::is_whitespace), shown.rsplit_once(char::is_whitespace)) {
            (Some((first, _)), Some((_, last))) => format!("{first} … {last}"),
            _ => shown.to_owned(),
        };
        // These two are not taken for edges, so a task may seem untouched.
        self.sketch.complete &= !matches!((opening.stroke, opening.head, tail), (Stroke::Invisible, ..) | (_, Some('<'), None));
        let diagnostic = self.at(&codes::LINK, span, format!("`{shown}` is not supported: {kind}"), kind);
        self.report(diagnostic.with_help(help).with_note("every edge of a topology carries messages one way, and looks it"));
    }
}

/// Reads the start of a link, or the whole of it when no text follows.
fn opening(cursor: &mut Cursor<'_>) -> Option<Opening> {
    let head = cursor.peek().filter(|c| matches!(c, '<' | 'x' | 'o'));
    if head.is_some() {
        cursor.move_to(cursor.at() + 1);
    }
    let rest = cursor.rest();
    let stroke = if rest.starts_with("--") {
        Stroke::Solid
    } else if rest.starts_with("==") {
        Stroke::Thick
    } else if rest.starts_with("-.") || rest.starts_with('.') && head.is_some() {
        Stroke::Dotted
    } else if rest.starts_with("~~~") && head.is_none() {
        Stroke::Invisible
    } else {
        return None;
    };
    let mut read = stroke_from(cursor, stroke)?;
    read.head = head;
    Some(read)
}

/// Reads the closing half of a link with a text.
fn closing(cursor: &mut Cursor<'_>, stroke: Stroke) -> Option<Opening> {
    if stroke == Stroke::Dotted {
        let tail = tail(cursor).unwrap_or('-');
        return Some(Opening { head: None, stroke, signs: 1, tail: Some(tail) });
    }
    stroke_from(cursor, stroke).filter(|read| read.tail.is_some())
}

fn stroke_from(cursor: &mut Cursor<'_>, stroke: Stroke) -> Option<Opening> {
    let sign = match stroke {
        Stroke::Solid => '-',
        Stroke::Thick => '=',
        Stroke::Invisible => '~',
        Stroke::Dotted => {
            cursor.eat("-");
            let dots = cursor.eat_while(|c| c == '.').len();
            let closed = cursor.eat("-");
            let tail = if closed { Some(tail(cursor).unwrap_or('-')) } else { None };
            return Some(Opening { head: None, stroke, signs: dots, tail });
        }
    };
    let mut signs = cursor.eat_while(|c| c == sign).len();
    let mut end = tail(cursor);
    if stroke == Stroke::Invisible {
        end = Some('-');
    } else if end.is_none() && signs > 2 {
        signs -= 1;
        end = Some('-');
    }
    Some(Opening { head: None, stroke, signs, tail: end })
}

fn tail(cursor: &mut Cursor<'_>) -> Option<char> {
    let tail = cursor.peek().filter(|c| matches!(c, '>' | 'x' | 'o'));
    if tail.is_some() {
        cursor.move_to(cursor.at() + 1);
    }
    tail
}

impl Parser<'_> {
    /// A diagnostic about a span of the graph.
    pub(super) fn at(
        &self,
        code: &'static crate::CodeInfo,
        span: &Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::at(code, &self.graph.place(span), message, label)
    }
}
