//! `dispatcher.toml`.

use crate::{config::values, def::Retry, settings};
use config::{File, FileFormat};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a dispatcher that runs by itself is to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where the broker is: `embedded:DIRECTORY`, or the address of another.
    pub url: String,
    /// The topics whose messages are taken.
    pub topics: Vec<String>,
    /// The subscription by which they are taken. Several dispatchers with the same one share the work.
    pub subscription: String,
    /// Where an embedded broker is served to other programs over the Pulsar protocol.
    pub share: Option<SocketAddr>,
    /// Where notes of attempts are kept that are on their way to a Pulsar service; none if messages wait for them.
    pub notes: Option<PathBuf>,
    /// Who gets which message: the first whose type it is.
    pub handlers: Vec<HandlerSettings>,
    /// Where tasks are taken over HTTP.
    pub http: Option<SocketAddr>,
    /// How failures are retried.
    pub retry: Retry,
    /// How long one call may take.
    pub timeout: Duration,
    /// How many messages of one topic are handled at once.
    pub parallelism: usize,
}

/// Who gets the messages of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSettings {
    /// The type.
    pub kind: String,
    /// Where its worker listens, `http://host:port/path`.
    pub endpoint: String,
}

/// A `dispatcher.toml` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{file}`: {text}")]
pub struct SettingsError {
    file: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    mq: Mq,
    handlers: Vec<Handler>,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    retry: RetryTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mq {
    url: String,
    topics: Vec<String>,
    subscription: Option<String>,
    share: Option<SocketAddr>,
    notes: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    task_selector: Selector,
    endpoint: Option<String>,
    pipeline: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    r#type: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    listen: Option<SocketAddr>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryTable {
    #[serde(default, deserialize_with = "values::attempts")]
    attempts: Option<u32>,
    #[serde(default, deserialize_with = "values::duration")]
    backoff: Option<Duration>,
    #[serde(default, deserialize_with = "values::duration")]
    max_backoff: Option<Duration>,
    #[serde(default, deserialize_with = "values::timeout")]
    timeout: Option<Duration>,
    #[serde(default, deserialize_with = "values::parallelism")]
    parallelism: Option<usize>,
}

/// What the address of an embedded broker begins with; its folder follows.
const EMBEDDED: &str = "embedded:";

/// The subscription, unless another is named.
const SUBSCRIPTION: &str = "leat-dispatch";

/// What a project's tasks have unless they say otherwise, too.
const RETRY: Retry = Retry { attempts: 3, backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(30) };
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of one topic at once: workers are other programs, mostly waiting for something themselves.
const PARALLELISM: usize = 8;

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// A text that names the file and the key.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let wrong = |text: String| SettingsError { file: path.display().to_string(), text };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a `dispatcher.toml`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = config::Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
        let value: Value = read.and_then(config::Config::try_deserialize).map_err(|error| error.to_string())?;
        let Toml { mq, handlers, http, retry } = settings::from_value(&value).map_err(|error| error.to_string())?;
        if mq.url == EMBEDDED {
            return Err("`mq.url` names no folder: write `embedded:DIRECTORY`".to_owned());
        }
        if mq.topics.is_empty() {
            return Err("`mq.topics` is empty: nothing would be taken".to_owned());
        }
        let mut topics = BTreeSet::new();
        if let Some(twice) = mq.topics.iter().find(|topic| !topics.insert(topic.as_str())) {
            return Err(format!("`mq.topics` names `{twice}` twice: its messages would be taken by two that share them"));
        }
        if handlers.is_empty() {
            return Err("there are no `[[handlers]]`: every message would be given up".to_owned());
        }
        let handlers = handlers.into_iter().map(handler).collect::<Result<Vec<_>, String>>()?;
        Ok(Self {
            url: mq.url,
            topics: mq.topics,
            subscription: mq.subscription.unwrap_or_else(|| SUBSCRIPTION.to_owned()),
            share: mq.share,
            notes: mq.notes,
            handlers,
            http: http.listen,
            timeout: retry.timeout.unwrap_or(TIMEOUT),
            retry: waits(&retry)?,
            parallelism: retry.parallelism.unwrap_or(PARALLELISM),
        })
    }
}

