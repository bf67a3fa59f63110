//! What the generated binaries log: to standard error, chosen by `LEAT_LOG` or `-v`.
//!
//! As JSON every line is an object that says which topology it is about, and which edge or task: also what people are told beside the log, so that who reads the
//! lines of many processes need not know which one wrote them.

use serde_json::{Map, Value};
use std::{fmt, io::IsTerminal, sync::OnceLock, time::SystemTime};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What stands in every line of this process, if it writes JSON. Set once, before anything is logged.
static PLACE: OnceLock<Map<String, Value>> = OnceLock::new();

/// Sets logging up. `LEAT_LOG` goes before the number of `-v`. What stands in `place` is in every line of JSON.
pub(crate) fn init(verbose: u8, quiet: bool, format: LogFormat, place: &[(&str, &str)]) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    write_as(format, level, colour, place);
}

fn write_as(format: LogFormat, level: &str, colour: bool, place: &[(&str, &str)]) {
    let chosen = std::env::var("LEAT_LOG").ok().map(EnvFilter::try_new).transpose();
    let (filter, wrong) = match chosen {
        Ok(chosen) => (chosen.unwrap_or_else(|| EnvFilter::new(level)), None),
        Err(error) => (EnvFilter::new(level), Some(error)),
    };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    // Somebody who embeds this may have set logging up already; theirs stays.
    let _ = match format {
        LogFormat::Text => lines.try_init().is_ok(),
        LogFormat::Json => {
            let place = place.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
            let placed =
                Placed { place: inner(PLACE.get_or_init(|| place)), format: Format::default().json().with_target(false) };
            lines.json().event_format(placed).try_init().is_ok()
        }
    };
    if let Some(error) = wrong {
        tracing::warn!("`LEAT_LOG` is no filter, so it chooses nothing: {error}");
    }
}

/// Sets logging up for a process of its own kind that serves one topology: objects of JSON on standard error, each of which says what stands in `place`, as topology and task. `LEAT_LOG` goes
/// before `level`, which is a directive such as `info`.
pub fn log_json(level: &str, place: &[(&str, &str)]) {
    write_as(LogFormat::Json, level, false, place);
}

/// What people are told, as a line of the log, where that is JSON.
pub(crate) fn line(text: &str) -> Option<String> {
    let mut line = PLACE.get()?.clone();
    line.insert("timestamp".to_owned(), humantime::format_rfc3339_micros(SystemTime::now()).to_string().into());
    let is_error = text.starts_with("error:");
    line.insert("level".to_owned(), if is_error { "ERROR" } else { "INFO" }.into());
    line.insert("fields".to_owned(), serde_json::json!({ "message": text.trim() }));
    Some(Value::Object(line).to_string())
}

/// An object's entries, to be put in front of those of another: `"a":1,`.
fn inner(place: &Map<String, Value>) -> String {
    place.iter().map(|(name, value)| format!("{}:{value},", Value::from(name.as_str()))).collect()
}

/// JSON lines that begin with the same entries.
struct Placed {
    place: String,
    format: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for Placed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(cx, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{{}{rest}", self.place),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_json_says_where_it_is_from() {
        let written = Written::default();
        let place = Map::from_iter([("topology".to_owned(), "shop".into()), ("edge".to_owned(), "a-->|\"x\"|b".into())]);
        let placed = Placed { place: inner(&place), format: Format::default().json().with_target(false) };
        let writer = written.clone();
        let lines = tracing_subscriber::fmt().json().event_format(placed).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(lines, || {
            tracing::warn!(id = 7, "one");
            let _within = tracing::info_span!("message", id = 8).entered();
            tracing::error!("two");
        });
        let written = written.0.lock().unwrap().clone();
        let lines: Vec<Value> =
            String::from_utf8(written).unwrap().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 2);
        for (line, message) in lines.iter().zip(["one", "two"]) {
            assert_eq!((&line["topology"], &line["edge"]), (&"shop".into(), &"a-->|\"x\"|b".into()), "{line}");
            assert_eq!(line["fields"]["message"], message);
        }
        assert_eq!(lines[1]["span"]["id"], 8);
    }
}
