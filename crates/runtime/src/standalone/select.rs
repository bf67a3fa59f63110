//! What becomes of a task: the handler of its type is called, and what it answers goes to the topics that the answer names.

use crate::{
    Cause, Context, TaskError,
    codec::Bytes,
    handled::{Handled, Log},
    handler::{Handler, Output},
    worker::{Endpoint, Reply},
};
use leatworks_broker::{BoxFuture, Broker, ErrorKind, Message, Start, TopicSpec};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Topics that answers may name beside those that are configured: a worker that makes up names must not fill the broker with topics.
const TOPICS_MAX: usize = 1_000;

/// A task as it lies in a topic.
#[derive(Deserialize, Serialize)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) task: &'a RawValue,
}

/// Calls the handlers.
pub(super) struct Select {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) subscription: String,
    pub(super) handlers: Vec<(String, Endpoint)>,
    /// The topics that are known to exist.
    pub(super) topics: Mutex<HashMap<String, Arc<str>>>,
    pub(super) log: Log,
}

impl Handler for Select {
    fn handle<'a>(&'a self, message: &'a Message, cx: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, TaskError>> {
        Box::pin(async move {
            let envelope: Envelope<'_> = serde_json::from_slice(&message.payload).map_err(|error| {
                TaskError::with_cause(Cause::Undecodable, format!("a task is `{{\"type\": …, \"task\": …}}`: {error}"))
            })?;
            let result = self.call(message, &envelope, cx).await;
            let (status, new_tasks) = match &result {
                // It was not handled at all.
                Err(error) if error.is_unreached() => return result.map(|(_, outputs)| outputs),
                Ok((status, outputs)) => (status.clone(), Some(outputs.len())),
                Err(error) => (error.to_string(), None),
            };
            let message_id = cx.message_id().to_string();
            (self.log)(&Handled { message_id, task: &envelope.kind, status, new_tasks });
            result.map(|(_, outputs)| outputs)
        })
    }
}

impl Select {
    async fn call(&self, message: &Message, envelope: &Envelope<'_>, cx: &Context) -> Result<(String, Vec<Output>), TaskError> {
        let Some((_, endpoint)) = self.handlers.iter().find(|(kind, _)| *kind == envelope.kind) else {
            return Err(TaskError::permanent(format!("no handler takes tasks of type `{}`", envelope.kind)));
        };
        let answer = endpoint.call(message.payload.slice_ref(envelope.task.get().as_bytes()), cx).await?;
        let Some(body) = answer.body else { return Ok((answer.status.to_string(), Vec::new())) };
        let reply: Reply<'_> = serde_json::from_slice(&body).map_err(|error| endpoint.unreadable(&error, &body))?;
        if reply.tasks.len() > crate::MAX_OUTPUTS {
            return Err(TaskError::permanent(format!("one message gave more than {} outputs", crate::MAX_OUTPUTS)));
        }
        let mut outputs = Vec::with_capacity(reply.tasks.len());
        for item in reply.tasks {
            let kind = item.kind.ok_or_else(|| TaskError::permanent("a task of the answer has no `type`"))?;
            let topic = Some(self.topic(&kind).await?);
            let payload = Bytes::from(serde_json::to_vec(&Envelope { kind, task: item.task })?);
            outputs.push(Output { route: None, topic, key: item.key, payload });
        }
        Ok((answer.status.to_string(), outputs))
    }

    /// The topic of a type. It is made with a subscription, since a topic without one keeps nothing.
    pub(super) async fn topic(&self, kind: &str) -> Result<Arc<str>, TaskError> {
        {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(topic) = topics.get(kind) {
                return Ok(topic.clone());
            }
            if topics.len() >= TOPICS_MAX {
                return Err(TaskError::permanent(format!(
                    "the answer names topic `{kind}`, and there are {TOPICS_MAX} topics already, the most that are made"
                )));
            }
        }
        make(self.broker.as_ref(), kind, &self.subscription).await.map_err(|error| match error.kind() {
            ErrorKind::Invalid => TaskError::permanent(format!("the answer names topic `{kind}`: {error}")),
            _ => TaskError::retryable(format!("making topic `{kind}`: {error}")),
        })?;
        let topic: Arc<str> = kind.into();
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.to_owned(), topic.clone());
        Ok(topic)
    }
}

/// Makes a topic with a subscription.
pub(super) async fn make(broker: &dyn Broker, topic: &str, subscription: &str) -> leatworks_broker::Result<()> {
    broker.create_topic(TopicSpec { name: topic.to_owned(), ..TopicSpec::default() }).await?;
    broker.create_subscription(topic, subscription, Start::Earliest).await
}
