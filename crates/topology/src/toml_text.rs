//! From positions in a TOML string's value back to positions in the file, through escapes and line continuations.

use std::ops::Range;

/// Where each part of a decoded string stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextMap {
    /// In ascending order of both positions, without gaps in the decoded text.
    parts: Vec<Part>,
    /// Where the text between the quotes begins in the file, for positions in an empty string.
    start: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    decoded: usize,
    decoded_len: usize,
    raw: usize,
    raw_len: usize,
}

impl TextMap {
    /// Decodes a TOML string literal that stands at `at` in the file and is known to be well-formed.
    ///
    /// `value` is what the TOML library has made of it. Should the two ever differ, every position is mapped to the whole literal: a
    /// vague place is better than a wrong one.
    pub(crate) fn new(literal: &str, at: usize, value: &str) -> Self {
        let (decoded, map) = Decoder::new(literal, at).run();
        if decoded == value {
            return map;
        }
        let whole = Part { decoded: 0, decoded_len: value.len(), raw: at, raw_len: literal.len() };
        Self { parts: vec![whole], start: at }
    }

    /// The place in the file of a span of the decoded text.
    pub(crate) fn span(&self, span: Range<usize>) -> Range<usize> {
        let start = self.start_of(span.start);
        let end = if span.is_empty() { start } else { self.end_of(span.end) };
        start..end.max(start)
    }

    /// The position in the file of the character that starts at `at`.
    fn start_of(&self, at: usize) -> usize {
        let after = self.parts.partition_point(|part| part.decoded <= at);
        match after.checked_sub(1).map(|index| self.parts[index]) {
            Some(part) if at >= part.decoded + part.decoded_len => part.raw + part.raw_len,
            Some(part) if part.raw_len == part.decoded_len => part.raw + (at - part.decoded),
            Some(part) => part.raw,
            None => self.start,
        }
    }

    /// The position in the file behind the character that ends at `at`.
    fn end_of(&self, at: usize) -> usize {
        let after = self.parts.partition_point(|part| part.decoded < at);
        match after.checked_sub(1).map(|index| self.parts[index]) {
            Some(part) if part.raw_len == part.decoded_len => part.raw + (at - part.decoded).min(part.raw_len),
            Some(part) => part.raw + part.raw_len,
            None => self.start,
        }
    }
}

/// Reads a literal once from left to right.
struct Decoder<'a> {
    body: &'a str,
    body_at: usize,
    escapes: bool,
    decoded: String,
    parts: Vec<Part>,
}

impl<'a> Decoder<'a> {
    fn new(literal: &'a str, at: usize) -> Self {
        let quote = &literal[..literal.len().min(1)];
        let multi = literal.len() >= 6 && literal.starts_with(&quote.repeat(3));
        let delimiter = if multi { 3 } else { 1 };
        let mut body = literal.get(delimiter..literal.len().saturating_sub(delimiter)).unwrap_or_default();
        let mut body_at = at + delimiter;
        if multi {
            // TOML drops a line break right behind the opening quotes.
            let trimmed = body.strip_prefix("\r\n").or_else(|| body.strip_prefix('\n')).unwrap_or(body);
            body_at += body.len() - trimmed.len();
            body = trimmed;
        }
        Self { body, body_at, escapes: quote == "\"", decoded: String::new(), parts: Vec::new() }
    }

    fn run(mut self) -> (String, TextMap) {
        let mut at = 0;
        while at < self.body.len() {
            let rest = &self.body[at..];
            let verbatim = if self.escapes { rest.find('\\').unwrap_or(rest.len()) } else { rest.len() };
            if verbatim > 0 {
                let text = &rest[..verbatim];
                self.push(text, at, verbatim);
                at += verbatim;
                continue;
            }
            let (text, len) = escape(rest);
            if let Some(text) = text {
                self.push(text.encode_utf8(&mut [0; 4]), at, len);
            }
            at += len;
        }
        (self.decoded, TextMap { parts: self.parts, start: self.body_at })
    }

