//! The contract suite through the client and our own server: one named test for each scenario. What it needs of a Pulsar is there without one.

mod ahead;
#[path = "../client/numbered.rs"]
mod numbered;
mod service;

use leatworks_broker::{
    Ack, BoxFuture, Broker, ErrorKind, Limits, Message, MessageId, Position, Publish, Result, Start, Step, TopicSpec,
    contract::{Place, Promises},
    contract_suite,
};
use leatworks_pulsar::PulsarBroker;
use numbered::{Book, Numbered};
use service::Service;
use std::sync::Arc;
use tokio::sync::Mutex;

contract_suite!(durable, Served::new());

/// The retry topic and the ledger of a subscription are topics of the service, which only show there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beside_a_subscription_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path()).await;
    let client = PulsarBroker::connect(service.options()).await.unwrap();
    let names =
        async || -> Vec<String> { service.broker.stats().await.unwrap().into_iter().map(|topic| topic.spec.name).collect() };
    client.create_topic(TopicSpec { name: "t".into(), ..TopicSpec::default() }).await.unwrap();
    for subscription in ["one", "other"] {
        client.create_subscription("t", subscription, Start::Earliest).await.unwrap();
    }
    assert_eq!(names().await, ["t", "t-one-ATTEMPTS", "t-one-RETRY", "t-other-ATTEMPTS", "t-other-RETRY"]);
    client.unsubscribe("t", "one").await.unwrap();
    assert_eq!(names().await, ["t", "t-other-ATTEMPTS", "t-other-RETRY"]);
    client.unsubscribe("t", "other").await.unwrap();
    assert_eq!(names().await, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_for_want_of_room_is_there_when_it_is_sent_again_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { backlog_messages_max: 4, ..Limits::default() };
    let service = Service::start_with(dir.path(), limits).await;
    let client = PulsarBroker::connect(service.options()).await.unwrap();
    client.create_topic(TopicSpec { name: "t".into(), ..TopicSpec::default() }).await.unwrap();
    client.create_subscription("t", "s", Start::Earliest).await.unwrap();
    let publish = async |number: u64| {
        let message = Message { id: MessageId(u128::from(number)), payload: "x".into(), ..Message::default() };
        client.publish(vec![Publish { topic: "t".into(), message: message.into(), sequence: Some(("p".into(), number)) }]).await
    };
    let there = async || client.peek("t", "s", Position(0), 100).await.unwrap();
    for number in 1..=4 {
        publish(number).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(publish(5).await.unwrap_err().kind(), ErrorKind::Full);
    }
    let first = there().await[0].0;
    let ack = Ack { topic: "t".into(), subscription: "s".into(), position: first, cumulative: false };
    client.commit(Step { acks: vec![ack], ..Step::default() }).await.unwrap();
    publish(5).await.unwrap();
    // What was taken is still known by its number.
    publish(4).await.unwrap();
    assert_eq!(there().await.iter().map(|(_, message)| message.id.0).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

/// A journal, and who serves it. With each broker that is opened the service starts anew, on what the one before has left.
struct Served {
    dir: tempfile::TempDir,
    service: Mutex<Option<Service>>,
    book: Arc<Book>,
}

impl Served {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), service: Mutex::default(), book: Arc::default() }
    }
}

impl Place for Served {
    fn promises(&self) -> Promises {
        Promises { reopen: true, crash: true, broker: PulsarBroker::promised(), limits: false }
    }

    fn open(&self, _: Limits) -> BoxFuture<'_, Result<Arc<dyn Broker>>> {
        Box::pin(async move {
            let mut service = self.service.lock().await;
            if let Some(service) = service.take() {
                service.stop().await;
            }
            let started = service.insert(Service::start(self.dir.path()).await);
            let inner = PulsarBroker::connect(started.options()).await?;
            Ok(Arc::new(Numbered { inner, book: self.book.clone() }) as Arc<dyn Broker>)
        })
    }
}
