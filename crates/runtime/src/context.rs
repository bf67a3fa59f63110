//! What a task knows about the message that it handles.

use crate::{TaskError, job, settings};
use leatworks_broker::MessageId;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};

/// What a task knows about the message that it handles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    place: Arc<Place>,
    message_id: MessageId,
    root_id: MessageId,
    parent_id: Option<MessageId>,
    attempt: u32,
    key: Option<String>,
    trace: Option<String>,
}

/// What all messages of one edge share.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) topology: &'static str,
    pub(crate) task: &'static str,
    pub(crate) edge: Cow<'static, str>,
    pub(crate) settings: Value,
}

impl Context {
    pub(crate) fn new(place: Arc<Place>, message: &leatworks_broker::Message, attempt: u32) -> Self {
        Self {
            place,
            message_id: message.id,
            root_id: message.root,
            parent_id: job::parent(message),
            attempt,
            key: message.key.clone(),
            trace: message.trace.clone(),
        }
    }

    /// A context for a unit test of a task: attempt 1 of a message without a topology.
    pub fn detached() -> Self {
        let place = Place { topology: "test", task: "test", edge: "[*]-->test".into(), settings: Value::Null };
        let message = leatworks_broker::Message { id: MessageId(1), root: MessageId(1), ..Default::default() };
        Self::new(Arc::new(place), &message, 1)
    }

    /// The message's identity. It is the same on every attempt, also after a crash, so it can make outside effects happen once.
    pub fn message_id(&self) -> MessageId {
        self.message_id
    }

    /// The identity of the root that the message came of; zero for what a fold gives.
    pub fn root_id(&self) -> MessageId {
        self.root_id
    }

    /// The identity of the message in whose handling this one was made. Messages only say it in topologies with jobs, and where steps are traced.
    pub fn parent_id(&self) -> Option<MessageId> {
        self.parent_id
    }

    /// Which attempt this is, from 1 on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The topology's name.
    pub fn topology(&self) -> &str {
        self.place.topology
    }

    /// The task's name.
    pub fn task(&self) -> &str {
        self.place.task
    }

    /// The edge that the message came by, such as `a-->|mail|b`.
    pub fn edge(&self) -> &str {
        &self.place.edge
    }

    /// The message's key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The W3C `traceparent` of the message: the one it came with, or one made of its root and id.
    pub fn traceparent(&self) -> String {
        // The low 64 bits are the random ones of a root and all of them are mixed in a child. Zero would be an invalid id.
        let span = (self.message_id.0 as u64).max(1);
        self.trace.clone().unwrap_or_else(|| format!("00-{:032x}-{span:016x}-01", self.root_id.0.max(1)))
    }

    /// A span that names the message, to be entered around work that logs.
    pub fn span(&self) -> tracing::Span {
        tracing::info_span!("message", id = %self.message_id, edge = %self.place.edge, attempt = self.attempt)
    }

    /// The task's settings as a type. A task *is* its settings, so this is for parts of a task that want their own view.
    ///
    /// # Errors
    /// A permanent error that names the key that is unknown, missing or of the wrong type.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        settings::from_value(&self.place.settings).map_err(TaskError::permanent)
    }
}
