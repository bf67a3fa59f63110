//! Tokens: who gets in, and for how long.

use crate::{
    admin::ask_with,
    support::{Client, Rig},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use leatworks_pulsar::{ServeError, Server, ServerOptions, TokenKey, wire::proto::*};
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn key(bytes: &[u8]) -> Result<TokenKey, leatworks_pulsar::KeyError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    TokenKey::read(file.path())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(algorithm: Algorithm, key: &EncodingKey, claims: serde_json::Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), &claims, key).unwrap()
}

fn secret(claims: serde_json::Value) -> String {
    token(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims)
}

async fn outcome(rig: &Rig, token: Option<&str>) -> Result<(), i32> {
    let mut client = Client::open(rig.address).await;
    client.send_connect(token).await;
    let headers = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let admin = ask_with(rig.admin, "GET /admin/v2/tenants", &format!("Host: any\r\n{headers}"), "").await.0;
    let outcome = client.receive().await.0;
    assert_eq!(admin, if matches!(outcome, Command::Connected(_)) { 200 } else { 401 }, "both ask for the same");
    match outcome {
        Command::Connected(_) => Ok(()),
        Command::Error(error) => {
            assert!(client.next().await.is_none(), "who is refused is let go");
            Err(error.error)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_token_that_is_signed_with_the_key_gets_in() {
    let rig = Rig::start(ServerOptions { token_key: Some(key(SECRET).unwrap()), ..ServerOptions::default() }).await;
    let refused = Err(ServerError::Authentication.into());
    let sub = serde_json::json!({"sub": "worker"});
    let good = secret(sub.clone());
    // {"alg":"none"} with the same claims and no signature, and with the good one.
    let none = "eyJhbGciOiJub25lIn0";
    let parts: Vec<&str> = good.split('.').collect();
    let rsa = rsa_keys();
    for (what, token, expected) in [
        ("a good one", Some(good.clone()), Ok(())),
        ("one that ends later", Some(secret(serde_json::json!({"sub": "w", "exp": now_s() + 60}))), Ok(())),
        ("one for an audience", Some(secret(serde_json::json!({"sub": "w", "aud": "others"}))), Ok(())),
        ("none", None, refused),
        ("an empty one", Some(String::new()), refused),
        ("no token", Some("x.y".into()), refused),
        ("one that has ended", Some(secret(serde_json::json!({"exp": now_s() - 1}))), refused),
        ("one that has not begun", Some(secret(serde_json::json!({"nbf": now_s() + 60}))), refused),
        ("one by another secret", Some(token(Algorithm::HS256, &EncodingKey::from_secret(&[1; 32]), sub.clone())), refused),
        ("one by another hash", Some(token(Algorithm::HS512, &EncodingKey::from_secret(SECRET), sub.clone())), refused),
        ("one by RSA", Some(token(Algorithm::RS256, &rsa.0, sub.clone())), refused),
        ("one that is not signed", Some(format!("{none}.{}.", parts[1])), refused),
        ("one that says it is not signed", Some(format!("{none}.{}.{}", parts[1], parts[2])), refused),
        ("one whose claims were changed", Some(format!("{}.{}.{}", parts[0], "e30", parts[2])), refused),
    ] {
        assert_eq!(outcome(&rig, token.as_deref()).await, expected, "{what}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_rsa_key_takes_tokens_by_rsa_and_never_its_own_text_as_a_secret() {
    let (private, public) = rsa_keys();
    let rig = Rig::start(ServerOptions { token_key: Some(key(public).unwrap()), ..ServerOptions::default() }).await;
    let sub = serde_json::json!({"sub": "worker"});
    assert_eq!(outcome(&rig, Some(&token(Algorithm::RS256, &private, sub.clone()))).await, Ok(()));
    let refused = Err(ServerError::Authentication.into());
    assert_eq!(outcome(&rig, Some(&token(Algorithm::HS256, &EncodingKey::from_secret(public), sub.clone()))).await, refused);
    assert_eq!(outcome(&rig, Some(&token(Algorithm::RS512, &private, sub))).await, refused);
    rig.stop().await;
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let rig = Rig::start(ServerOptions { token_key: Some(key(SECRET).unwrap()), ..ServerOptions::default() }).await;
    let mut client = Client::open(rig.address).await;
    client.connect(Some(&secret(serde_json::json!({"exp": now_s() + 2})))).await;
    let mut staying = Client::open(rig.address).await;
    staying.connect(Some(&secret(serde_json::json!({})))).await;
    let (command, _) = client.receive().await;
    assert!(matches!(&command, Command::Error(error) if error.error == i32::from(ServerError::Authentication)), "{command:?}");
    assert!(client.next().await.is_none());
    assert!(matches!(staying.ask(Command::Ping(Nothing {})).await, Command::Pong(_)));
    rig.stop().await;
}

#[tokio::test]
async fn without_a_key_only_this_machine_is_listened_to() {
    let broker: std::sync::Arc<dyn leatworks_broker::Broker> =
        std::sync::Arc::new(leatworks_broker::MemoryBroker::new(leatworks_broker::Limits::default()));
    let all = "0.0.0.0:0".parse().unwrap();
    let refused = Server::bind(all, broker.clone(), ServerOptions::default()).await;
    assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
    let options = ServerOptions { token_key: Some(key(SECRET).unwrap()), ..ServerOptions::default() };
    let this = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(this, broker.clone(), ServerOptions::default()).await.unwrap();
    assert!(matches!(server.with_admin(all).await, Err(ServeError::NotLoopback(address)) if address == all));
    assert!(Server::bind(all, broker, options).await.is_ok());
}

#[test]
fn a_key_that_protects_nothing_is_refused() {
    for (bytes, says) in [
        (&b""[..], "0 bytes"),
        (&SECRET[1..], "31 bytes"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no RSA public key"),
    ] {
        let error = key(bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(TokenKey::read("/nowhere".as_ref()).is_err());
    assert!(!format!("{:?}", key(SECRET).unwrap()).contains("0123"), "a secret is not printed");
}

/// A key pair that was made for this test alone.
fn rsa_keys() -> (EncodingKey, &'static [u8]) {
    (EncodingKey::from_rsa_pem(include_bytes!("rsa-private.pem")).unwrap(), include_bytes!("rsa-public.pem"))
}
