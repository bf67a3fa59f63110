//! User text inside generated code: as a literal that nothing can break out of, and as lines of documentation.

use std::fmt::Write;

/// A Rust string literal. Everything that is not printable ASCII is escaped, so that no quote, line break or invisible character of
/// a user's text ever stands in generated code.
pub(crate) fn literal(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// A text as lines of rustdoc, in which Markdown still means what its author wrote. Characters that do not show, above all those
/// that turn the direction of writing, are spelled out: rustc refuses them in comments, and a reader could not see them.
pub(crate) fn doc_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| format!(" {}", visible(line.trim_end()))).map(|line| line.trim_end().to_owned()).collect()
}

/// A fenced block of rustdoc. The fence is longer than any run of backticks within, so that the text cannot end it.
pub(crate) fn fenced(language: &str, text: &str) -> Vec<String> {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let mut lines = vec![format!(" {fence}{language}")];
    lines.extend(doc_lines(text));
    lines.push(format!(" {fence}"));
    lines
}

/// A name in backticks, on one line.
pub(crate) fn code(text: &str) -> String {
    format!("`{}`", visible(text).replace('`', "'"))
}

/// A line in which no character is hidden.
pub(crate) fn visible(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        let hidden = c.is_control() && c != '\t'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}');
        if hidden {
            write!(shown, "{}", c.escape_unicode()).expect("writing to a string does not fail");
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_holds_any_text() {
        for text in [
            "",
            "plain",
            "\"#",
            "*/",
            "\"; panic!() //",
            "a\nb\r\nc",
            "\\",
            "\u{202e}abc\u{2066}",
            "żółw 🐢",
            "{{x}}",
            "r#\"\"#",
            "\0",
        ] {
            let literal = literal(text);
            let parsed: syn::LitStr = syn::parse_str(&literal).expect("a literal is one token");
            assert_eq!(parsed.value(), text);
            assert!(literal.is_ascii() && !literal.contains('\n'), "{literal}");
        }
    }

    #[test]
    fn documentation_shows_what_cannot_be_seen() {
        assert_eq!(doc_lines("a \nb\u{202e}c\n\nd\re"), [" a", " b\\u{202e}c", "", " d\\u{d}e"]);
    }

    #[test]
    fn a_fence_is_longer_than_any_within() {
        assert_eq!(fenced("mermaid", "a\n```\nb"), [" ````mermaid", " a", " ```", " b", " ````"]);
        assert_eq!(fenced("text", "a"), [" ```text", " a", " ```"]);
    }
}
