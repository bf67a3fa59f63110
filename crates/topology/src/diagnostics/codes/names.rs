//! LW04xx: names that cannot be, and names that clash.

use super::{CodeInfo, catalogue};

catalogue! {
NAME = "LW0401", "a name that cannot be used",
"The name of a topology or task is also the name of a topic, a binary and a Kubernetes object. What all of them take is small
letters, digits and `-`, beginning with a letter, ending with a letter or digit, at most 63 bytes. The text of a node says
the rest: `fetch-users[\"Fetch users (all)\"]`.",
r#"[[topology]]
name = "orders"
graph = "parse --> ScoreOrder"
"#;
LABEL = "LW0402", "a label that cannot be used",
"A label is a part of a topic's name and the name of a variant in Rust: `not-found` is `NotFound`. It is made of small letters,
digits and `-`, beginning with a letter.",
r#"[[topology]]
name = "orders"
graph = "parse -->|Not found| store"
"#;
TOPOLOGY_TWICE = "LW0403", "two topologies of one name",
"A topology is run, and named on the broker, by its name alone, so a project has each name once, whichever file declares it.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology]]
name = "orders"
graph = "read --> store"
"#;
BINARY_TWICE = "LW0404", "two binaries of one name",
"Each topology and each task is built as a binary of its name, all in one folder, so no two of them in a project may share one.
Capitals do not tell them apart, since some file systems do not. Tasks of different topologies may use the same Rust
type: give them different names and the same `type`.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology]]
name = "refunds"
graph = "read --> score"
"#;
RESERVED = "LW0405", "a reserved name",
"The name is made of allowed signs, but cannot be used: Mermaid takes `end`, `class`, `style`, `graph`, `subgraph`, `flowchart` and
`interpolate` for keywords, alone and before a `-`, and `click`, `href` and `call` alone, so that no page would draw the graph;
Cargo keeps `build`, `deps`, `examples` and `incremental` for its folders; Rust keeps `self`, `super` and `crate`; Windows keeps
`con`, `prn`, `aux`, `nul`, `com1` and the like for devices.",
r#"[[topology]]
name = "orders"
graph = "parse --> end-of-day"
"#;
TOPIC_TWICE = "LW0406", "two topics of one name",
"Topics are named by joining names with `-`: the ingress of task `day-score` in `orders` and that of task `score` in `orders-day` would
both be `orders-day-score`, and messages of the one would go to the other. Give one of them another name.",
r#"[[topology]]
name = "orders"
graph = "day-score --> store"

[[topology]]
name = "orders-day"
graph = "score --> keep"
"#;
}
