//! Who is not let in hears why, and that trying again will not help.

use crate::service;
use leatworks_broker::{
    Broker, BrokerError, ErrorKind, HandOff, Message, Publish, Start, Step, Subscribe, SubscriptionKind, TopicKind, TopicSpec,
};
use leatworks_pulsar::{PulsarBroker, PulsarError, PulsarOptions, Secret};
use std::path::PathBuf;

/// A time that no test lives to see: the year 2100.
const FAR: u64 = 4_102_444_800;

fn certificate(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/client/tls").join(name))
}

fn admin() -> PulsarOptions {
    PulsarOptions { token: Some(service::token("admin", FAR)), ca_file: certificate("ca.pem"), ..service::secured() }
}

#[tokio::test]
async fn each_reason_for_a_refusal_has_an_error_of_its_own() {
    type Expected = fn(&PulsarError) -> bool;
    let other_host = admin().url.replace("127.0.0.1", "localhost");
    let no_such_file = Some("/nowhere/token".into());
    let cases: Vec<(&str, PulsarOptions, Expected)> = vec![
        ("no authority", PulsarOptions { ca_file: None, ..admin() }, |e| matches!(e, PulsarError::NoAuthority(_))),
        ("another authority", PulsarOptions { ca_file: certificate("other-ca.pem"), ..admin() }, |e| {
            matches!(e, PulsarError::UnknownAuthority { .. })
        }),
        ("no certificate", PulsarOptions { ca_file: certificate("server-key.pem"), ..admin() }, |e| {
            matches!(e, PulsarError::File { .. })
        }),
        ("another host", PulsarOptions { url: other_host, ..admin() }, |e| matches!(e, PulsarError::OtherHost { .. })),
        ("no token", PulsarOptions { token: None, ..admin() }, |e| matches!(e, PulsarError::NoToken(_))),
        ("no file", PulsarOptions { token: None, token_file: no_such_file, ..admin() }, |e| {
            matches!(e, PulsarError::File { .. })
        }),
        ("an old token", PulsarOptions { token: Some(service::token("admin", 1_000_000_000)), ..admin() }, |e| {
            matches!(e, PulsarError::TokenExpired(_))
        }),
        ("a false token", PulsarOptions { token: Some(Secret::new("a.b.c")), ..admin() }, |e| {
            matches!(e, PulsarError::TokenRefused(_))
        }),
        ("no address", PulsarOptions { url: "http://127.0.0.1:1".into(), ..admin() }, |e| matches!(e, PulsarError::Address(_))),
    ];
    for (case, options, expected) in cases {
        let error = PulsarBroker::connect(options).await.err().unwrap_or_else(|| panic!("{case}: let in"));
        assert!(expected(&error) && !error.is_retryable(), "{case}: {error:?}");
        assert!(!BrokerError::from(error.clone()).is_retryable(), "{case}: {error}");
    }
    // Nobody listens there: that may change.
    let away = PulsarBroker::connect(PulsarOptions { url: "pulsar://127.0.0.1:1".into(), ..admin() }).await.err().unwrap();
    assert!(matches!(away, PulsarError::Away(_)) && away.is_retryable(), "{away:?}");
}

#[tokio::test]
async fn a_role_without_rights_may_do_nothing_and_one_with_rights_all() {
    let admin = PulsarBroker::connect(admin()).await.unwrap();
    let topic = service::unique("secured");
    admin.create_topic(TopicSpec { name: topic.clone(), ..TopicSpec::default() }).await.unwrap();
    admin.create_subscription(&topic, "s", Start::Earliest).await.unwrap();
    let publish = || Publish { topic: topic.as_str().into(), message: Message::default().into(), sequence: None };
    admin.publish(vec![publish()]).await.unwrap();

    let options = PulsarOptions { token: Some(service::token("nobody", FAR)), ..self::admin() };
    let nobody = PulsarBroker::connect(options).await.unwrap();
    let spec = TopicSpec { name: service::unique("forbidden"), ..TopicSpec::default() };
    let denied = |error: BrokerError| assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    denied(nobody.create_topic(spec).await.unwrap_err());
    denied(nobody.create_subscription(&topic, "other", Start::Earliest).await.unwrap_err());
    denied(nobody.publish(vec![publish()]).await.unwrap_err());
    denied(nobody.peek(&topic, "s", leatworks_broker::Position(0), 1).await.unwrap_err());
    denied(nobody.unsubscribe(&topic, "s").await.unwrap_err());
    assert_eq!(admin.peek(&topic, "s", leatworks_broker::Position(0), 9).await.unwrap().len(), 1);
    nobody.close().await.unwrap();
    admin.close().await.unwrap();
}

#[tokio::test]
async fn a_role_that_administers_its_tenant_needs_no_more() {
    let tenant = service::unique("tenant");
    let options = service::secured();
    let body = r#"{"adminRoles": ["shop"], "allowedClusters": ["standalone"]}"#;
    service::put_as_admin(&options, &format!("/admin/v2/tenants/{tenant}"), body);
    service::put_as_admin(&options, &format!("/admin/v2/namespaces/{tenant}/orders"), "{}");
    let options = PulsarOptions {
        token: Some(service::token("shop", FAR)),
        ca_file: certificate("ca.pem"),
        tenant,
        namespace: "orders".to_owned(),
        ..options
    };
    let shop = PulsarBroker::connect(options).await.unwrap();
    let spec = TopicSpec { name: "t".to_owned(), kind: TopicKind::Route, topology: "t".to_owned(), ..TopicSpec::default() };
    shop.create_topic(spec).await.unwrap();
    shop.create_subscription("t", "s", Start::Earliest).await.unwrap();
    let publish = || Publish { topic: "t".into(), message: Message::default().into(), sequence: Some(("p".into(), 1)) };
    let state = vec![("run/t".to_owned(), Some(bytes::Bytes::from_static(b"x")))];
    shop.commit(Step { publishes: vec![publish()], state, ..Step::default() }).await.unwrap();
    let subscribe = Subscribe {
        topic: "t".to_owned(),
        subscription: "s".to_owned(),
        kind: SubscriptionKind::Shared,
        consumer: "c".to_owned(),
        permits: 1,
        hand_off: HandOff::Durable,
    };
    let mut consumer = shop.subscribe(subscribe).await.unwrap();
    assert_eq!(consumer.receive(1).await.unwrap().len(), 1);
    assert_eq!(shop.stats().await.unwrap().len(), 1);
    drop(consumer);
    shop.close().await.unwrap();
}
