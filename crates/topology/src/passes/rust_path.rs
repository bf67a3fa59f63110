//! Whether a text is a path to a Rust type. It becomes source code, so nothing else may pass.

/// Rust's keywords, which are no names; `crate` is allowed where a path begins.
const KEYWORDS: [&str; 51] = [
    "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move",
    "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type",
    "typeof", "unsafe", "unsized", "use", "virtual", "where", "while",
];

/// Splits a path into its segments; `Err` says what is wrong with it.
pub(super) fn check(path: &str) -> Result<(), String> {
    let inner = path.strip_prefix("::").unwrap_or(path);
    for (place, segment) in inner.split("::").enumerate() {
        let raw = segment.strip_prefix("r#");
        if segment == "crate" && place == 0 && inner.len() == path.len() && inner != "crate" {
            continue;
        }
        let name = raw.unwrap_or(segment);
        let mut chars = name.chars();
        let starts = chars.next().is_some_and(|c| c == '_' || unicode_ident::is_xid_start(c));
        if !starts || !chars.all(unicode_ident::is_xid_continue) || name == "_" {
            return Err(if segment.is_empty() {
                "a part is empty".to_owned()
            } else {
                format!("`{}` is no identifier", segment.escape_debug())
            });
        }
        let never_raw = matches!(name, "crate" | "self" | "super" | "Self");
        if (raw.is_none() && KEYWORDS.contains(&name)) || never_raw {
            return Err(format!("`{name}` is a keyword"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_pass() {
        for path in ["Send", "mail::Send", "crate::mail::Send", "::other_crate::Send", "r#type::Send", "_a", "Größe"] {
            assert_eq!(check(path), Ok(()), "of {path:?}");
        }
        for path in [
            "",
            " Send",
            "Send ",
            "Send;",
            "\"; panic!() //",
            "Send<T>",
            "Send\n",
            "a::",
            "::",
            "a::::b",
            "::crate::a",
            "a::crate::b",
            "self::a",
            "super::a",
            "Self",
            "crate",
            "match",
            "r#crate",
            "_",
            "a-b",
            "1a",
            "a::b!()",
            "a/*x*/::b",
            "a\u{202e}",
            "Ⓐ",
            "{}",
            "a as b",
            "crate::{a, b}",
            "<T as U>::V",
            "&a",
            "'a",
            "a::<b>",
            "r#",
            "r#_",
        ] {
            assert!(check(path).is_err(), "{path:?} passes");
        }
    }
}
