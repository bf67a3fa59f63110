//! `parse`: a line becomes a hit on a page, an asset or an error, or it is malformed.

use super::{Hit, HitKind, parse_line};
use leatworks::{Context, Route, Task, TaskError, source::Line};
use serde::{Deserialize, Serialize};

/// Reads lines of an access log.
#[derive(Debug, Deserialize)]
pub struct Parse;

/// What [`Parse`] gives.
#[derive(Clone, Debug, PartialEq, Eq, Route, Serialize, Deserialize)]
pub enum Parsed {
    /// A hit on a page.
    Page(Hit),
    /// A hit on an asset.
    Asset(Hit),
    /// An answer with a status of 400 or more.
    Error(Hit),
    /// A line that cannot be read.
    Malformed(Malformed),
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// The line's number, from 1 on.
    pub number: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The line.
    pub text: String,
}

impl Task for Parse {
    type In = Line;
    type Out = Parsed;

    /// Gives exactly one output per line. A line that is too long comes in parts, of which only the last one counts.
    async fn run(&self, line: Line, _cx: &Context) -> Result<Option<Parsed>, TaskError> {
        if line.partial {
            return Ok(None);
        }
        Ok(Some(match parse_line(&line.text) {
            Ok(hit) => match hit.kind {
                HitKind::Page => Parsed::Page(hit),
                HitKind::Asset => Parsed::Asset(hit),
                HitKind::Error => Parsed::Error(hit),
            },
            Err(reason) => Parsed::Malformed(Malformed { number: line.number, reason: reason.to_owned(), text: line.text }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(text: &str, partial: bool) -> Option<Parsed> {
        let line = Line { number: 7, text: text.to_owned(), raw_hex: None, partial };
        Parse.run(line, &Context::detached()).await.expect("parsed")
    }

    #[tokio::test]
    async fn every_line_takes_one_way() {
        let line = |path: &str, status: u16| format!("h - - [10/Oct/2000:13:55:36 -0700] \"GET {path} HTTP/1.1\" {status} 1");
        assert!(matches!(parse(&line("/", 200), false).await, Some(Parsed::Page(_))));
        assert!(matches!(parse(&line("/a.css", 200), false).await, Some(Parsed::Asset(_))));
        assert!(matches!(parse(&line("/a.css", 404), false).await, Some(Parsed::Error(_))));
        let malformed = Malformed { number: 7, reason: "no time in brackets".to_owned(), text: "x".to_owned() };
        assert_eq!(parse("x", false).await, Some(Parsed::Malformed(malformed)));
        assert_eq!(parse("part of a long line", true).await, None);
    }
}
