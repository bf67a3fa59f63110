//! As much of HTTP as asking a service on loopback needs: one request, one answer.

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A service that is starting may accept a connection long before it answers; then the next look asks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The status of an answer, and its body.
pub(crate) fn get(port: u16, path: &str, token: Option<&str>) -> Result<(u16, String)> {
    ask("GET", port, path, token, PATIENCE)
}

/// Asks for something to be done, which may take as long as this.
pub(crate) fn act(method: &str, port: u16, path: &str, patience: Duration) -> Result<(u16, String)> {
    ask(method, port, path, None, patience)
}

fn ask(method: &str, port: u16, path: &str, token: Option<&str>, patience: Duration) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // With 1.0 the end of the connection is the end of the body, which needs no decoding of chunks.
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{bearer}{length}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer: {answer}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
