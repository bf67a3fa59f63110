//! The HTTP worker that is called while the hop to one is measured: a process of its own, this program once more.

use super::{super::Failed, PARALLELISM, line::Line, pass};
use crate::bench::flags::WorkerForm;
use bytes::{Buf, BytesMut};
use leatworks::{Setup, def::Kind, plan::TaskPlan, worker};
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// The largest request that the small server reads.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A worker that runs. It ends with this value: its input is closed then.
pub(super) struct Worker {
    child: Child,
    pub(super) url: &'static str,
}

impl Worker {
    /// Starts one, and waits until it says where it listens.
    pub(super) fn start(form: WorkerForm) -> Result<Self, Failed> {
        let word = match form {
            WorkerForm::Batch => "batch",
            WorkerForm::Single => "single",
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "--serve-worker", word])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the worker's output is a pipe")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address: SocketAddr =
            address.trim().parse().map_err(|_| format!("the worker did not say where it listens but `{address}`"))?;
        Ok(Self { child, url: Box::leak(format!("http://{address}/").into_boxed_str()) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has nothing of its own to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends.
pub(crate) async fn serve(form: WorkerForm) -> Result<(), Failed> {
    let (ended, stop) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Whatever is read, it ends with the process that has started this one.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let stop = async move {
        let _ = stop.await;
    };
    match form {
        WorkerForm::Batch => {
            let bound = worker::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).await?;
            crate::exit::say!("{}", bound.address());
            let plan = TaskPlan::new(Line::new(Kind::Rust(pass), PARALLELISM).def.tasks[0]);
            let setup = Setup::new(plan.def, plan.settings.clone(), ".".into());
            let open = async move { pass(&setup).await };
            Ok(bound.serve(plan, open, stop).await?)
        }
        WorkerForm::Single => {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
            crate::exit::say!("{}", listener.local_addr()?);
            tokio::select! {
                failed = accept(&listener) => failed,
                () = stop => Ok(()),
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> Result<(), Failed> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Who breaks off has nothing more to be answered.
        tokio::spawn(async move { drop(answer(stream).await) });
    }
}

/// A worker as small as one in any language can be: HTTP/1.1, one message in a request, and no word of batches.
async fn answer(mut stream: TcpStream) -> Result<(), Failed> {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let mut out = Vec::new();
    loop {
        while let Some((head, length)) = request(&buffer)? {
            if buffer.len() < head + length {
                break;
            }
            buffer.advance(head);
            let body = buffer.split_to(length);
            let length = r#"{"tasks":[{"task":}]}"#.len() + body.len();
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ");
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n\r\n{\"tasks\":[{\"task\":");
            out.extend_from_slice(&body);
            out.extend_from_slice(b"}]}");
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// The bytes of a request's head, and those of its body; none if the head is not whole.
fn request(buffer: &[u8]) -> Result<Option<(usize, usize)>, Failed> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if buffer.len() > REQUEST_BYTES_MAX { Err("a request's head is too large".into()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&buffer[..end])?;
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    let length: usize = length.unwrap_or("0").parse()?;
    if length > REQUEST_BYTES_MAX {
        return Err("a request is too large".into());
    }
    Ok(Some((end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_length() {
        for (text, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n", Some(None)),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n1", Some(Some((38, 3)))),
            ("OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n", Some(Some((31, 0)))),
            ("POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", None),
        ] {
            assert_eq!(request(text.as_bytes()).ok(), expected, "{text}");
        }
    }
}
