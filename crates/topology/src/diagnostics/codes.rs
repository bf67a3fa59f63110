//! The list of all diagnostic codes, with what `leat explain` says about each.

/// A diagnostic code and its explanation.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `LW0101`.
    pub code: &'static str,
    /// What it means in a few words.
    pub title: &'static str,
    /// The long text: why it is an error and what to do, in Markdown.
    pub explanation: &'static str,
    /// A piece of a project file that has the error.
    pub example: &'static str,
}

/// Declares the codes, and the list of them in the same order.
macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal;)*) => {
        $(
            pub(crate) static $name: CodeInfo = CodeInfo { code: $code, title: $title, explanation: "", example: "" };
        )*
    };
}

codes! {
    UNREADABLE = "LW0101", "a piece of the graph cannot be read";
    LINK = "LW0102", "a kind of link that is not supported";
    SHAPE = "LW0103", "a shape that is not supported";
    STATEMENT = "LW0104", "a statement that is not supported";
    DIAGRAM = "LW0105", "another kind of diagram";
    DIRECTIVE = "LW0106", "a directive or front matter";
    MARKDOWN = "LW0107", "Markdown in a text";
    UNCLOSED = "LW0108", "something that is opened and never closed";
    SUBGRAPH_END = "LW0109", "a subgraph and its `end` do not match";
    SUBGRAPH_TWICE = "LW0110", "two subgraphs of one id";
    SUBGRAPH_EDGE = "LW0111", "a subgraph used as a task";
    DIRECTION = "LW0112", "an unknown direction";
    HIDDEN = "LW0113", "an invisible character";
    STYLE = "LW0114", "a style that cannot be kept";
    EMPTY = "LW0115", "a graph without tasks";
    TOO_LARGE = "LW0116", "a graph that is too large";
    NOT_READ = "LW0201", "a project file cannot be read";
    MEMBER = "LW0202", "a member file that does not exist";
    OUTSIDE = "LW0203", "a member outside of the project";
    MEMBER_TWICE = "LW0204", "a member listed twice";
    SYNTAX = "LW0205", "a file that is not TOML";
    UNKNOWN_KEY = "LW0206", "an unknown key";
    MISSING_KEY = "LW0207", "a missing key";
    WRONG_TYPE = "LW0208", "a value of the wrong type";
    DURATION = "LW0209", "a duration that cannot be read";
    RANGE = "LW0210", "a value out of range";
    CHOICE = "LW0211", "an unknown choice";
    RUST_PATH = "LW0212", "not a Rust path";
    URL = "LW0213", "not an address of a worker";
    NO_TOPOLOGY = "LW0214", "a project without topologies";
    TEXT = "LW0215", "an invisible character in a value";
    CYCLE = "LW0301", "a cycle";
    UNREACHABLE = "LW0302", "a task that no edge touches";
    UNKNOWN_TASK = "LW0303", "a declaration of an unknown task";
    TASK_TWICE = "LW0304", "a task declared twice";
    EDGE_TWICE = "LW0305", "an edge drawn twice";
    MIXED = "LW0306", "labelled and unlabelled edges mixed";
    ENDS_GOES_ON = "LW0307", "an ending label that goes on";
    ENDS_UNLABELLED = "LW0308", "`ends` without labels";
    SOURCE_INSIDE = "LW0309", "a source inside of the graph";
    SINK_GIVES = "LW0310", "a sink with edges behind it";
    KINDS = "LW0311", "a task of two kinds";
    ENDS_TWICE = "LW0312", "a label that ends twice";
    SOURCE_LABELS = "LW0313", "a source that would choose a label";
    NAME = "LW0401", "a name that cannot be used";
    LABEL = "LW0402", "a label that cannot be used";
    TOPOLOGY_TWICE = "LW0403", "two topologies of one name";
    BINARY_TWICE = "LW0404", "two binaries of one name";
    RESERVED = "LW0405", "a reserved name";
    TOPIC_TWICE = "LW0406", "two topics of one name";
}

/// All codes in ascending order.
pub fn codes() -> &'static [CodeInfo] {
    &[]
}

/// The long text for a code, written `LW0101` or `lw0101`; `None` when there is no such code.
pub fn explain(code: &str) -> Option<&'static str> {
    codes().iter().find(|info| info.code.eq_ignore_ascii_case(code)).map(|info| info.explanation)
}
