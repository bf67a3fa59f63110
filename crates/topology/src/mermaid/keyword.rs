//! Words with a meaning of their own in Mermaid.

/// Words that Mermaid's flowchart lexer takes for keywords even at the start of a longer id, as in `end-of-day`: a graph with such a node
/// is not drawn by GitHub.
const PREFIXES: [&str; 7] = ["end", "class", "style", "graph", "subgraph", "flowchart", "interpolate"];

/// Words that it takes for keywords only when they stand alone.
const ALONE: [&str; 3] = ["click", "href", "call"];

/// The keyword that keeps an id from being drawn.
pub(crate) fn reserved(id: &str) -> Option<&'static str> {
    let prefix =
        PREFIXES.into_iter().find(|word| id.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')));
    prefix.or_else(|| ALONE.into_iter().find(|word| *word == id))
}

/// The first words of Mermaid's other kinds of diagram, with what to call each.
const DIAGRAMS: [(&str, &str); 26] = [
    ("sequenceDiagram", "a sequence diagram"),
    ("classDiagram", "a class diagram"),
    ("classDiagram-v2", "a class diagram"),
    ("stateDiagram", "a state diagram"),
    ("stateDiagram-v2", "a state diagram"),
    ("erDiagram", "an entity relationship diagram"),
    ("requirementDiagram", "a requirement diagram"),
    ("gitGraph", "a git graph"),
    ("quadrantChart", "a quadrant chart"),
    ("xychart-beta", "an XY chart"),
    ("sankey-beta", "a Sankey diagram"),
    ("block-beta", "a block diagram"),
    ("packet-beta", "a packet diagram"),
    ("radar-beta", "a radar diagram"),
    ("architecture-beta", "an architecture diagram"),
    ("C4Context", "a C4 diagram"),
    ("C4Container", "a C4 diagram"),
    ("C4Component", "a C4 diagram"),
    ("gantt", "a Gantt chart"),
    ("pie", "a pie chart"),
    ("journey", "a user journey"),
    ("mindmap", "a mind map"),
    ("timeline", "a timeline"),
    ("kanban", "a kanban board"),
    ("zenuml", "a ZenUML diagram"),
    ("treemap", "a treemap"),
];

/// What kind of diagram a word begins.
pub(super) fn diagram(word: &str) -> Option<&'static str> {
    DIAGRAMS.into_iter().find(|(first, _)| *first == word).map(|(_, kind)| kind)
}
