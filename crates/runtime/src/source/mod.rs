//! Where messages come from: lines, JSON lines, directories and the clock.
//!
//! A source publishes roots, and where it stands, in one step: after `kill -9` it goes on behind the last root that was accepted.

mod directory;
mod feed;
mod interval;
mod item;
mod text;

pub(crate) use feed::{Feed, SourceError, cut, position_key};
pub use item::{Entry, Line, Tick};

use crate::{
    Codec, Context, TaskError, codec,
    def::TaskDef,
    handler::{Handler, Output},
    plan::{Builtin, Plan, TaskPlan},
};
use leatworks_broker::{BoxFuture, Message};
use serde_json::{Value, value::RawValue};

/// The `type`s of the sources.
pub const KINDS: [&str; 4] = ["lines", "jsonl", "directory", "interval"];

/// Gives all that a source has, until it ends or the run is stopped.
pub(crate) async fn run(feed: Feed, task: &TaskPlan) -> Result<(), SourceError> {
    let Some(source) = &task.source else { return Ok(()) };
    let options = |error: TaskError| SourceError::Options(error.to_string());
    match source.kind.as_str() {
        "lines" => text::run(feed, source.options("source").map_err(options)?, text::Mode::Lines).await,
        "jsonl" => text::run(feed, source.options("source").map_err(options)?, text::Mode::Json).await,
        "directory" => directory::run(feed, source.options("source").map_err(options)?).await,
        "interval" => interval::run(feed, source.options("source").map_err(options)?).await,
        other => Err(unknown(other)),
    }
}

/// Whether a source can be opened: its kind and options are known, and what it reads exists.
pub(crate) fn check(source: &Builtin) -> Result<(), SourceError> {
    let options = |error: TaskError| SourceError::Options(error.to_string());
    match source.kind.as_str() {
        "lines" | "jsonl" => text::check(&source.options("source").map_err(options)?),
        "directory" => directory::check(&source.options("source").map_err(options)?),
        "interval" => interval::check(&source.options("source").map_err(options)?),
        other => Err(unknown(other)),
    }
}

fn unknown(kind: &str) -> SourceError {
    SourceError::Options(format!("unknown source type `{kind}`{}", crate::settings::hint(kind, &KINDS)))
}

/// Puts an input of the command line in place of the `path` of the topology's one `lines` or `jsonl` source.
pub(crate) fn override_input(plan: &mut Plan, input: &str) -> Result<(), String> {
    let name = plan.topology.name;
    let mut sources: Vec<&mut Builtin> = plan
        .tasks
        .iter_mut()
        .filter_map(|task| task.source.as_mut())
        .filter(|source| matches!(source.kind.as_str(), "lines" | "jsonl"))
        .collect();
    match sources.as_mut_slice() {
        [source] => {
            if let Value::Object(options) = &mut source.options {
                options.insert("path".to_owned(), Value::String(input.to_owned()));
            }
            Ok(())
        }
        [] => Err(format!("`{name}` has no source of type `lines` or `jsonl` that could read `{input}`")),
        _ => Err(format!("`{name}` has several sources that could read `{input}`: set their paths in leat.toml")),
    }
}

/// The handler of a task that only passes on what its source gives.
pub(crate) struct PassThrough(&'static TaskDef);

impl PassThrough {
    pub(crate) fn new(task: &'static TaskDef) -> Self {
        Self(task)
    }
}

impl Handler for PassThrough {
    fn handle<'a>(&'a self, message: &'a Message, _cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let payload = match (message.codec, self.0.codec) {
                (Codec::Json, Codec::Json) => {
                    crate::handler::decode_borrowed::<&RawValue>(&message.payload)?;
                    message.payload.clone()
                }
                (from, to) => {
                    let value: Value = crate::handler::decode(from, &message.payload)?;
                    codec::encode(to, &value)?
                }
            };
            let route = (!self.0.routes.is_empty()).then_some(0);
            Ok(vec![Output { route, topic: None, key: None, payload }])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink;
    use leatworks_topology::{BuiltinInfo, OptionInfo, OptionValue, SINKS, SOURCES};
    use serde_json::json;

    /// Why a source or sink cannot have these options; what it reads is there.
    fn refused(is_source: bool, kind: &str, options: Value) -> Option<String> {
        let builtin = Builtin { kind: kind.to_owned(), options };
        match is_source {
            true => check(&builtin).err().map(|error| error.to_string()),
            false => sink::check(&builtin).err().map(|error| error.to_string()),
        }
    }

    fn good(is_source: bool, value: OptionValue) -> Value {
        match value {
            // Sources read a folder like any other file, as far as they are asked here; what a sink writes must not be one.
            OptionValue::Text if is_source => json!("."),
            OptionValue::Text => json!(std::env::temp_dir().join("leatworks-of-no-sink")),
            OptionValue::Truth => json!(false),
            OptionValue::Count => json!(1),
            OptionValue::Duration => json!("1m30s"),
        }
    }

    #[test]
    fn the_options_are_those_that_projects_are_checked_for() {
        let kinds = |list: &[BuiltinInfo]| list.iter().map(|info| info.kind).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(kinds(&SOURCES), KINDS.into());
        assert_eq!(kinds(&SINKS), sink::KINDS.into());
        let all = SOURCES.iter().map(|info| (true, info)).chain(SINKS.iter().map(|info| (false, info)));
        for (is_source, BuiltinInfo { kind, options }) in all {
            let full: serde_json::Map<String, Value> =
                options.iter().map(|option| (option.name.to_owned(), good(is_source, option.value))).collect();
            assert_eq!(refused(is_source, kind, Value::Object(full.clone())), None, "{kind}");
            for OptionInfo { name, required, .. } in *options {
                let mut less = full.clone();
                less.remove(*name);
                assert_eq!(refused(is_source, kind, Value::Object(less)).is_some(), *required, "{kind} without {name}");
                let mut wrong = full.clone();
                wrong.insert((*name).to_owned(), json!([]));
                assert!(refused(is_source, kind, Value::Object(wrong)).is_some(), "{kind} with a list as {name}");
            }
            // What it says to a key that is like none names all that it knows.
            let mut more = full;
            more.insert("0".to_owned(), json!(1));
            let told = refused(is_source, kind, Value::Object(more)).unwrap();
            let known: Vec<&str> =
                told.split_once("known are").map_or("", |(_, known)| known).split('`').skip(1).step_by(2).collect();
            assert_eq!(known, options.iter().map(|option| option.name).collect::<Vec<_>>(), "{kind}: {told}");
        }
    }
}
