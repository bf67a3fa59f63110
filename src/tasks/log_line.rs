//! One line of an access log, in the Common or Combined format, as real servers write it.

use serde::{Deserialize, Serialize};

/// What kind of answer a line tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HitKind {
    /// A document.
    Page,
    /// A picture, style sheet, script, font or the like.
    Asset,
    /// An answer with a status of 400 or more.
    Error,
}

/// What is counted of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// What kind of answer it was.
    pub kind: HitKind,
    /// When it was, in whole minutes since the Unix epoch.
    pub minute: i64,
    /// The path without its query, at most [`PATH_BYTES_MAX`] bytes; `-` if the request was none.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// How many bytes were sent; 0 for `-`.
    pub bytes: u64,
}

/// The longest path that is told apart: a scanner's paths of many kilobytes are one path each and only fill the memory.
pub const PATH_BYTES_MAX: usize = 256;

/// Endings of paths that are assets.
const ASSETS: &[&str] = &[
    "avif",
    "css",
    "eot",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "json",
    "map",
    "mjs",
    "mp4",
    "otf",
    "png",
    "svg",
    "ttf",
    "wasm",
    "webm",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
];

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a line: `host ident user [time] "request" status bytes`, and whatever follows.
///
/// Nothing is asked of the fields before the time, since user names hold blanks and some servers write a virtual host in front.
///
/// # Errors
/// What cannot be read, in a few words that are the same for all such lines.
pub fn parse_line(line: &str) -> Result<Hit, &'static str> {
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() {
        return Err("empty line");
    }
    let (minute, rest) = time(line).ok_or("no time in brackets")?;
    let (request, rest) = quoted(rest.trim_start()).ok_or("no request in quotes")?;
    let mut words = rest.split_whitespace();
    let status = words.next().and_then(status).ok_or("no status of three digits")?;
    let bytes = words.next().and_then(|word| if word == "-" { Some(0) } else { word.parse().ok() }).ok_or("no size")?;
    let target = target(request);
    let kind = match target {
        _ if status >= 400 => HitKind::Error,
        None => return Err("no request that can be read"),
        Some(path) if is_asset(path) => HitKind::Asset,
        Some(_) => HitKind::Page,
    };
    Ok(Hit { kind, minute, path: target.map_or("-", bounded).to_owned(), status, bytes })
}

/// The first bracket that holds a time, in minutes since the epoch, and what follows it. A user name may hold brackets too.
fn time(line: &str) -> Option<(i64, &str)> {
    line.match_indices('[').find_map(|(at, _)| {
        let (text, rest) = line[at + 1..].split_once(']')?;
        Some((minute(text)?, rest))
    })
}

/// `10/Oct/2000:13:55:36 -0700`, with or without a fraction of the second.
fn minute(text: &str) -> Option<i64> {
    let (clock, zone) = text.split_once(' ').unwrap_or((text, "+0000"));
    let (date, clock) = clock.split_once(':')?;
    let mut date = date.split('/');
    let day = number(date.next()?, 31)?;
    let name = date.next()?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))? as i64 + 1;
    let year = number(date.next()?, 9999)?;
    let mut clock = clock.split(':');
    let (hour, minute, second) = (number(clock.next()?, 23)?, number(clock.next()?, 59)?, clock.next()?);
    // 60 is a leap second.
    number(second.split('.').next()?, 60)?;
    if day == 0 || date.next().is_some() || clock.next().is_some() {
        return None;
    }
    Some((days(year, month, day) * 24 + hour) * 60 + minute - offset(zone)?)
}

/// `-0700` in minutes.
fn offset(zone: &str) -> Option<i64> {
    let digits = zone.strip_prefix(['+', '-'])?;
    if digits.len() != 4 || !digits.is_ascii() {
        return None;
    }
    let minutes = number(&digits[..2], 23)? * 60 + number(&digits[2..], 59)?;
    Some(if zone.starts_with('-') { -minutes } else { minutes })
}

fn number(text: &str, max: i64) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number <= max)
}

/// Days since the Unix epoch in the Gregorian calendar. Years begin in March, so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Days from 1 March of year 0 to the Unix epoch.
    const EPOCH: i64 = 719_468;
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - EPOCH
}

/// A text in quotes, in which `\"` is no end, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some((&text[..at], &text[at + 1..])),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn status(word: &str) -> Option<u16> {
    (word.len() == 3).then(|| number(word, 999)).flatten().and_then(|status| u16::try_from(status).ok())
}

/// The path of a request line `GET /path?query HTTP/1.1`, or none if it is something else, such as a TLS greeting.
fn target(request: &str) -> Option<&str> {
    let mut words = request.split(' ').filter(|word| !word.is_empty());
    let method = words.next()?;
    let target = words.next()?;
    if !method.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_')) {
        return None;
    }
    let path = match target.split_once("://") {
        // A proxy's request names the whole address.
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    path.split(['?', '#']).next().filter(|path| !path.is_empty())
}

fn is_asset(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(_, ending)| ASSETS.iter().any(|asset| asset.eq_ignore_ascii_case(ending)))
}

