//! The list of all diagnostic codes, with what `leat explain` says about each.

mod graph;
mod meaning;
mod names;
mod project;

pub(crate) use graph::*;
pub(crate) use meaning::*;
pub(crate) use names::*;
pub(crate) use project::*;

use std::fmt::Write;
use std::sync::LazyLock;

/// A diagnostic code and its explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `LW0101`.
    pub code: &'static str,
    /// What it means in a few words.
    pub title: &'static str,
    /// The long text: why it is an error and what to do, in Markdown.
    pub explanation: &'static str,
    /// A file with the error: `Project.toml` when it begins with `[project]`, otherwise a member.
    pub example: &'static str,
}

/// Declares the codes of one hundred, and their list in the same order.
macro_rules! catalogue {
    ($($name:ident = $code:literal, $title:literal, $explanation:literal, $example:literal;)*) => {
        $(
            pub(crate) const $name: CodeInfo =
                CodeInfo { code: $code, title: $title, explanation: $explanation, example: $example };
        )*
        pub(super) const ALL: &[CodeInfo] = &[$($name),*];
    };
}
use catalogue;

/// All codes in ascending order.
pub fn codes() -> &'static [CodeInfo] {
    static CODES: LazyLock<Vec<CodeInfo>> = LazyLock::new(|| [graph::ALL, project::ALL, meaning::ALL, names::ALL].concat());
    &CODES
}

/// The long text for a code, written `LW0101` or `lw0101`; `None` when there is no such code.
pub fn explain(code: &str) -> Option<&'static str> {
    codes().iter().find(|info| info.code.eq_ignore_ascii_case(code)).map(|info| info.explanation)
}

/// The reference of all diagnostics as a Markdown page: title, explanation and example of each code.
pub fn reference_markdown() -> String {
    const GROUPS: [(&str, &str); 4] =
        [("LW01", "The text of a graph"), ("LW02", "Files and keys"), ("LW03", "The meaning of a graph"), ("LW04", "Names")];
    let mut page = "# Diagnostics\n\nEverything that can be wrong with a project before the compiler sees it. All of it is reported at once, with the\n\
                    place underlined; `leat explain CODE` prints the text of one code.\n"
        .to_owned();
    for (prefix, heading) in GROUPS {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {heading}\n");
        for info in codes().iter().filter(|info| info.code.starts_with(prefix)) {
            let CodeInfo { code, title, explanation, example } = info;
            let _ = write!(page, "\n### {code}: {title}\n\n{explanation}\n\n```toml\n{}\n```\n", example.trim_end());
        }
    }
    page
}
