//! `classDef`, `class`, `style` and `linkStyle`: kept for drawings, checked so that no drawing can be broken by them.

use std::ops::Range;

use super::statement::Parser;
use super::{Styling, Word};
use crate::diagnostics::codes;

impl Parser<'_> {
    /// Reads a style statement that begins with `keyword` at `start`.
    pub(super) fn styling(&mut self, keyword: &str, start: usize) {
        self.cursor.move_to(start + keyword.len());
        self.cursor.blanks();
        let names_at = self.cursor.at();
        let names = self.cursor.eat_while(|c| !c.is_whitespace() && c != ';');
        self.cursor.blanks();
        let value_span = self.cursor.rest_of_statement();
        let value = self.cursor.slice(value_span.clone());
        if names.is_empty() || value.is_empty() {
            let usage = match keyword {
                "classDef" => "classDef name fill:#f9f,stroke:#333",
                "class" => "class a,b name",
                "style" => "style a fill:#f9f,stroke:#333",
                _ => "linkStyle 0,1 stroke:#f66",
            };
            let whole = start..value_span.end.max(start + keyword.len());
            let diagnostic = self.at(&codes::STYLE, &whole, format!("`{keyword}` is incomplete"), "something is missing");
            return self.report(diagnostic.with_help(format!("write `{usage}`")));
        }
        if let Some(bad) = unsafe_part(value) {
            let span = value_span.start + bad.start..value_span.start + bad.end;
            let diagnostic = self.at(&codes::STYLE, &span, "this does not belong in a style", "refused here");
            return self.report(diagnostic.with_help("use plain properties such as `fill:#f9f,stroke:#333,stroke-width:2px`"));
        }
        let words = split(names, names_at);
        let class = (keyword == "class").then_some((value, value_span.start));
        for (text, at) in words.iter().map(|word| (&*word.text, word.span.start)).chain(class) {
            if let Some(sign) = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')) {
                let diagnostic = self.at(&codes::STYLE, &(at + sign..at + text.len()), "this is no name", "refused here");
                return self.report(diagnostic.with_help("names of classes and tasks are made of letters, digits, `_` and `-`"));
            }
        }
        if keyword == "style" && words.len() > 1 {
            let span = names_at..names_at + names.len();
            let diagnostic = self.at(&codes::STYLE, &span, "`style` is for one task", "several names");
            return self.report(diagnostic.with_help("write one `style` for each, or give them a class: `class a,b name`"));
        }
        let texts = || words.iter().map(|word| word.text.clone()).collect();
        let styling = match keyword {
            "classDef" => Styling::ClassDef { classes: texts(), css: value.to_owned() },
            "class" => Styling::Class { nodes: words, class: value.to_owned() },
            "style" => Styling::Style { nodes: words, css: value.to_owned() },
            _ => match self.link_numbers(&words) {
                Some(links) => Styling::LinkStyle { links, css: value.to_owned() },
                None => return,
            },
        };
        self.sketch.stylings.push(styling);
    }

    /// The edges that a `linkStyle` names; the inner `None` stands for `default`.
    #[expect(clippy::type_complexity, reason = "the outer option says whether it could be read")]
    fn link_numbers(&mut self, words: &[Word]) -> Option<Option<Vec<(usize, Range<usize>)>>> {
        if words.len() == 1 && words[0].text == "default" {
            return Some(None);
        }
        let mut links = Vec::new();
        for word in words {
            let Ok(number) = word.text.parse() else {
                let diagnostic =
                    self.at(&codes::STYLE, &word.span, format!("`{}` is no number of an edge", word.text), "not a number");
                self.report(diagnostic.with_help("count the edges from 0 in the order of the graph, or write `default`"));
                return None;
            };
            links.push((number, word.span.clone()));
        }
        Some(Some(links))
    }
}

/// Names between commas.
fn split(names: &str, at: usize) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = 0;
    for part in names.split(',') {
        if !part.is_empty() {
            words.push(Word { text: part.to_owned(), span: at + start..at + start + part.len() });
        }
        start += part.len() + 1;
    }
    words
}

/// What could end a style sheet or an attribute, or fetch something, once the style stands in a drawing.
fn unsafe_part(css: &str) -> Option<Range<usize>> {
    let sign = css.char_indices().find(|(_, c)| "\"'`<>{}\\@".contains(*c)).map(|(at, c)| at..at + c.len_utf8());
    let lower = css.to_ascii_lowercase();
    sign.or_else(|| {
        ["url(", "expression(", "interpolate", "/*"].iter().find_map(|word| lower.find(word).map(|at| at..at + word.len()))
    })
}
