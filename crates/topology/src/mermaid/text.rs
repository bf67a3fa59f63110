//! Texts of nodes and labels: quotes, character codes and line breaks.

use super::Word;

/// The word inside a text: without blanks around it and without quotes.
pub(super) fn unquoted(text: &str, at: usize) -> Word {
    let trimmed = text.trim();
    let start = at + (text.len() - text.trim_start().len());
    match trimmed.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) => Word { text: inner.to_owned(), span: start + 1..start + 1 + inner.len() },
        // Blanks only: the word is empty and stands behind them.
        None if trimmed.is_empty() => Word { text: String::new(), span: at + text.len()..at + text.len() },
        None => Word { text: trimmed.to_owned(), span: start..start + trimmed.len() },
    }
}

/// The named characters that people write in texts because the sign itself would end the text.
const NAMED: [(&str, char); 9] = [
    ("quot", '"'),
    ("apos", '\''),
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("nbsp", '\u{a0}'),
    ("semi", ';'),
    ("num", '#'),
    ("hearts", '♥'),
];

/// What a reader sees: Mermaid's `#quot;` and `#35;` become characters, `<br>` becomes a line break.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim();
    while let Some(at) = rest.find(['#', '<']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match character_code(rest).or_else(|| line_break(rest)) {
            Some((c, len)) => {
                out.push(c);
                rest = &rest[len..];
            }
            None => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The character and the length of a code such as `#35;`. A control character stays as written.
fn character_code(rest: &str) -> Option<(char, usize)> {
    let body = rest.strip_prefix('#')?;
    let len = body.find(|c: char| !c.is_ascii_alphanumeric())?;
    let name = &body[..len];
    body[len..].strip_prefix(';')?;
    let named = NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, c)| c);
    let c = named.or_else(|| name.parse().ok().and_then(char::from_u32).filter(|c| !forbidden(*c) && *c != '\n'))?;
    Some((c, len + 2))
}

fn line_break(rest: &str) -> Option<(char, usize)> {
    let body = rest.get(..3).filter(|tag| tag.eq_ignore_ascii_case("<br")).map(|_| &rest[3..])?;
    let end = body.find('>')?;
    matches!(body[..end].trim(), "" | "/").then_some(('\n', 3 + end + 1))
}

/// Characters that make a text look other than it is: control characters, and those that turn or hide what stands beside them. The
/// joiners that emoji and some scripts need are not among them.
pub(crate) fn forbidden(c: char) -> bool {
    let hidden = matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    hidden || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_as_a_reader_sees_them() {
        for (text, expected) in [
            ("plain", "plain"),
            (" blanks ", "blanks"),
            ("say #quot;hi#quot;", "say \"hi\""),
            ("#35;1 #9829; #hearts;", "#1 ♥ ♥"),
            ("#unknown; # #;", "#unknown; # #;"),
            ("#7;#99999999;", "#7;#99999999;"),
            ("one<br>two<br/>three<BR />four", "one\ntwo\nthree\nfour"),
            ("a < b <b>bold</b>", "a < b <b>bold</b>"),
            ("größe 😀#", "größe 😀#"),
            ("<bé", "<bé"),
        ] {
            assert_eq!(shown(text), expected, "of {text:?}");
        }
    }

    #[test]
    fn quotes_and_blanks_do_not_belong_to_a_word() {
        for (text, expected, span) in
            [("mail", "mail", 5..9), (" mail ", "mail", 6..10), (" \"mail\" ", "mail", 7..11), ("  ", "", 7..7)]
        {
            assert_eq!(unquoted(text, 5), Word { text: expected.to_owned(), span }, "of {text:?}");
        }
    }
}
