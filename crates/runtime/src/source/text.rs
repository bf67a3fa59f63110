//! The sources `lines` and `jsonl`: a file or standard input, line by line.

use super::feed::{Feed, Root, SourceError};
use crate::{
    codec::{self, Bytes, Codec},
    source::Line,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

/// The longest line that `lines` gives in one piece; a longer one comes in parts. Longer lines are not lines but something else.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// The most that a line grows when it is encoded: a control character becomes six bytes, and two more digits in `raw_hex`; one to spare.
const LINE_GROWTH_MAX: usize = 9;

/// The most bytes of a character behind its first: a line that is cut within one is longer by them.
const CHARACTER_REST_MAX: usize = 3;

/// How much is read at once: large enough that the calls cost nothing beside the parsing.
const READ_BYTES: usize = 256 << 10;

/// How much before the place where a run goes on must be what it was: a few dozen lines, which another input does not share by chance.
const TAIL_BYTES: usize = 4 << 10;

/// The most lines that are published in one step.
const BATCH_LINES: usize = 1024;

/// The most batches that are read ahead: one is published while the next one is read.
const BATCHES_AHEAD: usize = 2;

/// What the two sources are told.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Options {
    /// The file; `-` is standard input.
    path: String,
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each line is a [`Line`].
    Lines,
    /// Each line is JSON, passed on as it is.
    Json,
}

/// Where the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    /// Bytes that were read.
    offset: u64,
    /// Lines that were read, with a line that is being given in parts.
    line: u64,
    /// Messages that were given.
    messages: u64,
    /// Whether the last message was a part of a line that goes on.
    within: bool,
    /// A hash of what stands before the offset, at most [`TAIL_BYTES`] of it. None in a position that an older version has kept.
    #[serde(default)]
    tail: Option<u64>,
}

/// The last bytes that were read, by which the same input is known again.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        // Cut only now and then, so that a byte is moved about once.
        if self.0.len() > 2 * TAIL_BYTES {
            self.0.drain(..self.0.len() - TAIL_BYTES);
        }
    }

    fn hash(&self) -> u64 {
        xxh3_64(&self.0[self.0.len().saturating_sub(TAIL_BYTES)..])
    }
}

type Batch = Result<(Vec<Root>, Position), SourceError>;

pub(super) fn check(options: &Options) -> Result<(), SourceError> {
    if options.path != "-" {
        File::open(&options.path).map_err(|error| SourceError::Read { path: options.path.clone(), error })?;
    }
    Ok(())
}

pub(super) async fn run(mut feed: Feed, options: Options, mode: Mode) -> Result<(), SourceError> {
    let position: Position = feed.position().await?.unwrap_or_default();
    if position.messages > 0 {
        let Position { line, offset, .. } = position;
        tracing::info!(path = options.path, line, offset, "goes on behind what was read already");
    }
    let limit = match mode {
        Mode::Lines => LINE_BYTES_MAX.min(feed.max_message_bytes() / LINE_GROWTH_MAX).max(1),
        Mode::Json => feed.max_message_bytes().saturating_sub(CHARACTER_REST_MAX).max(1),
    };
    let reader = Lines { mode, codec: feed.codec(), limit, position, tail: Tail::default() };
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    // A thread of its own: a read of standard input cannot be cancelled, and must not keep the process from ending.
    std::thread::Builder::new()
        .name("leat-source".to_owned())
        .spawn(move || read(&options.path, reader, &sender))
        .map_err(|error| SourceError::Read { path: "thread".to_owned(), error })?;
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            () = feed.stopped() => None,
        };
        let Some(batch) = batch else { return Ok(()) };
        let (roots, position) = batch?;
        if !feed.room().await? {
            return Ok(());
        }
        feed.publish(roots, &position).await?;
    }
}

fn read(path: &str, mut lines: Lines, batches: &mpsc::Sender<Batch>) {
    let result = open(path, &lines.position).map_err(|error| match error {
        Opening::Io(error) => SourceError::Read { path: path.to_owned(), error },
        Opening::Cut(length) => SourceError::Cut { path: path.to_owned(), length, position: lines.position.offset },
        Opening::Other => SourceError::Other { path: path.to_owned(), position: lines.position.offset },
    });
    let result = result.and_then(|(input, tail)| {
        lines.tail = tail;
        lines
            .read(BufReader::with_capacity(READ_BYTES, input), batches)
            .map_err(|error| SourceError::Read { path: path.to_owned(), error })
    });
    if let Err(error) = result {
        // If nobody listens any more, the run is over and has its own reason.
        let _ = batches.blocking_send(Err(error));
    }
}

#[derive(Debug)]
enum Opening {
    Io(io::Error),
    /// It ends before the position.
    Cut(u64),
    /// What stands before the position is not what was read there.
    Other,
}

