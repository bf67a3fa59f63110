//! Connections that are shared, one to each broker, and which broker serves a topic.

use super::{error::PulsarError, limits::REDIRECTS_MAX, link::Link, options::PulsarOptions};
use crate::wire::proto::{Command, Lookup};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Mutex;

/// The answers of a lookup.
const REDIRECT: i32 = 0;
/// See [`REDIRECT`].
const CONNECT: i32 = 1;

/// The connections of one purpose.
pub(crate) struct Pool {
    options: Arc<PulsarOptions>,
    links: Mutex<HashMap<(String, Option<String>), Link>>,
}

impl Pool {
    pub(crate) fn new(options: Arc<PulsarOptions>) -> Self {
        Self { options, links: Mutex::default() }
    }

    /// A topic, by its full name, and the service it is on.
    pub(crate) fn place_of(&self, topic: &str) -> String {
        format!("{} {topic}", self.options.url)
    }

    /// The connection to the service itself.
    pub(crate) async fn service(&self) -> Result<Link, PulsarError> {
        self.link(&self.options.url, None).await
    }

    async fn link(&self, url: &str, behind: Option<&str>) -> Result<Link, PulsarError> {
        let mut links = self.links.lock().await;
        let key = (url.to_owned(), behind.map(str::to_owned));
        if let Some(link) = links.get(&key).filter(|link| !link.is_ended()) {
            return Ok(link.clone());
        }
        let link = Link::open(&self.options, url, behind).await?;
        links.retain(|_, link| !link.is_ended());
        links.insert(key, link.clone());
        Ok(link)
    }

    /// The connection to the broker that serves a topic, by its full name.
    pub(crate) async fn of_topic(&self, topic: &str) -> Result<Link, PulsarError> {
        let mut url = self.options.url.clone();
        let mut authoritative = None;
        for _ in 0..REDIRECTS_MAX {
            let link = self.link(&url, None).await?;
            let lookup = |request_id| Command::Lookup(Lookup { topic: topic.to_owned(), request_id, authoritative });
            let Command::LookupResponse(found) = link.ask(lookup).await? else { return Err(unexpected("a lookup")) };
            let named = if url.starts_with("pulsar+ssl:") { found.broker_url_tls } else { found.broker_url };
            let named = named.filter(|url| !url.is_empty());
            match (found.response, named) {
                (Some(CONNECT), Some(broker)) if found.proxy_through_service_url == Some(true) => {
                    return self.link(&self.options.url, Some(&broker)).await;
                }
                (Some(CONNECT), Some(broker)) => return self.link(&broker, None).await,
                (Some(REDIRECT), Some(broker)) => (url, authoritative) = (broker, found.authoritative),
                (Some(CONNECT | REDIRECT), None) => {
                    return Err(PulsarError::Away(format!("no broker of `{topic}` is named that is reached as `{url}` is")));
                }
                _ => return Err(link.error(found.error.unwrap_or_default(), &found.message.unwrap_or_default())),
            }
        }
        Err(PulsarError::Away(format!("the brokers send the lookup of `{topic}` around")))
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.links.lock().await.drain().for_each(|(_, link)| link.end());
    }
}

pub(crate) fn unexpected(what: &str) -> PulsarError {
    PulsarError::Away(format!("{what} was answered by something else"))
}
