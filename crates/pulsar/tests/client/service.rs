//! The service that the tests run against, and names in it that no other test has.

use leatworks_pulsar::PulsarOptions;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the service is: `pulsar://HOST:PORT`.
const URL: &str = "LEAT_PULSAR_URL";
/// Where its admin API is: `http://HOST:PORT`.
const ADMIN_URL: &str = "LEAT_PULSAR_ADMIN_URL";

/// How to reach the service, or `None` if there is none; then the test cannot run, and where `CI` is set it fails.
pub(crate) fn options() -> Option<PulsarOptions> {
    let (Ok(url), Ok(admin_url)) = (std::env::var(URL), std::env::var(ADMIN_URL)) else {
        assert!(std::env::var_os("LEAT_PULSAR_NEEDED").is_none(), "{URL} and {ADMIN_URL} say where Pulsar is, and are not set");
        eprintln!("NOT RUN: {URL} and {ADMIN_URL} are not set; `cargo xtask ci pulsar` starts a Pulsar and runs this");
        return None;
    };
    Some(PulsarOptions { url, admin_url: Some(admin_url), ..PulsarOptions::default() })
}

/// A name that nobody else uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{name}-{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks the admin API to make something.
pub(crate) fn put(options: &PulsarOptions, path: &str, body: &str) {
    use std::io::{Read, Write};
    let address = options.admin_url.as_deref().unwrap_or_default().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let length = body.len();
    write!(
        stream,
        "PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
}
