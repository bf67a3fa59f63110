//! The list of all diagnostic codes, with what `leat explain` says about each.

/// A diagnostic code and its explanation.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `LW0101`.
    pub code: &'static str,
    /// What it means in a few words.
    pub title: &'static str,
    /// The long text: why it is an error and what to do.
    pub explanation: &'static str,
    /// A piece of a project file that has the error.
    pub example: &'static str,
}

/// All codes in ascending order.
pub fn codes() -> &'static [CodeInfo] {
    &[]
}

/// The long text for a code, written `LW0101` or `lw0101`; `None` when there is no such code.
pub fn explain(code: &str) -> Option<&'static str> {
    codes().iter().find(|info| info.code.eq_ignore_ascii_case(code)).map(|info| info.explanation)
}