impl From<io::Error> for Opening {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn open(path: &str, position: &Position) -> Result<(Box<dyn Read>, Tail), Opening> {
    if path == "-" {
        let mut input = io::stdin();
        let tail = skip(&mut input, position, 0)?;
        return Ok((Box::new(input), tail));
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut start = 0;
    if metadata.is_file() {
        if metadata.len() < position.offset {
            return Err(Opening::Cut(metadata.len()));
        }
        start = position.offset.saturating_sub(TAIL_BYTES as u64);
        file.seek(SeekFrom::Start(start))?;
    }
    let tail = skip(&mut file, position, start)?;
    Ok((Box::new(file), tail))
}

/// Passes over what was read already, from where the input stands, and makes sure that it is that.
fn skip(input: &mut impl Read, position: &Position, start: u64) -> Result<Tail, Opening> {
    let unread = position.offset - start;
    let passed = unread.saturating_sub(TAIL_BYTES as u64);
    let mut tail = Tail::default();
    let mut skipped = io::copy(&mut input.take(passed), &mut io::sink())?;
    skipped += input.take(unread - skipped).read_to_end(&mut tail.0)? as u64;
    if skipped < unread {
        return Err(Opening::Cut(start + skipped));
    }
    if position.tail.is_some_and(|hash| hash != tail.hash()) { Err(Opening::Other) } else { Ok(tail) }
}

/// Cuts an input into messages.
struct Lines {
    mode: Mode,
    codec: Codec,
    limit: usize,
    position: Position,
    tail: Tail,
}

impl Lines {
    /// Reads to the end. What has been read is handed over when the next read might wait.
    fn read(mut self, mut input: BufReader<Box<dyn Read>>, batches: &mpsc::Sender<Batch>) -> io::Result<()> {
        let mut roots = Vec::new();
        let mut line = Vec::new();
        loop {
            let may_wait = input.buffer().is_empty();
            if !roots.is_empty() && (may_wait || roots.len() >= BATCH_LINES) {
                let batch = std::mem::take(&mut roots);
                self.position.tail = Some(self.tail.hash());
                if batches.blocking_send(Ok((batch, self.position))).is_err() {
                    return Ok(());
                }
            }
            line.clear();
            let read = read_piece(&mut input, &mut line, self.limit)?;
            if read == 0 {
                return Ok(());
            }
            self.position.offset += read as u64;
            self.tail.push(&line);
            if let Some(root) = self.root(&mut line, &mut input)? {
                roots.push(root);
            }
        }
    }

    /// The message of a piece of at most one line.
    fn root(&mut self, line: &mut Vec<u8>, input: &mut impl BufRead) -> io::Result<Option<Root>> {
        if !self.position.within {
            self.position.line += 1;
        }
        let whole = line.last() == Some(&b'\n');
        // A piece of full length goes on, unless the input ends right there.
        let mut partial = !whole && line.len() >= self.limit && !input.fill_buf()?.is_empty();
        let mut cut = None;
        let payload = match self.mode {
            Mode::Lines => self.line(line, partial)?,
            Mode::Json => {
                if partial {
                    self.skip_rest(input)?;
                    partial = false;
                    cut = Some(format!(
                        "line {} is longer than the {} bytes that a message may have, and this is its beginning",
                        self.position.line, self.limit
                    ));
                }
                trim_end(line);
                if line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                Bytes::copy_from_slice(line)
            }
        };
        self.position.within = partial;
        self.position.messages += 1;
        let codec = if self.mode == Mode::Lines { self.codec } else { Codec::Json };
        Ok(Some(Root { number: self.position.messages, codec, payload, cut }))
    }

    fn line(&mut self, bytes: &mut Vec<u8>, partial: bool) -> io::Result<Bytes> {
        trim_end(bytes);
        let text = String::from_utf8_lossy(bytes);
        let raw_hex = matches!(text, std::borrow::Cow::Owned(_)).then(|| hex(bytes));
        let line = Line { number: self.position.line, text: text.into_owned(), raw_hex, partial };
        codec::encode(self.codec, &line).map_err(io::Error::other)
    }

    /// A line of JSON beyond the limit can never be published whole: its beginning becomes a dead letter, and the rest is passed over.
    fn skip_rest(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        tracing::warn!(line = self.position.line, limit = self.limit, "the line is longer than a message may be");
        loop {
            let buffer = input.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let length = end.unwrap_or(buffer.len());
            self.position.offset += length as u64;
            self.tail.push(&buffer[..length]);
            input.consume(length);
            if end.is_some() || length == 0 {
                return Ok(());
            }
        }
    }
}

/// Reads up to and with the next line feed, or `limit` bytes, cut where a character begins if there is one near.
fn read_piece(input: &mut impl BufRead, line: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    let mut read = input.take(limit as u64).read_until(b'\n', line)?;
    if read == limit && line.last() != Some(&b'\n') {
        while read < limit + CHARACTER_REST_MAX {
            match input.fill_buf()?.first() {
                Some(byte) if byte & 0b1100_0000 == 0b1000_0000 => {
                    line.push(*byte);
                    input.consume(1);
                    read += 1;
                }
                _ => break,
            }
        }
        if input.fill_buf()?.first() == Some(&b'\n') {
            line.push(b'\n');
            input.consume(1);
            read += 1;
        }
    }
    Ok(read)
}

fn trim_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mode: Mode, limit: usize, input: &'static [u8], position: Position) -> (Vec<Bytes>, Position) {
        let (sender, mut batches) = mpsc::channel(1024);
        let mut input = input;
        let tail = skip(&mut input, &position, 0).unwrap();
        let lines = Lines { mode, codec: Codec::Json, limit, position, tail };
        lines.read(BufReader::new(Box::new(input)), &sender).unwrap();
        drop(sender);
        let (mut payloads, mut last) = (Vec::new(), position);
        while let Ok(batch) = batches.try_recv() {
            let (roots, position) = batch.unwrap();
            payloads.extend(roots.into_iter().map(|root| root.payload));
            last = position;
        }
        (payloads, last)
    }

