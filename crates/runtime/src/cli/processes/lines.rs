//! What a child writes, line by line.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line that is passed on whole; a longer one is passed on in parts. A child that writes no line ends must not fill this process.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Reads to the end, and tells each line without its end. What is no UTF-8 is replaced.
pub(super) async fn each(mut from: impl AsyncBufRead + Unpin, mut line: impl FnMut(&str)) {
    let mut text = Vec::new();
    loop {
        let (taken, whole) = match from.fill_buf().await {
            // A pipe that cannot be read is at its end.
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let bytes = &bytes[..bytes.len().min(LINE_BYTES_MAX - text.len())];
                let end = memchr::memchr(b'\n', bytes);
                text.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
                (end.map_or(bytes.len(), |end| end + 1), end.is_some() || text.len() == LINE_BYTES_MAX)
            }
        };
        from.consume(taken);
        if whole {
            line(String::from_utf8_lossy(&text).trim_end_matches('\r'));
            text.clear();
        }
    }
    if !text.is_empty() {
        line(&String::from_utf8_lossy(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_any_length_are_told() {
        let long = "x".repeat(LINE_BYTES_MAX + 3);
        let input = format!("one\r\n\n{long}\nno end");
        for buffer in [1, 7, 100_000] {
            let mut lines = Vec::new();
            each(tokio::io::BufReader::with_capacity(buffer, input.as_bytes()), |line| lines.push(line.to_owned())).await;
            assert_eq!(lines, ["one", "", &long[..LINE_BYTES_MAX], "xxx", "no end"], "{buffer}");
        }
    }
}
