//! Pulsar's admin API, for what the binary protocol has no command for: topics, subscriptions, and what there is.

use super::{
    error::{PulsarError, Shown},
    limits::{ANSWER_TIME_MAX, AWAY_TIME_MAX, backoff},
    net,
    options::PulsarOptions,
    pack::Place,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use leatworks_broker::Position;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{net::TcpStream, time::Instant};

/// The most bytes of an answer: the statistics of a topic with thousands of consumers have some MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A message as the admin API names it. The largest numbers stand for the latest, -1 for the earliest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) ledger: i64,
    pub(crate) entry: i64,
}

impl At {
    pub(crate) const EARLIEST: Self = Self { ledger: -1, entry: -1 };
    pub(crate) const LATEST: Self = Self { ledger: i64::MAX, entry: i64::MAX };

    /// The entry of a position, which is read next then.
    pub(crate) fn entry_of(position: Position) -> Self {
        let (place, _) = Place::of(position);
        Self { ledger: place.ledger as i64, entry: place.entry as i64 }
    }

    fn json(self) -> Value {
        json!({ "ledgerId": self.ledger, "entryId": self.entry, "partitionIndex": -1 })
    }
}

/// The statistics of a topic, as far as they are used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stats {
    pub(crate) msg_in_counter: u64,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionStats>,
}

/// Those of a subscription.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SubscriptionStats {
    pub(crate) msg_backlog: i64,
    pub(crate) msg_delayed: u64,
    pub(crate) unacked_messages: i64,
    pub(crate) consumers: Vec<Value>,
    pub(crate) durable: Option<bool>,
}

impl SubscriptionStats {
    /// What they say of messages.
    pub(crate) fn counted(&self) -> leatworks_broker::SubscriptionStats {
        // Entries, of which each holds a message at least.
        let entries = self.msg_backlog.max(0) as u64;
        // An entry that comes again over a new connection while its acknowledgement over the old one is being taken in is counted as in hand for as long as
        // its consumer is there. Where no entry is left nothing is in hand.
        let in_flight = if entries == 0 { 0 } else { self.unacked_messages.max(0) as u64 };
        leatworks_broker::SubscriptionStats {
            backlog: entries.saturating_sub(in_flight),
            in_flight,
            delayed: self.msg_delayed,
            consumers: self.consumers.len(),
        }
    }
}

/// What the storage knows of a topic, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Internal {
    pub(crate) last_confirmed_entry: String,
    pub(crate) cursors: BTreeMap<String, Cursor>,
}

/// Where a subscription stands.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cursor {
    pub(crate) mark_delete_position: String,
    pub(crate) individually_deleted_messages: String,
}

/// The admin API of one namespace.
pub(crate) struct Admin {
    options: Arc<PulsarOptions>,
    tls: bool,
    host: String,
    port: u16,
}

impl Admin {
    pub(crate) fn new(options: Arc<PulsarOptions>) -> Result<Self, PulsarError> {
        let (tls, host, port) = match &options.admin_url {
            None => {
                let (tls, host, _) = net::parts(&options.url)?;
                (tls, host, if tls { 8443 } else { 8080 })
            }
            Some(url) => {
                let pulsar = url.replacen("https://", "pulsar+ssl://", 1).replacen("http://", "pulsar://", 1);
                let (tls, host, port) = net::parts(&pulsar).map_err(|_| PulsarError::Address(url.clone()))?;
                (tls, host, port)
            }
        };
        Ok(Self { options, tls, host, port })
    }

    /// The path of a topic, and of what is behind it.
    fn topic(&self, topic: &str, rest: &str) -> String {
        format!("/admin/v2/persistent/{}/{}/{topic}{rest}", self.options.tenant, self.options.namespace)
    }