    fn lines(limit: usize, input: &'static [u8]) -> Vec<Line> {
        let (payloads, _) = read_all(Mode::Lines, limit, input, Position::default());
        payloads.iter().map(|payload| serde_json::from_slice(payload).unwrap()).collect()
    }

    fn line(number: u64, text: &str, partial: bool) -> Line {
        Line { number, text: text.to_owned(), raw_hex: None, partial }
    }

    #[test]
    fn every_line_comes_once_whatever_its_end() {
        for (input, texts) in [
            (&b""[..], vec![]),
            (b"a", vec!["a"]),
            (b"a\n", vec!["a"]),
            (b"a\r\nb\n\nc", vec!["a", "b", "", "c"]),
            (b"\n", vec![""]),
            (b"a\rb\n", vec!["a\rb"]),
        ] {
            let expected: Vec<Line> = texts.iter().enumerate().map(|(index, text)| line(index as u64 + 1, text, false)).collect();
            assert_eq!(lines(100, input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_long_line_comes_in_parts_that_share_its_number() {
        assert_eq!(
            lines(4, b"abcdefghij\nk\n"),
            [line(1, "abcd", true), line(1, "efgh", true), line(1, "ij", false), line(2, "k", false)]
        );
        assert_eq!(lines(4, b"abcd\nk"), [line(1, "abcd", false), line(2, "k", false)]);
        assert_eq!(lines(4, b"abcd"), [line(1, "abcd", false)]);
        assert_eq!(lines(2, "aéb\n".as_bytes()), [line(1, "aé", true), line(1, "b", false)]);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let [line] = &lines(100, b"a\xff\xfeb\n")[..] else { panic!("one line") };
        assert_eq!((line.text.as_str(), line.raw_hex.as_deref()), ("a\u{fffd}\u{fffd}b", Some("61fffe62")));
    }

    #[test]
    fn reading_goes_on_behind_every_position() {
        let input = b"{\"a\":1}\n\n  \n[2]\r\n\"three\"";
        let (all, end) = read_all(Mode::Json, 100, input, Position::default());
        assert_eq!(all, [&b"{\"a\":1}"[..], b"[2]", b"\"three\""]);
        assert_eq!((end.offset, end.line, end.messages), (input.len() as u64, 5, 3));
        let after_first = Position { offset: 8, line: 1, messages: 1, within: false, tail: None };
        let (rest, same_end) = read_all(Mode::Json, 100, input, after_first);
        assert_eq!((&rest[..], same_end), (&all[1..], end));
        assert_eq!(read_all(Mode::Json, 100, input, end).0.len(), 0);
    }

    #[test]
    fn a_run_goes_on_only_with_the_input_that_it_began_with() {
        let long = format!("{}\n", "x".repeat(3 * TAIL_BYTES)).leak().as_bytes();
        for (input, limit) in [(&b"one\ntwo\n"[..], 100), (long, 100), (long, 100_000)] {
            for mode in [Mode::Lines, Mode::Json] {
                let (_, end) = read_all(mode, limit, input, Position::default());
                assert_eq!(end.offset, input.len() as u64);
                assert!(skip(&mut [input, b"more"].concat().as_slice(), &end, 0).is_ok(), "{mode:?}");
                let mut other = input.to_vec();
                other[input.len() - 2] ^= 1;
                assert!(matches!(skip(&mut other.as_slice(), &end, 0), Err(Opening::Other)), "{mode:?}");
                assert!(matches!(skip(&mut &input[1..], &end, 0), Err(Opening::Cut(length)) if length == end.offset - 1));
                let from_older = Position { tail: None, ..end };
                assert!(skip(&mut other.as_slice(), &from_older, 0).is_ok());
            }
        }
    }

    #[test]
    fn json_beyond_the_limit_is_cut_and_the_next_line_is_whole() {
        let (all, end) = read_all(Mode::Json, 4, b"\"abcdefgh\"\n12\n", Position::default());
        assert_eq!(all, [&b"\"abc"[..], b"12"]);
        assert_eq!((end.offset, end.line), (14, 2));
    }
}
