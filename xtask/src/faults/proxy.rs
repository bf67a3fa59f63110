//! A proxy on loopback in front of the port of a Pulsar broker, by which the network fails as it is told to. Clients of it stay with it: where the broker
//! names itself as the one that serves a topic, the proxy names itself.

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// The pause after each byte while the network trickles.
const TRICKLE: Duration = Duration::from_secs(1);

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// All is passed on.
    Fair,
    /// Nothing is passed on, and nobody is told; what was sent comes when it is fair again.
    Blackhole,
    /// The connections that are there are reset.
    Reset,
    /// The broker hears of the end of the connections that are there, the client does not.
    HalfOpen,
    /// The connections that are there end within a frame.
    Cut,
    /// One byte a second.
    Trickle,
    /// All comes so much later.
    Latency(Duration),
}

/// The weather, and how many there were before it: what happens to a connection once happens to those only that were there when it began.
type Now = (u64, Weather);

/// A proxy, which ends with all of its connections when this is dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    weather: watch::Sender<Now>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens in front of a port.
    pub(super) async fn start(behind: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // One name takes the place of the other within a message whose length stays.
        ensure!(address(port).len() == address(behind).len(), "ports {port} and {behind} have as many digits");
        let (weather, now) = watch::channel((0, Weather::Fair));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, [behind, port], now.clone()));
            }
        });
        Ok(Self { port, weather, accepting })
    }

    /// Changes the weather.
    pub(super) fn set(&self, weather: Weather) {
        self.weather.send_modify(|now| *now = (now.0 + 1, weather));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn address(port: u16) -> String {
    format!("pulsar://127.0.0.1:{port}")
}

/// One connection, until one side ends it or the weather does.
async fn connection(client: TcpStream, [behind, port]: [u16; 2], now: watch::Receiver<Now>) -> io::Result<()> {
    let began = now.borrow().0;
    let server = TcpStream::connect(("127.0.0.1", behind)).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let names = Some((Bytes::from(address(behind)), Bytes::from(address(port))));
    let mut up = Pump { from: from_client, to: to_server, now: now.clone(), began, buffer: BytesMut::new(), names: None };
    let mut down = Pump { from: from_server, to: to_client, now: now.clone(), began, buffer: BytesMut::new(), names };
    let struck = tokio::select! {
        _ = up.run() => None,
        _ = down.run() => None,
        weather = struck(now, began) => weather,
    };
    match struck {
        Some(Weather::Reset) => {
            up.from.as_ref().set_zero_linger()?;
            down.from.as_ref().set_zero_linger()?;
            // Or they would end in an orderly way.
            up.to.forget();
            down.to.forget();
        }
        Some(Weather::HalfOpen) => {
            let Pump { from: mut client, .. } = up;
            let _to_client = down.to;
            drop((up.to, down.from));
            // Until the client gives up.
            let mut lost = [0; 4096];
            while client.read(&mut lost).await? > 0 {}
        }
        _ => {}
    }
    Ok(())
}

/// What ends a connection of this beginning; nothing if the proxy is gone.
async fn struck(mut now: watch::Receiver<Now>, began: u64) -> Option<Weather> {
    let ends = |now: &Now| now.0 > began && matches!(now.1, Weather::Reset | Weather::HalfOpen);
    now.wait_for(ends).await.ok().map(|now| now.1)
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    now: watch::Receiver<Now>,
    began: u64,
    buffer: BytesMut,
    /// How the broker calls itself, and how it is called here.
    names: Option<(Bytes, Bytes)>,
}

impl Pump {
    /// Passes frames on until one side or the weather ends it.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let mut some = BytesMut::new();
            let mut first = 0;
            while let Some(mut frame) = take_frame(&mut self.buffer) {
                if let Some((found, instead)) = &self.names {
                    rename(&mut frame, found, instead);
                }
                first = if first == 0 { frame.len() } else { first };
                some.unsplit(frame);
            }
            if first > 0 {
                self.pass(&some, first).await?;
            }
            self.buffer.reserve(READ_BYTES);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Passes frames on, of which the first has so many bytes.
    async fn pass(&mut self, frames: &[u8], first: usize) -> io::Result<()> {
        let mut at = 0;
        while at < frames.len() {
            let (number, weather) = *self.now.borrow_and_update();
            match weather {
                Weather::Cut if number > self.began => {
                    self.to.write_all(&frames[at..(first / 2).max(at)]).await?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Weather::Blackhole => self.changed().await?,
                Weather::Trickle => {
                    self.to.write_all(&frames[at..=at]).await?;
                    at += 1;
                    if let Ok(changed) = tokio::time::timeout(TRICKLE, self.changed()).await {
                        changed?;
                    }
                }
                Weather::Fair | Weather::Reset | Weather::HalfOpen | Weather::Cut | Weather::Latency(_) => {
                    if let Weather::Latency(time) = weather {
                        tokio::time::sleep(time).await;
                    }
                    self.to.write_all(&frames[at..]).await?;
                    at = frames.len();
                }
            }
        }
        Ok(())
    }

    async fn changed(&mut self) -> io::Result<()> {
        self.now.changed().await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

/// A whole frame from the front: its length stands before it in four bytes.
fn take_frame(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = buffer.first_chunk::<4>()?;
    let length = 4 + u32::from_be_bytes(*length) as usize;
    (buffer.len() >= length).then(|| buffer.split_to(length))
}

/// Puts one name in the place of another, in a frame that is a command alone: behind others there are messages, which are nobody's to change.
fn rename(frame: &mut [u8], found: &[u8], instead: &[u8]) {
    let number = |at: usize| frame.get(at..at + 4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if number(0) != number(4).map(|command| command + 4) {
        return;
    }
    while let Some(at) = frame.windows(found.len()).position(|window| window == found) {
        frame[at..at + found.len()].copy_from_slice(instead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(command: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = (4 + command.len() + payload.len()) as u32;
        [&total.to_be_bytes(), &(command.len() as u32).to_be_bytes(), command, payload].concat()
    }

    /// A proxy, a connection through it, and its other end.
    async fn through() -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap().port()).await.unwrap();
        let client = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let (server, _) = server.accept().await.unwrap();
        (proxy, client, server)
    }

    async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut found = vec![0; bytes];
        stream.read_exact(&mut found).await.unwrap();
        found
    }

    #[test]
    fn a_broker_is_called_otherwise_in_commands_and_nowhere_else() {
        for (payload, renamed) in [(&b""[..], true), (b"pay", false)] {
            let mut found = frame(b"..pulsar://a:1..pulsar://a:1", payload);
            rename(&mut found, b"pulsar://a:1", b"pulsar://b:2");
            let name = if renamed { &b"..pulsar://b:2..pulsar://b:2"[..] } else { b"..pulsar://a:1..pulsar://a:1" };
            assert_eq!(found, frame(name, payload));
        }
    }

    #[test]
    fn frames_come_whole() {
        let whole = frame(b"command", b"payload");
        let mut buffer = BytesMut::from(&whole[..whole.len() - 1]);
        assert_eq!(take_frame(&mut buffer), None);
        buffer.extend_from_slice(&whole[whole.len() - 1..]);
        buffer.extend_from_slice(&whole[..3]);
        assert_eq!(take_frame(&mut buffer).unwrap(), whole);
        assert_eq!((take_frame(&mut buffer), buffer.len()), (None, 3));
    }

    #[tokio::test]
    async fn what_a_blackhole_has_taken_comes_when_it_is_fair_again() {
        let (proxy, mut client, mut server) = through().await;
        let one = frame(b"one", b"");
        client.write_all(&one).await.unwrap();
        assert_eq!(read(&mut server, one.len()).await, one);
        proxy.set(Weather::Blackhole);
        client.write_all(&one).await.unwrap();
        proxy.set(Weather::Fair);
        assert_eq!(read(&mut server, one.len()).await, one);
        server.write_all(&one).await.unwrap();
        assert_eq!(read(&mut client, one.len()).await, one);
    }

    #[tokio::test]
    async fn a_cut_comes_within_a_frame_and_new_connections_are_whole() {
        let (proxy, mut client, mut server) = through().await;
        let one = frame(b"command", b"payload");
        server.write_all(&one).await.unwrap();
        assert_eq!(read(&mut client, one.len()).await, one);
        proxy.set(Weather::Cut);
        server.write_all(&one).await.unwrap();
        let mut found = Vec::new();
        client.read_to_end(&mut found).await.unwrap();
        assert_eq!(found, one[..one.len() / 2]);
    }

    #[tokio::test]
    async fn a_reset_is_one_and_a_half_open_connection_says_nothing_to_the_client() {
        let (proxy, mut client, mut server) = through().await;
        let one = frame(b"one", b"");
        server.write_all(&one).await.unwrap();
        read(&mut client, one.len()).await;
        proxy.set(Weather::Reset);
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (proxy, mut client, mut server) = through().await;
        server.write_all(&one).await.unwrap();
        read(&mut client, one.len()).await;
        proxy.set(Weather::HalfOpen);
        assert_eq!(server.read(&mut [0]).await.unwrap_or(0), 0, "the broker hears of its end");
        client.write_all(&one).await.unwrap();
        assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the client does not");
    }
}