/// Where only one of the two waits is given, the other one is moved to it if it must be.
fn waits(retry: &RetryTable) -> Result<Retry, String> {
    if let (Some(backoff), Some(max)) = (retry.backoff, retry.max_backoff)
        && max < backoff
    {
        return Err("`retry.max_backoff` is shorter than `retry.backoff`: waits grow from the one to the other".to_owned());
    }
    let backoff = retry.backoff.unwrap_or(RETRY.backoff.min(retry.max_backoff.unwrap_or(RETRY.max_backoff)));
    let max_backoff = retry.max_backoff.unwrap_or(RETRY.max_backoff.max(backoff));
    Ok(Retry { attempts: retry.attempts.unwrap_or(RETRY.attempts), backoff, max_backoff })
}

fn handler(Handler { task_selector, endpoint, pipeline }: Handler) -> Result<HandlerSettings, String> {
    let kind = task_selector.r#type;
    match (endpoint, pipeline) {
        (Some(endpoint), _) => Ok(HandlerSettings { kind, endpoint }),
        (None, Some(script)) => Err(format!(
            "the handler of `{kind}` is the script `{script}`: scripts are not run here; serve it as an HTTP worker and name its `endpoint`"
        )),
        (None, None) => Err(format!("the handler of `{kind}` has no `endpoint`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [mq]
        url = "embedded:data"
        topics = ["a", "b"]

        [[handlers]]
        task_selector = { type = "a" }
        endpoint = "http://127.0.0.1:3000/a"
    "#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = Settings::parse(GOOD).unwrap();
        assert_eq!(settings.topics, ["a", "b"]);
        assert_eq!(settings.handlers[0].kind, "a");
        assert_eq!((settings.subscription.as_str(), settings.retry, settings.http), (SUBSCRIPTION, RETRY, None));
        let more = format!("{GOOD}\n[http]\nlisten = \"127.0.0.1:0\"\n[retry]\nattempts = 2\nbackoff = \"1s\"");
        let settings = Settings::parse(&more).unwrap();
        assert_eq!((settings.retry.attempts, settings.retry.backoff), (2, Duration::from_secs(1)));
        assert!(settings.http.is_some());
        for (retry, backoff_ms, max_ms) in [("backoff = '1m'", 60_000, 60_000), ("max_backoff = '0s'", 0, 0)] {
            let found = Settings::parse(&format!("{GOOD}\n[retry]\n{retry}")).unwrap().retry;
            assert_eq!((found.backoff.as_millis(), found.max_backoff.as_millis()), (backoff_ms, max_ms), "{retry}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, told) in [
            ("topics = [\"a\", \"b\"]", "topics = []", "mq.topics"),
            ("url = \"embedded:data\"", "", "url"),
            ("endpoint = \"http://127.0.0.1:3000/a\"", "", "`a` has no `endpoint`"),
            ("endpoint = \"http://127.0.0.1:3000/a\"", "pipeline = \"x.rn\"", "scripts are not run"),
            ("url =", "adress = \"x\"\nurl =", "adress"),
            ("type =", "kind =", "type"),
            ("\"a\", \"b\"", "\"a\", \"b\", \"a\"", "`mq.topics` names `a` twice"),
            ("embedded:data", "embedded:", "`mq.url` names no folder"),
            ("[mq]", "[retry]\ntimeout = \"0s\"\n[mq]", "`retry.timeout`: it is longer than zero"),
            ("[mq]", "[retry]\ntimeout = \"32d\"\n[mq]", "`retry.timeout`: \"32d\" is longer than 31 days"),
            ("[mq]", "[retry]\nattempts = 0\n[mq]", "`retry.attempts`: 0 is no whole number"),
            ("[mq]", "[retry]\nparallelism = 100000000000\n[mq]", "`retry.parallelism`: 100000000000 is no whole number"),
            ("[mq]", "[retry]\nbackoff = \"2s\"\nmax_backoff = \"1s\"\n[mq]", "shorter than `retry.backoff`"),
        ] {
            let error = Settings::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
