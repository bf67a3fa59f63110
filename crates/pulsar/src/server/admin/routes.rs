//! Which request is answered by what.

use super::{
    super::Shared,
    answer::{Answer, Refused},
    http::Ask,
    standing, subscriptions, topics,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// The one cluster, as `bin/pulsar standalone` calls it.
const CLUSTER: &str = "standalone";

/// Answers a request.
pub(super) async fn answer(shared: &Shared, ask: &Ask) -> Result<Answer, Refused> {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    match path[..] {
        ["admin", "v2", ref rest @ ..] => admin(shared, ask, rest).await,
        ["lookup", "v2", "topic", "persistent", tenant, namespace, topic] => read(ask, || {
            topics::name(shared, tenant, namespace, topic)?;
            let host = format!("pulsar://{}", shared.address);
            let http = shared.admin_address.map(|address| format!("http://{address}"));
            Ok(json!({ "brokerUrl": host, "nativeUrl": host, "httpUrl": http, "brokerUrlTls": "", "httpUrlTls": "" }))
        }),
        _ => Err(Refused::missing(format!("`{}` is not served here", ask.path.join("/")))),
    }
}

async fn admin(shared: &Shared, ask: &Ask, path: &[&str]) -> Result<Answer, Refused> {
    let names = &shared.options.namespace;
    match *path {
        ["persistent", tenant, namespace] => {
            topics::check_namespace(shared, tenant, namespace)?;
            only(ask, &[Method::GET])?;
            topics::list(shared).await
        }
        // No topic is partitioned, and none is lost when the server ends.
        ["persistent", tenant, namespace, "partitioned"] | ["non-persistent", tenant, namespace] => {
            topics::check_namespace(shared, tenant, namespace)?;
            read(ask, || Ok(json!([])))
        }
        ["persistent", tenant, namespace, topic, ref rest @ ..] => {
            let topic = topics::name(shared, tenant, namespace, topic)?;
            of_topic(shared, ask, &topic, rest).await
        }
        ["namespaces", tenant, namespace, "topics"] => {
            topics::check_namespace(shared, tenant, namespace)?;
            only(ask, &[Method::GET])?;
            topics::list(shared).await
        }
        ["namespaces", tenant, namespace] => {
            topics::check_namespace(shared, tenant, namespace)?;
            read(ask, || Ok(policies(shared.options.deduplicate)))
        }
        ["namespaces", tenant] if tenant == names.tenant() => read(ask, || Ok(json!([names.path()]))),
        ["tenants"] => read(ask, || Ok(json!([names.tenant()]))),
        ["tenants", tenant] if tenant == names.tenant() => {
            read(ask, || Ok(json!({ "adminRoles": [], "allowedClusters": [CLUSTER] })))
        }
        ["namespaces" | "tenants", tenant] => Err(Refused::missing(format!("there is no tenant `{tenant}`"))),
        ["clusters"] => read(ask, || Ok(json!([CLUSTER]))),
        ["brokers", "health"] => read(ask, || Ok(json!("ok"))),
        ["brokers", "version"] => read(ask, || Ok(json!(super::super::VERSION))),
        _ => Err(unknown(ask)),
    }
}

async fn of_topic(shared: &Shared, ask: &Ask, topic: &str, path: &[&str]) -> Result<Answer, Refused> {
    match (&ask.method, path) {
        (&Method::PUT, []) => topics::create(shared, topic, &ask.body).await,
        (&Method::DELETE, []) => topics::delete(shared, topic).await,
        (&Method::GET, ["properties"]) => topics::properties(shared, topic).await,
        (&Method::PUT, ["properties"]) => topics::set_properties(shared, topic, &ask.body).await,
        (&Method::DELETE, ["properties"]) => topics::remove_property(shared, topic, ask.parameter("key")).await,
        (&Method::GET, ["retention"]) => topics::retention(shared, topic).await,
        (&Method::POST, ["retention"]) => topics::set_retention(shared, topic, &ask.body).await,
        (&Method::DELETE, ["retention"]) => topics::remove_retention(shared, topic).await,
        (&Method::GET, ["partitions"]) => Ok(Answer::Json(json!({ "partitions": 0 }))),
        (&Method::GET, ["stats"]) => standing::stats(shared, topic).await,
        (&Method::GET, ["internalStats"]) => standing::internal(shared, topic).await,
        (&Method::GET, ["lastMessageId"]) => standing::last(shared, topic).await,
        (&Method::GET, ["subscriptions"]) => subscriptions::list(shared, topic).await,
        (&Method::PUT, ["subscription", name]) => subscriptions::create(shared, topic, name, &ask.body).await,
        (&Method::DELETE, ["subscription", name]) => {
            subscriptions::remove(shared, topic, name, ask.parameter("force") == Some("true")).await
        }
        (&Method::POST, ["subscription", name, "resetcursor"]) => subscriptions::seek(shared, topic, name, &ask.body).await,
        (&Method::POST, ["subscription", name, "resetcursor", time]) => subscriptions::seek_time(shared, topic, name, time).await,
        (&Method::POST, ["subscription", name, "skip_all"]) => subscriptions::skip_all(shared, topic, name).await,
        (
            _,
            []
            | ["properties" | "retention" | "partitions" | "stats" | "internalStats" | "lastMessageId" | "subscriptions"]
            | ["subscription", _]
            | ["subscription", _, "resetcursor" | "skip_all"]
            | ["subscription", _, "resetcursor", _],
        ) => Err(wrong_method(ask)),
        _ => Err(unknown(ask)),
    }
}

/// Something that can only be read.
fn read(ask: &Ask, what: impl FnOnce() -> Result<Value, Refused>) -> Result<Answer, Refused> {
    only(ask, &[Method::GET])?;
    what().map(Answer::Json)
}

fn only(ask: &Ask, methods: &[Method]) -> Result<(), Refused> {
    if methods.contains(&ask.method) { Ok(()) } else { Err(wrong_method(ask)) }
}

fn wrong_method(ask: &Ask) -> Refused {
    let text = format!("{} of `{}` is not served here", ask.method, ask.path.join("/"));
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

fn unknown(ask: &Ask) -> Refused {
    let text = format!("`{}` of Pulsar's admin API is not served here", ask.path.join("/"));
    Refused::new(StatusCode::NOT_IMPLEMENTED, text)
}

/// What holds for all topics.
fn policies(deduplicate: bool) -> Value {
    json!({
        "replication_clusters": [CLUSTER],
        "deduplicationEnabled": deduplicate,
        "autoTopicCreationOverride": { "allowAutoTopicCreation": true, "topicType": "non-partitioned" },
        "retention_policies": { "retentionTimeInMinutes": 0, "retentionSizeInMB": 0 },
        "persistence": null,
        "deleted": false,
    })
}
