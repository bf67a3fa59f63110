//! LW03xx: the graph reads well and means nothing that can run.

use super::{CodeInfo, catalogue};

catalogue! {
CYCLE = "LW0301", "a cycle",
"The edges lead back to where they began. In a loop a message could go round for ever and would never be done, so a topology has
none. A failed message is tried again by the task's `retry`. Work that comes in rounds can be a second topology that the last task
sends to.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score
score --> store
store --> parse
"""
"#;
UNREACHABLE = "LW0302", "a task that no edge touches",
"The graph has several tasks and this one has no edge, so no message of the others ever reaches it. Mostly a name is misspelled in an
edge. A task that is meant to stand alone is a topology of its own.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score
store
"""
"#;
UNKNOWN_TASK = "LW0303", "a declaration of an unknown task",
"`[[topology.task]]` describes a task that the graph of this topology does not have: its name is misspelled, or no edge leads to it
any more. A task needs a declaration only if it differs from the defaults.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "scroe"
parallelism = 4
"#;
TASK_TWICE = "LW0304", "a task declared twice",
"Two `[[topology.task]]` of one topology have the same name. Put all keys of the task into one of them.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
parallelism = 4

[[topology.task]]
name = "score"
timeout = "5s"
"#;
EDGE_TWICE = "LW0305", "an edge drawn twice",
"The same edge, with the same label or with none, is in the graph twice. A message goes over an edge once however often it is
drawn, so the second one has no effect. Two edges with different labels may connect the same tasks.",
r#"[[topology]]
name = "orders"
graph = """
parse --> score --> store
parse --> score
"""
"#;
MIXED = "LW0306", "labelled and unlabelled edges mixed",
"With labels a task gives an enum, and each of its variants goes over the edges with its label. Without labels every edge gets all that
the task gives. One task cannot do both: label all edges that leave it, or none.",
r#"[[topology]]
name = "orders"
graph = """
parse -->|order| score
parse --> store
"""
"#;
ENDS_GOES_ON = "LW0307", "an ending label that goes on",
"`ends` names the labels that a task gives and that go nowhere on purpose. This label is also drawn on an edge. Remove it from `ends`
or from the graph.",
r#"[[topology]]
name = "orders"
graph = """
parse -->|order| score
parse -->|refund| store
"""

[[topology.task]]
name = "parse"
ends = ["refund"]
"#;
ENDS_UNLABELLED = "LW0308", "`ends` without labels",
"`ends` names labels that go nowhere on purpose, but the task gives no labels: its edges have none, or it is a source or sink.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "parse"
ends = ["refund"]
"#;
SOURCE_INSIDE = "LW0309", "a source inside of the graph",
"A task with a `source` is fed from outside, so it stands where the graph begins. Here an edge leads to it as well. Put the source
on a task of its own and draw an edge from there.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
source = { type = "lines", path = "-" }
"#;
SINK_GIVES = "LW0310", "a sink with edges behind it",
"A sink writes what it gets to the outside and gives nothing, so no edge leaves it.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "parse"
sink = { type = "stdout" }
"#;
KINDS = "LW0311", "a task of two kinds",
"What handles a task's messages is either a Rust type (`type`, `kind`), an HTTP worker (`worker`), a job (`kind = \"job\"` with `job`)
or a sink (`sink`). A source may feed a Rust type, a worker or a job, and stands alone otherwise.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
type = "Score"
worker = "http://localhost:9000"
"#;
ENDS_TWICE = "LW0312", "a label that ends twice",
"`ends` names the same label more than once. Remove one of them.",
r#"[[topology]]
name = "orders"
graph = "parse -->|order| score"

[[topology.task]]
name = "parse"
ends = ["refund", "refund"]
"#;
SOURCE_LABELS = "LW0313", "a source that would choose a label",
"A task with a `source` and no `type` passes on everything that it reads. It cannot decide which label a message gets. Remove the
labels, or give the task a `type` that decides.",
r#"[[topology]]
name = "orders"
graph = """
parse -->|order| score
parse -->|refund| store
"""

[[topology.task]]
name = "parse"
source = { type = "jsonl", path = "orders.jsonl" }
"#;
}