fn bounded(path: &str) -> &str {
    &path[..path.floor_char_boundary(PATH_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, kind: HitKind, path: &str, status: u16, bytes: u64) {
        let hit = parse_line(line).unwrap_or_else(|reason| panic!("{reason}: {line}"));
        assert_eq!((hit.kind, hit.path.as_str(), hit.status, hit.bytes), (kind, path, status, bytes), "{line}");
    }

    #[test]
    fn lines_of_real_servers_are_read() {
        use HitKind::{Asset, Error, Page};
        let time = "[10/Oct/2000:13:55:36 -0700]";
        for (line, kind, path, status, bytes) in [
            (format!(r#"127.0.0.1 - frank {time} "GET /apache_pb.gif HTTP/1.0" 200 2326"#), Asset, "/apache_pb.gif", 200, 2326),
            (
                format!(r#"2001:db8::7 - - {time} "GET /a?b=c.css#d HTTP/2.0" 304 - "-" "Mozilla/5.0 (X; \"Y\")""#),
                Page,
                "/a",
                304,
                0,
            ),
            (format!(r#"::1 - - {time} "POST /say?x=\"hello\" HTTP/1.1" 201 12 "http://x/\"" "curl""#), Page, "/say", 201, 12),
            (format!(r#"192.0.2.1 - - {time} "\x16\x03\x01\x02" 400 166 "-" "-""#), Error, "-", 400, 166),
            (format!(r#"192.0.2.1 - - {time} "-" 408 0 "-" "-""#), Error, "-", 408, 0),
            (format!(r#"192.0.2.1 - - {time} "" 400 0"#), Error, "-", 400, 0),
            (format!(r#"192.0.2.1 - John [x] Doe {time} "GET / HTTP/1.1" 200 5"#), Page, "/", 200, 5),
            (format!(r#"example.org:443 192.0.2.1 - - {time} "GET /x HTTP/1.1" 200 5 "-" "-" 0.003 "more""#), Page, "/x", 200, 5),
            (format!(r#"192.0.2.1 - - {time} "GET http://example.org/p.PNG HTTP/1.1" 200 5"#), Asset, "/p.PNG", 200, 5),
            (format!(r#"192.0.2.1 - - {time} "GET http://example.org HTTP/1.1" 200 5"#), Page, "/", 200, 5),
            (format!(r#"192.0.2.1 - - {time} "OPTIONS * HTTP/1.1" 200 5"#), Page, "*", 200, 5),
            (format!(r#"192.0.2.1 - - {time} "GET /old"  200  5"#), Page, "/old", 200, 5),
            (format!("\u{feff}192.0.2.1 - - {time} \"GET /żółw\u{fffd} HTTP/1.1\" 404 5\r"), Error, "/żółw\u{fffd}", 404, 5),
        ] {
            check(&line, kind, path, status, bytes);
        }
    }

    #[test]
    fn lines_that_cannot_be_read_say_why() {
        for (line, expected) in [
            ("", "empty line"),
            (" \t", "empty line"),
            ("hello", "no time in brackets"),
            ("h - - [yesterday] \"GET / HTTP/1.1\" 200 1", "no time in brackets"),
            ("h - - [32/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1", "no time in brackets"),
            ("h - - [10/Oct/2000:13:55:36 +é] \"GET / HTTP/1.1\" 200 1", "no time in brackets"),
            ("h - - [10/Oct/2000:13:55:36 -0700] GET / HTTP/1.1 200 1", "no request in quotes"),
            ("h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1", "no request in quotes"),
            ("h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" OK 1", "no status of three digits"),
            ("h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200", "no size"),
            ("h - - [10/Oct/2000:13:55:36 -0700] \"\\x16\\x03\" 200 1", "no request that can be read"),
        ] {
            assert_eq!(parse_line(line).expect_err(line), expected);
        }
    }

    #[test]
    fn time_is_told_in_minutes_since_the_epoch() {
        for (text, seconds) in [
            ("01/Jan/1970:00:00:00 +0000", 0),
            ("10/Oct/2000:13:55:36 -0700", 971_211_300),
            ("29/Feb/2024:23:59:59 +0000", 1_709_251_140),
            ("01/Mar/2024:00:00:00 +0530", 1_709_231_400),
            ("31/dec/1999:23:59:60.123 +0000", 946_684_740),
        ] {
            assert_eq!(minute(text).map(|minute| minute * 60), Some(seconds), "{text}");
        }
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let path = format!("/{}", "ż".repeat(PATH_BYTES_MAX));
        let hit = parse_line(&format!("h - - [10/Oct/2000:13:55:36 -0700] \"GET {path} HTTP/1.1\" 200 1")).expect("read");
        assert!(hit.path.len() <= PATH_BYTES_MAX && path.starts_with(&hit.path));
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in r#"\PC{0,40}( \[[0-9a-zA-Z/: +-]{0,30}\] "[^"]{0,20}"? ?[0-9]{0,4} ?[0-9-]{0,5})?\PC{0,10}"#) {
            let _ = parse_line(&line);
        }
    }
}
