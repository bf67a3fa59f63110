//! The unix socket of a running owner: one request line, one response line.

use super::{Request, Response, perform};
use leatworks_broker::Broker;
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use xxhash_rust::xxh3::xxh3_64;

/// The longest path of a unix socket that every system takes (macOS: 103 bytes and the end).
const PATH_BYTES_MAX: usize = 100;

/// The longest line in either direction: the largest batch that `send` sends, or a long list of dead letters.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Where the owner of a data directory listens: in it, or if its path is too long for a socket, in the temporary directory.
pub fn socket_path(data: &Path) -> PathBuf {
    let path = data.join("control.sock");
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return path;
    }
    std::env::temp_dir().join(format!("leat-{:016x}.sock", xxh3_64(path.as_os_str().as_encoded_bytes())))
}

/// Listens for requests until the returned handle is dropped. To be called by the owner of the journal only: a socket that is there already
/// was left by an owner that has ended.
///
/// # Errors
/// If the socket cannot be made.
pub fn listen(broker: Arc<dyn Broker>, data: &Path) -> io::Result<Listening> {
    let path = socket_path(data);
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
                    tokio::spawn(answer(stream, broker.clone()));
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

async fn answer(stream: UnixStream, broker: Arc<dyn Broker>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(LINE_BYTES_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let response = match serde_json::from_str::<Request>(&line) {
            Ok(request) => perform(broker.as_ref(), request, true).await,
            Err(error) => Response::Failed { error: format!("the request is not understood: {error}"), invalid: true },
        };
        // A caller that has gone away wants no answer.
        if write(&mut writer, &response).await.is_err() {
            return;
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
    UnixStream::connect(socket_path(data)).await.is_ok()
}

/// Asks the owner of a data directory.
pub(super) async fn ask(data: &Path, request: &Request) -> io::Result<Response> {
    let stream = UnixStream::connect(socket_path(data)).await?;
    let (reader, mut writer) = stream.into_split();
    write(&mut writer, request).await?;
    let mut line = String::new();
    BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the run ended before it answered"));
    }
    Ok(serde_json::from_str(&line)?)
}
