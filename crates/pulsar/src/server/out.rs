//! What goes to one client: bytes that wait, bounded, and the task that writes them.

use super::limits::OUT_BYTES_MAX;
use crate::wire::{
    frame,
    proto::{Command, Error, ServerError},
};
use bytes::{Buf, Bytes, BytesMut};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::tcp::OwnedWriteHalf,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// The client is gone: nothing is sent to it any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// The way to one client. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Outgoing {
    room: Arc<Semaphore>,
    // Bounded by `room`: every chunk holds as many permits as it has bytes until it is written.
    sender: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

/// The other end of [`Outgoing`].
pub(crate) struct Waiting {
    room: Arc<Semaphore>,
    receiver: mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>,
}

pub(crate) fn channel() -> (Outgoing, Waiting) {
    let room = Arc::new(Semaphore::new(OUT_BYTES_MAX));
    let (sender, receiver) = mpsc::unbounded_channel();
    (Outgoing { room: room.clone(), sender }, Waiting { room, receiver })
}

impl Outgoing {
    /// Waits for room and sends.
    pub(crate) async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        let bytes = chunk.len().min(OUT_BYTES_MAX) as u32;
        let permit = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        self.sender.send((chunk, permit)).map_err(|_| Gone)
    }

    /// Sends one command.
    pub(crate) async fn command(&self, command: Command) -> Result<(), Gone> {
        let mut chunk = BytesMut::new();
        frame::encode(&mut chunk, command);
        self.send(chunk.freeze()).await
    }

    /// Refuses a request.
    pub(crate) async fn refuse(&self, request_id: u64, error: ServerError, message: String) -> Result<(), Gone> {
        self.command(Command::Error(Error { request_id, error: error.into(), message })).await
    }

    /// Waits until there is room for something.
    pub(crate) async fn ready(&self) -> Result<(), Gone> {
        self.room.acquire().await.map(drop).map_err(|_| Gone)
    }

    /// Whether nothing waits to be written, or at least not all of the room is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.room.available_permits() > 0
    }

    /// Whether the client is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Chunks that are taken at once.
const CHUNKS_MAX: usize = 64;

/// Small chunks are put together up to this size, so that they cost one system call.
const WRITE_BYTES: usize = 64 << 10;

/// Writes what waits until all senders are gone. A client that takes no byte for `stall` is given up.
pub(crate) async fn write(mut waiting: Waiting, mut stream: OwnedWriteHalf, stall: Duration) -> io::Result<()> {
    let mut taken = Vec::with_capacity(CHUNKS_MAX);
    let mut small = BytesMut::new();
    while waiting.receiver.recv_many(&mut taken, CHUNKS_MAX).await > 0 {
        let mut permits = Vec::with_capacity(taken.len());
        for (chunk, permit) in taken.drain(..) {
            permits.push(permit);
            if small.len() + chunk.len() > WRITE_BYTES && !small.is_empty() {
                write_all(&mut stream, small.split().freeze(), stall).await?;
            }
            if chunk.len() >= WRITE_BYTES {
                write_all(&mut stream, chunk, stall).await?;
            } else {
                small.extend_from_slice(&chunk);
            }
        }
        write_all(&mut stream, small.split().freeze(), stall).await?;
        drop(permits);
    }
    stream.shutdown().await
}

async fn write_all(stream: &mut OwnedWriteHalf, mut bytes: Bytes, stall: Duration) -> io::Result<()> {
    while bytes.has_remaining() {
        match tokio::time::timeout(stall, stream.write_buf(&mut bytes)).await {
            Ok(written) => {
                if written? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}
