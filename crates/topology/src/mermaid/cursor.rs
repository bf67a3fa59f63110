//! A position in the graph's text, and the few ways to move it.

use std::ops::Range;

/// Reads a text from left to right.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn move_to(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn slice(&self, span: Range<usize>) -> &'a str {
        &self.text[span]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn done(&self) -> bool {
        self.at == self.text.len()
    }

    /// Steps over a fixed text if it stands here.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let here = self.rest().starts_with(expected);
        if here {
            self.at += expected.len();
        }
        here
    }

    /// Steps over characters as long as they fit.
    pub(super) fn eat_while(&mut self, mut fits: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Steps over blanks within the line.
    pub(super) fn blanks(&mut self) -> &'a str {
        self.eat_while(|c| c != '\n' && c.is_whitespace())
    }

    /// Steps over blanks, line breaks and semicolons: what may stand between two statements.
    pub(super) fn separators(&mut self) {
        self.eat_while(|c| c == ';' || c.is_whitespace());
    }

    /// Whether a statement may end here.
    pub(super) fn at_end_of_statement(&self) -> bool {
        matches!(self.peek(), None | Some('\n' | ';'))
    }

    /// Where the line ends, without its line break and trailing blanks.
    pub(super) fn line_end(&self) -> usize {
        let rest = self.rest();
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        self.at + line.trim_end().len()
    }

    /// Where one of some signs stands next on this line, counted from here, and its length. Looks no further than it must, so that a
    /// long line of short statements is still read in linear time.
    pub(super) fn find_in_line(&self, signs: &[&str]) -> Option<(usize, usize)> {
        let rest = self.rest().as_bytes();
        for at in 0..rest.len() {
            if rest[at] == b'\n' {
                return None;
            }
            if let Some(sign) = signs.iter().find(|sign| rest[at..].starts_with(sign.as_bytes())) {
                return Some((at, sign.len()));
            }
        }
        None
    }

    /// Steps to the end of the line.
    pub(super) fn skip_line(&mut self) {
        self.eat_while(|c| c != '\n');
    }

    /// Steps to the end of the statement and gives what it passed, without trailing blanks. Between quotes a semicolon ends nothing.
    pub(super) fn rest_of_statement(&mut self) -> Range<usize> {
        let start = self.at;
        let mut quoted = false;
        let passed = self.eat_while(|c| {
            quoted ^= c == '"';
            c != '\n' && (c != ';' || quoted)
        });
        start..start + passed.trim_end().len()
    }

    /// The word here: letters, digits, `_` and `-`. Does not move.
    pub(super) fn peek_word(&self) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        &rest[..len]
    }
}
