//! `fetch-users`: one campaign becomes one message per row of the subscribers' file.

use super::{Campaign, User};
use csv::ByteRecord;
use leatworks::{Context, Permanent, Task, TaskError};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Reads the subscribers. A row is never left out: what is wrong with it shows when its mail is rendered.
#[derive(Debug, Deserialize)]
pub struct FetchUsers {
    /// The CSV file with the columns `name`, `email` and optionally `subscribed`.
    #[serde(default = "default_subscribers")]
    subscribers: PathBuf,
}

fn default_subscribers() -> PathBuf {
    "examples/email-pipeline/subscribers.csv".into()
}

impl Task for FetchUsers {
    type In = Campaign;
    type Out = User;

    async fn run(&self, campaign: Campaign, _cx: &Context) -> Result<Vec<User>, TaskError> {
        let path = campaign.subscribers.as_deref().unwrap_or(&self.subscribers);
        let text = tokio::fs::read(path).await.map_err(|error| unreadable(path, &error))?;
        users(&text, campaign.began_s).map_err(|error| unreadable(path, &error)).permanent()
    }

    fn key(user: &User) -> Option<String> {
        Some(user.email.clone())
    }
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> TaskError {
    TaskError::permanent(format!(
        "reading subscribers from `{}`: {error}; name another file by `settings = {{ subscribers = \"…\" }}`",
        path.display()
    ))
}

/// Reads by the names of the columns. Rows may be too short or not UTF-8: real files are.
fn users(text: &[u8], date_s: u64) -> Result<Vec<User>, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
    let headers = reader.byte_headers()?.clone();
    let column = |name: &str| headers.iter().position(|header| header.eq_ignore_ascii_case(name.as_bytes()));
    let (name, email, subscribed) = (column("name"), column("email"), column("subscribed"));
    if name.is_none() || email.is_none() {
        return Err(csv::Error::from(std::io::Error::other("the first row must name the columns `name` and `email`")));
    }
    let field = |row: &ByteRecord, column: Option<usize>| {
        column.and_then(|column| row.get(column)).map(|field| String::from_utf8_lossy(field).into_owned()).unwrap_or_default()
    };
    reader
        .byte_records()
        .map(|row| {
            let row = row?;
            let wanted = field(&row, subscribed).to_lowercase();
            let subscribed = !matches!(wanted.as_str(), "no" | "false" | "0" | "n");
            Ok(User { name: field(&row, name), email: field(&row, email), subscribed, date_s })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], expected: &[(&str, &str, bool)]) {
        let users = users(text, 7).expect("users");
        let users: Vec<_> = users.iter().map(|user| (user.name.as_str(), user.email.as_str(), user.subscribed)).collect();
        assert_eq!(users, expected);
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        check(b"name,email\nAda,ada@example.org\n", &[("Ada", "ada@example.org", true)]);
        check(
            b"Email,Plan,Name,Subscribed\r\n a@b.c ,x,\"Ada, Lady\",NO\r\n\xffx@b.c,y,Bo\r\n",
            &[("Ada, Lady", "a@b.c", false), ("Bo", "\u{fffd}x@b.c", true)],
        );
        check(b"name,email\n", &[]);
    }

    #[test]
    fn a_file_without_the_columns_says_which() {
        let error = users(b"who,where\nAda,home\n", 7).expect_err("refused").to_string();
        assert!(error.contains("`name` and `email`"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_permanent_and_named() {
        let task = FetchUsers { subscribers: "nowhere.csv".into() };
        let campaign = Campaign { subscribers: None, began_s: 7 };
        let error = task.run(campaign, &Context::detached()).await.map(|_| ()).expect_err("missing");
        assert!(error.is_permanent() && error.to_string().contains("`nowhere.csv`"), "{error}");
    }
}