    /// Asks, and gives the status and the body. A service that is starting, or moves a topic, is asked again for a while: all that is asked for
    /// here can be done twice.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), PulsarError> {
        let late = |_| PulsarError::Away(format!("the admin API at `{}:{}` does not answer", self.host, self.port));
        let start = Instant::now();
        let mut attempt = 0;
        loop {
            let asking = self.ask_now(method.clone(), path, body);
            let answer = tokio::time::timeout(ANSWER_TIME_MAX, asking).await.map_err(late)?;
            let passes = match &answer {
                Ok((status, _)) => status.is_server_error(),
                Err(error) => error.is_retryable(),
            };
            if !passes || start.elapsed() > AWAY_TIME_MAX {
                return answer;
            }
            tokio::time::sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    async fn ask_now(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), PulsarError> {
        let address = format!("{}:{}", self.host, self.port);
        let away = |error: &dyn std::fmt::Display| PulsarError::Away(format!("the admin API at `{address}`: {error}"));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| away(&error))?;
        let stream = match self.tls {
            false => net::Stream::Plain(stream),
            true => {
                let config = net::tls_config(&self.options, &address)?;
                net::Stream::Tls(Box::new(net::wrap(config, stream, &self.host, &address).await?))
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &address);
        if let Some(token) = super::link::token(&self.options)? {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| PulsarError::Refused(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|error| away(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| away(&error))?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> PulsarError {
        let told = serde_json::from_slice::<Value>(body).ok();
        let told = told.and_then(|told| told.get("reason").and_then(Value::as_str).map(str::to_owned));
        let told = told.unwrap_or_else(|| format!("the admin API answers {status}"));
        match status {
            StatusCode::UNAUTHORIZED => {
                let token = self.options.token_now().ok().flatten();
                PulsarError::of_authentication(told, Shown::of(token.as_deref()))
            }
            StatusCode::FORBIDDEN => PulsarError::NotAuthorized(told),
            StatusCode::NOT_FOUND => PulsarError::NotFound(told),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => PulsarError::Busy(told),
            status if status.is_client_error() => PulsarError::Refused(told),
            _ => PulsarError::Away(told),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, PulsarError> {
        let (status, body) = self.ask(Method::GET, path, None).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| PulsarError::Away(format!("an answer of the admin API: {error}")))
    }

    async fn act(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(), PulsarError> {
        let (status, body) = self.ask(method, path, body).await?;
        if status.is_success() { Ok(()) } else { Err(self.refusal(status, &body)) }
    }

    /// The names of all topics in the namespace.
    pub(crate) async fn topics(&self) -> Result<Vec<String>, PulsarError> {
        let path = format!("/admin/v2/persistent/{}/{}", self.options.tenant, self.options.namespace);
        let full: Vec<String> = self.get(&path).await?;
        let prefix = self.options.full("");
        Ok(full.into_iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Makes a topic; `false` if it is there already.
    pub(crate) async fn create_topic(&self, topic: &str, properties: &BTreeMap<&str, String>) -> Result<bool, PulsarError> {
        match self.act(Method::PUT, &self.topic(topic, ""), Some(&json!(properties))).await {
            Err(PulsarError::Busy(_)) => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Removes a topic that nobody uses.
    pub(crate) async fn delete_topic(&self, topic: &str) -> Result<(), PulsarError> {
        self.act(Method::DELETE, &self.topic(topic, ""), None).await
    }

    /// The properties that a topic was made with.
    pub(crate) async fn properties(&self, topic: &str) -> Result<BTreeMap<String, String>, PulsarError> {
        Ok(self.get::<Option<_>>(&self.topic(topic, "/properties")).await?.unwrap_or_default())
    }

    /// Sets properties of a topic, beside those it has.
    pub(crate) async fn set_properties(&self, topic: &str, properties: &BTreeMap<&str, String>) -> Result<(), PulsarError> {
        self.act(Method::PUT, &self.topic(topic, "/properties"), Some(&json!(properties))).await
    }

    /// How long acknowledged messages are kept. The service counts minutes and MB, so it is rounded up.
    pub(crate) async fn set_retention(&self, topic: &str, minutes: u64, megabytes: i64) -> Result<(), PulsarError> {
        let body = json!({ "retentionTimeInMinutes": minutes, "retentionSizeInMB": megabytes });
        self.act(Method::POST, &self.topic(topic, "/retention"), Some(&body)).await
    }

    /// The names of a topic's subscriptions.
    pub(crate) async fn subscriptions(&self, topic: &str) -> Result<Vec<String>, PulsarError> {
        self.get(&self.topic(topic, "/subscriptions")).await
    }

    /// Makes a subscription; `false` if it is there already.
    pub(crate) async fn create_subscription(&self, topic: &str, subscription: &str, at: At) -> Result<bool, PulsarError> {
        let path = self.topic(topic, &format!("/subscription/{subscription}"));
        match self.act(Method::PUT, &path, Some(&at.json())).await {
            Err(PulsarError::Busy(_)) => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Removes a subscription that has no consumers.
    pub(crate) async fn unsubscribe(&self, topic: &str, subscription: &str) -> Result<(), PulsarError> {
        self.act(Method::DELETE, &self.topic(topic, &format!("/subscription/{subscription}")), None).await
    }

    /// Moves a subscription to a message.
    pub(crate) async fn seek(&self, topic: &str, subscription: &str, at: At) -> Result<(), PulsarError> {
        let path = self.topic(topic, &format!("/subscription/{subscription}/resetcursor"));
        self.act(Method::POST, &path, Some(&at.json())).await
    }

    /// Moves a subscription to the first message that was published at or after a time.
    pub(crate) async fn seek_time(&self, topic: &str, subscription: &str, time_ms: u64) -> Result<(), PulsarError> {
        let path = self.topic(topic, &format!("/subscription/{subscription}/resetcursor/{time_ms}"));
        self.act(Method::POST, &path, None).await
    }

    /// Moves a subscription behind everything.
    pub(crate) async fn skip_all(&self, topic: &str, subscription: &str) -> Result<(), PulsarError> {
        self.act(Method::POST, &self.topic(topic, &format!("/subscription/{subscription}/skip_all")), None).await
    }

    /// The statistics of a topic.
    pub(crate) async fn stats(&self, topic: &str) -> Result<Stats, PulsarError> {
        self.get(&self.topic(topic, "/stats?getPreciseBacklog=true")).await
    }

    /// What the storage knows of a topic.
    pub(crate) async fn internal(&self, topic: &str) -> Result<Internal, PulsarError> {
        self.get(&self.topic(topic, "/internalStats")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_takes_for_in_hand_counts_as_long_as_there_is_an_entry() {
        for (msg_backlog, unacked_messages, counted) in
            [(0, 0, (0, 0)), (5, 0, (5, 0)), (5, 2, (3, 2)), (1, 10, (0, 10)), (0, 10, (0, 0)), (-1, 10, (0, 0)), (3, -2, (3, 0))]
        {
            let found = SubscriptionStats { msg_backlog, unacked_messages, ..SubscriptionStats::default() }.counted();
            assert_eq!((found.backlog, found.in_flight), counted, "{msg_backlog} entries, {unacked_messages} messages in hand");
        }
    }
}
