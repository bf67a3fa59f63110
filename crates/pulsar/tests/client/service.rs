//! The service that the tests run against, and names in it that no other test has.

use leatworks_pulsar::{PulsarOptions, Secret};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the service is: `pulsar://HOST:PORT`.
const URL: &str = "LEAT_PULSAR_URL";
/// Where its admin API is: `http://HOST:PORT`.
const ADMIN_URL: &str = "LEAT_PULSAR_ADMIN_URL";

/// The same of one that asks for TLS, a token and rights, and what its tokens are signed with.
const TLS_URL: &str = "LEAT_PULSAR_TLS_URL";
/// See [`TLS_URL`].
const TLS_ADMIN_URL: &str = "LEAT_PULSAR_TLS_ADMIN_URL";
/// See [`TLS_URL`].
const TOKEN_KEY: &str = "LEAT_PULSAR_TOKEN_KEY";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: `cargo xtask ci pulsar` starts a Pulsar and runs this"))
}

/// How to reach the service.
pub(crate) fn options() -> PulsarOptions {
    PulsarOptions { url: variable(URL), admin_url: Some(variable(ADMIN_URL)), ..PulsarOptions::default() }
}

/// How to reach the one that is secured, without anything that it asks for.
pub(crate) fn secured() -> PulsarOptions {
    PulsarOptions { url: variable(TLS_URL), admin_url: Some(variable(TLS_ADMIN_URL)), ..PulsarOptions::default() }
}

/// A token of a role, which ends at this time.
pub(crate) fn token(role: &str, end: u64) -> Secret {
    Secret::new(token_text(role, end))
}

fn token_text(role: &str, end: u64) -> String {
    let claims = serde_json::json!({ "sub": role, "exp": end });
    let key = jsonwebtoken::EncodingKey::from_secret(variable(TOKEN_KEY).as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A name that nobody else uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{name}-{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks the admin API to make something.
pub(crate) fn put(options: &PulsarOptions, path: &str, body: &str) {
    ask(options, "PUT", path, body);
}

/// The same of the service that is secured, as the role that may do everything.
pub(crate) fn put_as_admin(options: &PulsarOptions, path: &str, body: &str) {
    let authorization = format!("Authorization: Bearer {}\r\n", token_text("admin", u32::MAX.into()));
    ask_with(options, "PUT", path, body, &authorization);
}

/// Asks the admin API for something, which must go well, and gives its answer.
pub(crate) fn ask(options: &PulsarOptions, method: &str, path: &str, body: &str) -> String {
    ask_with(options, method, path, body, "")
}

fn ask_with(options: &PulsarOptions, method: &str, path: &str, body: &str, header: &str) -> String {
    use std::io::{Read, Write};
    let address = options.admin_url.as_deref().unwrap_or_default().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{header}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
