//! What a worker says: the beginning and the end of it, within a limit.

use std::collections::VecDeque;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most characters of the last line that stand in an error.
const LAST_LINE_MAX: usize = 300;

/// How much is read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// The beginning and the end of what was said.
#[derive(Debug)]
pub(crate) struct Log {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// How many bytes between them were left out.
    left_out: u64,
}

impl Log {
    /// Keeps at most this many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let half = usize::try_from(bytes_max / 2).unwrap_or(usize::MAX).max(1);
        Self { half, head: Vec::new(), tail: VecDeque::new(), left_out: 0 }
    }

    /// Takes in everything until the end.
    pub(crate) async fn read(&mut self, mut from: impl AsyncRead + Unpin) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match from.read(&mut chunk).await? {
                0 => return Ok(()),
                count => self.add(&chunk[..count]),
            }
        }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let room = self.half.saturating_sub(self.head.len()).min(bytes.len());
        let (head, tail) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.extend(tail);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// The last line that says anything.
    pub(crate) fn last_line(&self) -> String {
        let bytes: Vec<u8> = if self.tail.is_empty() { self.head.clone() } else { self.tail.iter().copied().collect() };
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        line.chars().take(LAST_LINE_MAX).map(printable).collect()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.head;
        if self.left_out > 0 {
            bytes.extend_from_slice(format!("\n… {} bytes are left out here …\n", self.left_out).as_bytes());
        }
        bytes.extend(self.tail);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let mut log = Log::new(8);
        for part in ["abcdef", "gh", "ijklmn"] {
            log.add(part.as_bytes());
        }
        assert_eq!(String::from_utf8(log.into_bytes()).unwrap(), "abcd\n… 6 bytes are left out here …\nklmn");
        let mut whole = Log::new(8);
        whole.add(b"abc\nde\n\n");
        assert_eq!(whole.last_line(), "de");
        assert_eq!(whole.into_bytes(), b"abc\nde\n\n");
    }
}
