//! LW01xx: the text of a graph cannot be read.

use super::{CodeInfo, catalogue};

catalogue! {
UNREADABLE = "LW0101", "a piece of the graph cannot be read",
"A statement of the graph follows none of the forms that Mermaid's flowcharts have. A statement is a chain of tasks and arrows
(`a --> b --> c`, `a & b --> c`), a style, or a `subgraph`; statements are separated by line breaks or `;`. A comment has a line of
its own and begins with `%%`. A text with brackets or quotes in it must itself be in quotes: `a[\"Text (more)\"]`.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score store
"""
"#;
LINK = "LW0102", "a kind of link that is not supported",
"Mermaid has many ways to draw a link; a topology has one meaning: messages go from one task to another. Only `-->` says that, with
more dashes (`--->`) for a longer arrow and with a label as `-->|label|` or `-- label -->`. Links without an arrowhead, with two
heads, dotted, thick, invisible, or with a cross or circle are refused by name, so that nobody reads a meaning into them that
is not there. `linkStyle` may still make an arrow dotted or thick.",
r#"[[topology]]
name = "orders"
graph = "parse -.-> score"
"#;
SHAPE = "LW0103", "a shape that is not supported",
"A task can be drawn as `a[Text]`, `a(Text)`, `a{Text}`, `a([Text])` or `a[(Text)]`. Mermaid's other shapes are refused, because
Leatworks draws every graph itself (as SVG, in a terminal, in Graphviz), and a graph should look the same everywhere.",
r#"[[topology]]
name = "orders"
graph = "parse --> score((Score))"
"#;
STATEMENT = "LW0104", "a statement that is not supported",
"Mermaid knows this statement, a topology has no use for it: `click` and `href` belong to web pages, `accTitle` and `accDescr` repeat
the topology's `name` and `description`, and `direction` has an effect only inside a subgraph. Fences (```` ``` ````) stay outside
of the text, and one topology holds one graph with one header.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score
click parse "https://example.org"
"""
"#;
DIAGRAM = "LW0105", "another kind of diagram",
"The text is a Mermaid diagram, but no flowchart. A topology is drawn as a flowchart: `flowchart` or `graph` with a direction in the
first line, or no header at all.",
r#"[[topology]]
name = "orders"
graph = """
sequenceDiagram
parse ->> score: order
"""
"#;
DIRECTIVE = "LW0106", "a directive or front matter",
"`%%{init: …}%%` and front matter between `---` lines configure Mermaid's own drawing. They say nothing about the topology, and
other drawings would not follow them, so they are refused. Use `classDef`, `style` and `linkStyle` for colours, and the keys `name`
and `description` for titles.",
r#"[[topology]]
name = "orders"
graph = """
%%{init: {"theme": "dark"}}%%
parse --> score
"""
"#;
MARKDOWN = "LW0107", "Markdown in a text",
"Mermaid takes a text in quotes and backticks for Markdown. Leatworks shows texts as they are, in a terminal too. Remove the
backticks; `<br/>` breaks a line.",
r#"[[topology]]
name = "orders"
graph = '''
parse["`**Parse** it`"] --> score
'''
"#;
UNCLOSED = "LW0108", "something that is opened and never closed",
"A bracket, a quote or a label begins and does not end. The label of an edge ends on its own line; a text in quotes may run over
several lines. A quote inside a text is written `#quot;`.",
r#"[[topology]]
name = "orders"
graph = """
parse[Parse it --> score
"""
"#;
SUBGRAPH_END = "LW0109", "a subgraph and its `end` do not match",
"Every `subgraph` is closed by a line with `end`, the innermost first. An `end` too many closes nothing.",
r#"[[topology]]
name = "orders"
graph = """
subgraph intake
parse --> score
"""
"#;
SUBGRAPH_TWICE = "LW0110", "two subgraphs of one id",
"The id of a subgraph names its box in drawings and styles, so a topology has it once. Two boxes may share a title:
`subgraph first [Intake]`, `subgraph second [Intake]`.",
r#"[[topology]]
name = "orders"
graph = """
subgraph intake
parse
end
subgraph intake
score
end
parse --> score
"""
"#;
SUBGRAPH_EDGE = "LW0111", "a subgraph used as a task",
"An edge begins or ends at a subgraph. A box takes no messages, only tasks do: draw the edges to the tasks inside of it. A task and
a subgraph of one name would be mixed up in the same way.",
r#"[[topology]]
name = "orders"
graph = """
parse --> scoring
subgraph scoring
score --> store
end
"""
"#;
DIRECTION = "LW0112", "an unknown direction",
"The header says in which direction the graph is drawn: `TB` or `TD` (down), `BT` (up), `LR` (to the right) or `RL` (to the left), in
capitals. Without one it is drawn downwards.",
r#"[[topology]]
name = "orders"
graph = """
flowchart lr
parse --> score
"""
"#;
HIDDEN = "LW0113", "an invisible character",
"The graph holds a control character, or one that hides or turns the text beside it. A reviewer would see another graph than the
compiler, so it is refused. Such characters mostly come along when text is copied from a web page or a chat.",
r#"[[topology]]
name = "orders"
graph = "parse --> \u202Escore"
"#;
STYLE = "LW0114", "a style that cannot be kept",
"`classDef`, `class`, `style` and `linkStyle` are kept for drawings. What they name must exist: tasks and subgraphs by their id, edges
by their number, counted from 0. What they set are plain properties such as `fill:#f9f,stroke:#333`; quotes, brackets and `url(…)`
could break out of the drawing they are put into.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score
style scroe fill:#f9f
"""
"#;
EMPTY = "LW0115", "a graph without tasks",
"A topology needs at least one task. A graph that is one task alone is fine.",
r#"[[topology]]
name = "orders"
graph = """
flowchart LR
%% to be drawn
"""
"#;
TOO_LARGE = "LW0116", "a graph that is too large",
"A graph holds at most 10,000 tasks, 50,000 edges and 1,000 subgraphs, nested at most 32 deep. Mind that groups multiply: `a & b --> c & d` is four
edges. Split the graph into several topologies.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score
subgraph b1; subgraph b2; subgraph b3; subgraph b4; subgraph b5; subgraph b6
subgraph b7; subgraph b8; subgraph b9; subgraph b10; subgraph b11; subgraph b12
subgraph b13; subgraph b14; subgraph b15; subgraph b16; subgraph b17; subgraph b18
subgraph b19; subgraph b20; subgraph b21; subgraph b22; subgraph b23; subgraph b24
subgraph b25; subgraph b26; subgraph b27; subgraph b28; subgraph b29; subgraph b30
subgraph b31; subgraph b32; subgraph b33
"""
"#;
}