    fn push(&mut self, text: &str, at: usize, raw_len: usize) {
        self.parts.push(Part { decoded: self.decoded.len(), decoded_len: text.len(), raw: self.body_at + at, raw_len });
        self.decoded.push_str(text);
    }
}

/// The character that an escape stands for and the escape's length; no character for a line continuation.
fn escape(rest: &str) -> (Option<char>, usize) {
    let code = |digits: usize| {
        let hex = rest.get(2..2 + digits).unwrap_or_default();
        (u32::from_str_radix(hex, 16).ok().and_then(char::from_u32), 2 + digits)
    };
    match rest[1..].chars().next() {
        Some('b') => (Some('\u{8}'), 2),
        Some('t') => (Some('\t'), 2),
        Some('n') => (Some('\n'), 2),
        Some('f') => (Some('\u{c}'), 2),
        Some('r') => (Some('\r'), 2),
        Some('e') => (Some('\u{1b}'), 2),
        Some('x') => code(2),
        Some('u') => code(4),
        Some('U') => code(8),
        Some(other @ ('"' | '\\')) => (Some(other), 2),
        _ => {
            let blank = rest[1..].find(|c: char| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len() - 1);
            // No blank would be an escape that TOML does not have, which the caller has ruled out; the rest is then left undecoded.
            (None, if blank == 0 { rest.len() } else { 1 + blank })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds `needle` in the value and says what stands at its place in the file.
    fn place_of<'a>(file: &'a str, needle: &str) -> &'a str {
        let table = toml::de::DeTable::parse(file).expect("the file is TOML").into_inner();
        let value = table.get("graph").expect("it has a graph");
        let text = value.get_ref().as_str().expect("it is a string");
        let map = TextMap::new(&file[value.span()], value.span().start, text);
        let at = text.find(needle).expect("the needle is in the value");
        &file[map.span(at..at + needle.len())]
    }

    #[test]
    fn positions_survive_every_kind_of_string() {
        for (file, needle, expected) in [
            ("graph = \"a --> b\"", "-->", "-->"),
            ("graph = 'a --> b'", "b", "b"),
            ("graph = \"\"\"\na --> b\n\"\"\"", "a", "a"),
            ("graph = \"\"\"\r\na --> b\r\nc --> d\r\n\"\"\"", "c", "c"),
            ("graph = '''\na --> b\n'''", "b", "b"),
            ("graph = \"\"\"a --> b\"\"\"", "a --> b", "a --> b"),
            ("graph = \"a\\n\\tb --> c\"", "b", "b"),
            ("graph = \"a[\\\"Text\\\"] --> c\"", "\"Text\"", "\\\"Text\\\""),
            ("graph = \"\\u00e9\\U0001F600 --> c\"", "é", "\\u00e9"),
            ("graph = \"\\u00e9\\U0001F600 --> c\"", "😀", "\\U0001F600"),
            ("graph = \"\\x41 --> c\"", "A", "\\x41"),
            ("graph = \"é --> c\"", "é", "é"),
            ("graph = \"\"\"a --> \\\n    b\"\"\"", "b", "b"),
            ("graph = \"\"\"a --> \\\n    b\"\"\"", "--> ", "--> "),
            ("graph = \"\"\"a --> \\\r\n\r\n   b\\\\c\"\"\"", "\\", "\\\\"),
            ("graph = \"\"\"a[\"x\"] --> b\"\"\"", "\"x\"", "\"x\""),
            ("graph = \"\"\"a[\"x\"\"]\"\"\"\"", "]\"", "]\""),
        ] {
            assert_eq!(place_of(file, needle), expected, "in {file:?}");
        }
    }

    #[test]
    fn an_empty_string_has_a_place() {
        assert_eq!(TextMap::new("\"\"", 8, "").span(0..0), 9..9);
        assert_eq!(TextMap::new("\"\"\"\n\"\"\"", 8, "").span(0..0), 12..12);
    }

    #[test]
    fn a_value_that_differs_falls_back_to_the_whole_literal() {
        assert_eq!(TextMap::new("\"abc\"", 8, "xyz").span(1..2), 8..13);
    }
}
