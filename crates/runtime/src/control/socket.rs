//! The unix socket of a running owner: one request line, one response line.

use super::{FailureKind, Request, Response, perform, place};
use crate::run::Stop;
use leatworks_broker::Broker;
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

/// The longest line in either direction. What is sent comes in chunks of 4 MiB and what is listed is cut to 16 MiB; as JSON texts within
/// JSON both are at most twice as long, which leaves room for one message that is larger.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Listens for requests until the returned handle is dropped. To be called by the owner of the journal only: a socket that is there already
/// was left by an owner that has ended. Once `stop` says that the run ends, nothing more can be sent to it.
///
/// # Errors
/// If the socket cannot be made.
pub fn listen(broker: Arc<dyn Broker>, data: &Path, stop: watch::Receiver<Stop>) -> io::Result<Listening> {
    let path = place::socket_path(data);
    place::guard(data, &path, true)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(stream, broker.clone(), stop.clone()));
                }
                // Too many open files, most likely: that passes.
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(Listening { path, task })
}

/// A control socket that listens; dropping it closes and removes it.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // If it is gone already, that is what was wanted.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, broker: Arc<dyn Broker>, stop: watch::Receiver<Stop>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let response = match read_line(&mut reader, LINE_BYTES_MAX).await {
            Ok(Line::Whole(line)) => respond(&line, broker.as_ref(), &stop).await,
            Ok(Line::TooLong) => {
                Response::failed(FailureKind::TooLarge, format!("a request has at most {LINE_BYTES_MAX} bytes on its line"))
            }
            // A caller that has gone away wants no answer.
            Ok(Line::End) | Err(_) => return,
        };
        if write(&mut writer, &response).await.is_err() {
            return;
        }
    }
}

async fn respond(line: &[u8], broker: &dyn Broker, stop: &watch::Receiver<Stop>) -> Response {
    match serde_json::from_slice::<Request>(line) {
        Ok(Request::Send { topology, .. }) if *stop.borrow() != Stop::Run => Response::failed(
            FailureKind::Unavailable,
            format!("`{}` is about to end and takes nothing in any more: send again when it has ended", topology.name),
        ),
        Ok(request) => perform(broker, request, true).await,
        Err(error) => Response::failed(FailureKind::Invalid, format!("the request is not understood: {error}")),
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

/// Reads the next line. One that is too long is passed over.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), max: usize) -> io::Result<Line> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let buffer = reader.fill_buf().await?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let is_over = buffer.is_empty() || end.is_some();
        if buffer.is_empty() && line.is_empty() && !too_long {
            return Ok(Line::End);
        }
        let taken = end.unwrap_or(buffer.len());
        too_long |= line.len() + taken > max;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(&buffer[..taken]);
        }
        reader.consume(end.map_or(taken, |end| end + 1));
        if is_over {
            return Ok(if too_long { Line::TooLong } else { Line::Whole(line) });
        }
    }
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), line: &impl serde::Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// Whether a run answers for this data directory.
pub(crate) async fn answers(data: &Path) -> bool {
    connect(data).await.is_ok()
}

async fn connect(data: &Path) -> io::Result<UnixStream> {
    let path = place::socket_path(data);
    place::guard(data, &path, false)?;
    UnixStream::connect(path).await
}

/// Asks the owner of a data directory.
pub(super) async fn ask(data: &Path, request: &Request) -> io::Result<Response> {
    let (reader, mut writer) = connect(data).await?.into_split();
    write(&mut writer, request).await?;
    match read_line(&mut BufReader::new(reader), LINE_BYTES_MAX).await? {
        Line::Whole(line) => Ok(serde_json::from_slice(&line)?),
        Line::TooLong => {
            let text = format!("the answer has more than {LINE_BYTES_MAX} bytes: ask for less at once");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        Line::End => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the run ended before it answered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_that_of_a_line_and_not_of_all_lines() {
        let text = b"12345\n1234\n\n123456\n12345\n1234567890123\n123";
        // Whatever the buffer cuts.
        for capacity in [1, 4, 100] {
            let mut reader = BufReader::with_capacity(capacity, &text[..]);
            let mut lines = Vec::new();
            loop {
                match read_line(&mut reader, 5).await.unwrap() {
                    Line::Whole(line) => lines.push(String::from_utf8(line).unwrap()),
                    Line::TooLong => lines.push("too long".to_owned()),
                    Line::End => break,
                }
            }
            assert_eq!(lines, ["12345", "1234", "", "too long", "12345", "too long", "123"], "{capacity}");
        }
    }
}
