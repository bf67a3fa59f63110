//! Which topologies may have changed: watches that are never silent for long without somebody noticing.
//!
//! A watch tells only that something may have happened to a topology; what did is read anew. So it asks for metadata alone, an object that cannot be
//! read does not stop it, and a notice that comes twice or late does no harm.

use crate::{metrics::Metrics, names};
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// How long one watch lasts at the server's end. It is asked to end them soon, since that is a sign of life that cannot be missed.
const WATCH_SECONDS: u32 = 20;

/// How long a watch may say nothing: 15 seconds longer than it lasts, and so short that the next one has come to its end before [`PULSE_AGE_MAX`] is over. So one silence
/// alone does not count as being stuck, and a second one does.
pub const SILENCE_MAX: Duration = Duration::from_secs(35);

/// How old the last sign of life may be before the process is taken for stuck.
pub const PULSE_AGE_MAX: Duration = Duration::from_secs(60);

/// How long to wait after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How many objects are asked for at a time.
const PAGE: u32 = 500;

/// A topology: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Something may have happened to a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which one.
    pub key: Key,
    /// Of a topology itself: which resource it is and which generation of it, which is another one when something else is asked for, and stays when its status is written.
    pub asked: Option<String>,
    /// Nobody knows what has happened since it was last told of: it is gone, or a watch of topologies has begun anew.
    pub is_anew: bool,
}

/// When something last came to an end, well or badly: what is stuck has no pulse, and what says nothing has none either.
#[derive(Clone)]
pub struct Pulse {
    began: Instant,
    beat: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { began: Instant::now(), beat: Arc::default() }
    }
}

impl Pulse {
    /// A sign of life.
    pub fn beat(&self) {
        self.beat.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long ago the last one was.
    pub fn age(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.beat.load(Relaxed)))
    }
}

/// What an object tells of a topology.
pub type NoticeOf = fn(&ObjectMeta) -> Option<Notice>;

/// A topology tells of itself.
pub fn of_itself(meta: &ObjectMeta) -> Option<Notice> {
    let key = Key { namespace: meta.namespace.clone()?, name: meta.name.clone()? };
    let asked = format!("{} {}", meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or_default());
    Some(Notice { key, asked: Some(asked), is_anew: false })
}

/// What was made for a topology says for which.
pub fn of_its_owner(meta: &ObjectMeta) -> Option<Notice> {
    let name = meta.labels.as_ref()?.get(names::TOPOLOGY)?.clone();
    Some(Notice { key: Key { namespace: meta.namespace.clone()?, name }, asked: None, is_anew: false })
}

/// One watch.
pub struct Watch {
    /// What is watched.
    pub api: Api<DynamicObject>,
    /// By which labels.
    pub labels: String,
    /// What an object tells.
    pub notice: NoticeOf,
    /// Where the notices go. The receiver always takes them soon.
    pub to: mpsc::Sender<Notice>,
    /// Its signs of life.
    pub pulse: Pulse,
    /// How long it may say nothing: [`SILENCE_MAX`].
    pub silence_max: Duration,
    /// What counts silences.
    pub metrics: Arc<Metrics>,
}

/// Why a watch has to begin anew.
enum Broken {
    /// The server says so, for example since it does not know the version any more.
    Told(String),
    /// The server does not let this controller watch, and says what right it lacks.
    Refused(String),
    /// It said nothing for too long.
    Silent,
    /// Nobody wants to know any more.
    Unheard,
}

fn told(error: &kube::Error) -> Broken {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Broken::Refused(status.message.clone()),
        other => Broken::Told(other.to_string()),
    }
}

impl Watch {
    /// Watches until nobody listens.
    pub async fn run(self) {
        let mut pause = PAUSE.0;
        // That a list is answered does not show that a watch would be.
        let mut was_silent = false;
        loop {
            let broken = match self.list(was_silent).await {
                Ok(version) => {
                    pause = PAUSE.0;
                    self.follow(version).await
                }
                Err(broken) => broken,
            };
            was_silent = matches!(broken, Broken::Silent);
            if !was_silent {
                self.pulse.beat();
            }
            match broken {
                Broken::Unheard => return,
                Broken::Silent => {
                    self.metrics.silence();
                    tracing::warn!(
                        watched = self.api.resource_url(),
                        "a watch said nothing for {:?} and begins anew",
                        self.silence_max
                    );
                }
                Broken::Refused(why) => {
                    tracing::warn!(watched = self.api.resource_url(), why, "the API server refuses a watch; it is tried again")
                }
                Broken::Told(why) => tracing::debug!(watched = self.api.resource_url(), why, "a watch begins anew"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// All that is there, and the version from which to go on.
    async fn list(&self, was_silent: bool) -> Result<String, Broken> {
        self.metrics.called("list");
        let mut params = ListParams::default().labels(&self.labels).limit(PAGE);
        loop {
            let page =
                tokio::time::timeout(self.silence_max, self.api.list_metadata(&params)).await.map_err(|_| Broken::Silent)?;
            let page = page.map_err(|error| told(&error))?;
            if !was_silent {
                self.pulse.beat();
            }
            for object in &page.items {
                self.tell(&object.metadata, true).await?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(page.metadata.resource_version.unwrap_or_default()),
            }
        }
    }

    /// What changes from there on, in one watch after another.
    async fn follow(&self, mut version: String) -> Broken {
        loop {
            self.metrics.called("watch");
            let params = WatchParams::default().labels(&self.labels).timeout(WATCH_SECONDS);
            let opened = tokio::time::timeout(self.silence_max, self.api.watch_metadata(&params, &version)).await;
            let mut events = match opened {
                Err(_) => return Broken::Silent,
                Ok(Err(error)) => return told(&error),
                Ok(Ok(events)) => events.boxed(),
            };
            loop {
                let Ok(next) = tokio::time::timeout(self.silence_max, events.next()).await else { return Broken::Silent };
                self.pulse.beat();
                let (meta, is_gone) = match next {
                    // The time that it was given is over.
                    None => break,
                    Some(Err(error)) => return Broken::Told(error.to_string()),
                    Some(Ok(WatchEvent::Error(status))) => return Broken::Told(status.message),
                    Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                        version = bookmark.metadata.resource_version;
                        continue;
                    }
                    Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object.metadata, false),
                    Some(Ok(WatchEvent::Deleted(object))) => (object.metadata, true),
                };
                if let Some(newer) = &meta.resource_version {
                    version.clone_from(newer);
                }
                if let Err(broken) = self.tell(&meta, is_gone).await {
                    return broken;
                }
            }
        }
    }

    async fn tell(&self, meta: &ObjectMeta, is_anew: bool) -> Result<(), Broken> {
        let Some(mut notice) = (self.notice)(meta) else { return Ok(()) };
        // That something is gone which was made for a topology is an ordinary change of it.
        notice.is_anew = is_anew && notice.asked.is_some();
        self.to.send(notice).await.map_err(|_| Broken::Unheard)
    }
}
