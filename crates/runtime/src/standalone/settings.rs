//! `dispatcher.toml`.

use crate::{def::Retry, settings::DurationText};
use config::{File, FileFormat};
use serde::Deserialize;
use std::{
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
    attempts: Option<u32>,
    backoff: Option<DurationText>,
    max_backoff: Option<DurationText>,
    timeout: Option<DurationText>,
    parallelism: Option<usize>,
}

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
        let Toml { mq, handlers, http, retry } =
            read.and_then(config::Config::try_deserialize).map_err(|error| error.to_string())?;
        if mq.topics.is_empty() {
            return Err("`mq.topics` is empty: nothing would be taken".to_owned());
        }
        if handlers.is_empty() {
            return Err("there are no `[[handlers]]`: every message would be given up".to_owned());
        }
        let handlers = handlers.into_iter().map(handler).collect::<Result<Vec<_>, String>>()?;
        let attempts = retry.attempts.unwrap_or(RETRY.attempts);
        if attempts == 0 || retry.parallelism == Some(0) {
            return Err("`retry.attempts` and `retry.parallelism` are at least 1".to_owned());
        }
        let or = |text: Option<DurationText>, default| text.map_or(default, |text| text.0);
        Ok(Self {
            url: mq.url,
            topics: mq.topics,
            subscription: mq.subscription.unwrap_or_else(|| SUBSCRIPTION.to_owned()),
            share: mq.share,
            notes: mq.notes,
            handlers,
            http: http.listen,
            retry: Retry {
                attempts,
                backoff: or(retry.backoff, RETRY.backoff),
                max_backoff: or(retry.max_backoff, RETRY.max_backoff),
            },
            timeout: or(retry.timeout, TIMEOUT),
            parallelism: retry.parallelism.unwrap_or(PARALLELISM),
        })
    }
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
        ] {
            let error = Settings::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
