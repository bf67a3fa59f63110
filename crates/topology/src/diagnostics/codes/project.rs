//! LW02xx: the files of a project and their keys.

use super::{CodeInfo, catalogue};

catalogue! {
NOT_READ = "LW0201", "a project file cannot be read",
"A project is a folder with a `Project.toml`, whose `members` are text files in UTF-8 of at most 4 MiB each. Here such a file is
missing, is a folder, is too large, holds other bytes, or may not be read.",
r#"[project]
name = "shop"
members = ["topologies"]
"#;
MEMBER = "LW0202", "a member file that does not exist",
"`members` lists the files that declare topologies, one by one, relative to the folder of `Project.toml` and with `/` between folders.
Patterns such as `*.toml` are not expanded: a file that is added by mistake should not become a part of the build.",
r#"[project]
name = "shop"
members = ["topologies/ordres.toml"]
"#;
OUTSIDE = "LW0203", "a member outside of the project",
"A member lies in the folder of `Project.toml` or below it. Absolute paths and paths that lead out through `..` mean another file on
each machine, and could make a build read what it should not.",
r#"[project]
name = "shop"
members = ["../other/orders.toml"]
"#;
MEMBER_TWICE = "LW0204", "a member listed twice",
"Each member is listed once, under whatever spelling. `Project.toml` itself is not a member.",
r#"[project]
name = "shop"
members = ["member.toml", "./member.toml"]
"#;
SYNTAX = "LW0205", "a file that is not TOML",
"The file does not follow the syntax of TOML. Often a quote is missing at the end of a text, or a graph of several lines stands
between single instead of triple quotes. Nothing else of the file is checked until it reads as TOML. See <https://toml.io>.",
r#"[[topology]]
name = "orders
graph = "parse --> score"
"#;
UNKNOWN_KEY = "LW0206", "an unknown key",
"A key that means nothing here. It is an error and not ignored, because a misspelled `retry` or `timeout` would otherwise be noticed
only when it matters.",
r#"[[topology]]
name = "orders"
grpah = "parse --> score"
graph = "parse --> score"
"#;
MISSING_KEY = "LW0207", "a missing key",
"A project needs `name` and `members`, a topology `name` and `graph`, a declaration of a task `name`, and a source or sink `type`. An
`interval` needs `every`, and each other source or sink but `stdout` needs `path`; leat.toml can put others in their place.",
r#"[[topology]]
graph = "parse --> score"
"#;
WRONG_TYPE = "LW0208", "a value of the wrong type",
"The key wants another type of value: a text in quotes, a whole number without, a duration in quotes with its unit, a list in square
brackets, or a table.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
timeout = 10
"#;
DURATION = "LW0209", "a duration that cannot be read",
"A duration is a whole number with a unit: `ms`, `s`, `m`, `h` or `d`; several may follow each other, as in `1m30s`. It is at most 31
days long: more is a mistake in the unit.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
timeout = "10 seconds"
"#;
RANGE = "LW0210", "a value out of range",
"A message is tried 1 to 1,000 times, a task handles 1 to 4,096 messages at a time, a timeout is longer than nothing, and
`max_backoff` is at least `backoff`. An `interval` gives at least 1 message, with some time before the next.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
parallelism = 0
"#;
CHOICE = "LW0211", "an unknown choice",
"The key takes one of a few words: `codec` is `json` or `messagepack`; `kind` is `task`, `fold` or `job`; a source is of type `lines`, `jsonl`,
`directory` or `interval`; a sink is of type `jsonl`, `stdout` or `maildir`.",
r#"[[topology]]
name = "orders"
codec = "jsno"
graph = "parse --> score"
"#;
RUST_PATH = "LW0212", "not a Rust path",
"`type` names a Rust type and `mod` a Rust module, as a `use` line would: names separated by `::`. A type without `::` lies in the
topology's `mod`, one with `::` in the crate, and one that begins with `::` in another crate. Give a generic type a name of its own:
`type Mails = Batch<Mail>;`.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
type = "Score<Order>"
"#;
URL = "LW0213", "not an address of a worker",
"A worker is an HTTP server: its address begins with `http://` and names a host. It must not hold a password, since it becomes a part
of the binary and of logs. A run calls workers without TLS, so `https://` is refused: where the way to a worker must be encrypted, let a
proxy beside the run, or a service mesh, speak TLS to the worker, and name that.",
r#"[[topology]]
name = "orders"
graph = "parse --> score"

[[topology.task]]
name = "score"
worker = "localhost:9000"
"#;
NO_TOPOLOGY = "LW0214", "a project without topologies",
"A project lists at least one member, and each member declares at least one `[[topology]]`: otherwise there is nothing to build.",
r#"[project]
name = "shop"
members = []
"#;
TEXT = "LW0215", "an invisible character in a value",
"A value holds a control character, or one that hides or turns the text beside it, so that it reads other than it is.",
r#"[[topology]]
name = "orders"
description = "orders \u202Eof the day"
graph = "parse --> score"
"#;
}
