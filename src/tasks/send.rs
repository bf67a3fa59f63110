//! `send`: a mail becomes an RFC 5322 message in a Maildir, or on its way through an SMTP server.

use super::{Mail, Outcome, email, maildir::Maildir};
use leatworks::{Context, Permanent, Setup, Task, TaskError};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp,
};
use serde::Deserialize;
use std::{
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

/// Sends mails: into a Maildir, unless a server is configured.
#[derive(Debug, Deserialize)]
pub struct Send {
    /// Who the mails are from.
    #[serde(default = "default_from")]
    from: String,
    /// The Maildir; by default `mail` in the data directory.
    #[serde(default)]
    maildir: Option<PathBuf>,
    /// An SMTP relay, `host:port`, in place of the Maildir. It is spoken to without encryption, so it must be on a network you trust.
    #[serde(default)]
    smtp: Option<String>,
    #[serde(skip)]
    ready: Option<Ready>,
}

fn default_from() -> String {
    "Leatworks showcase <showcase@leatworks.example>".to_owned()
}

/// What a started task works with.
#[derive(Debug)]
struct Ready {
    from: Mailbox,
    to: Transport,
}

#[derive(Debug)]
enum Transport {
    Maildir(Maildir),
    Smtp { address: String, relay: Box<AsyncSmtpTransport<Tokio1Executor>> },
}

impl Task for Send {
    type In = Mail;
    type Out = Outcome;

    async fn start(&mut self, setup: &Setup) -> Result<(), TaskError> {
        let from = self.from.parse().map_err(|error| TaskError::permanent(format!("`from` is `{}`: {error}", self.from)))?;
        let to = match &self.smtp {
            Some(address) => Transport::Smtp { address: address.clone(), relay: Box::new(relay(address)?) },
            None => {
                let folder = self.maildir.clone().unwrap_or_else(|| setup.data().join("mail"));
                let failed = |error| TaskError::permanent(format!("Maildir `{}`: {error}", folder.display()));
                setup.results_at(&folder);
                Transport::Maildir(Maildir::open(folder.clone()).map_err(failed)?)
            }
        };
        self.ready = Some(Ready { from, to });
        Ok(())
    }

    async fn run(&self, mail: Mail, cx: &Context) -> Result<Outcome, TaskError> {
        let ready = self.ready.as_ref().ok_or_else(|| TaskError::permanent("it has not been started"))?;
        let id = cx.message_id().to_string();
        let message_id = format!("<{id}@leatworks.example>");
        let message = message(&ready.from, &mail, &message_id)?;
        let to = match &ready.to {
            Transport::Maildir(maildir) => {
                let (maildir, folder) = (maildir.clone(), maildir.folder().display().to_string());
                tokio::task::spawn_blocking(move || maildir.deliver(&format!("{id}.showcase"), &message.formatted())).await??;
                folder
            }
            Transport::Smtp { address, relay } => {
                relay.send(message).await.map_err(refused)?;
                address.clone()
            }
        };
        Ok(Outcome { email: mail.email, result: email::Result::Sent { message_id, to } })
    }
}

fn relay(address: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, TaskError> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or_else(|| TaskError::permanent(format!("`smtp` is `{address}`, and must be `host:port`")))?;
    Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port).build())
}

/// A server's permanent answer (5xx) is final; everything else may pass.
fn refused(error: smtp::Error) -> TaskError {
    if error.is_permanent() { TaskError::permanent(error) } else { TaskError::from(error) }
}

/// The message. It holds nothing that differs between two attempts, so that a repeated one can be told.
fn message(from: &Mailbox, mail: &Mail, message_id: &str) -> Result<Message, TaskError> {
    let address: Address = mail.email.parse().permanent()?;
    let name = Some(email::one_line(&mail.name)).filter(|name| !name.is_empty());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(name, address))
        .subject(email::one_line(&mail.subject))
        .date(UNIX_EPOCH + Duration::from_secs(mail.date_s))
        .message_id(Some(message_id.to_owned()))
        .header(ContentType::TEXT_PLAIN)
        .body(mail.body.clone())
        .permanent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(name: &str) -> Mail {
        Mail {
            name: name.to_owned(),
            email: "ada@example.org".to_owned(),
            subject: "Grüße".to_owned(),
            body: "Dear Ada,\nżółw.\n".to_owned(),
            date_s: 1_700_000_000,
        }
    }

    #[test]
    fn a_mail_is_a_whole_rfc_5322_message() {
        let from: Mailbox = default_from().parse().expect("a mailbox");
        let text =
            message(&from, &mail("Ada\r\nBcc: all@example.org\0"), "<1@leatworks.example>").expect("a message").formatted();
        let text = String::from_utf8(text).expect("ASCII");
        assert!(text.is_ascii(), "{text}");
        let (head, _) = text.split_once("\r\n\r\n").expect("a head and a body");
        for line in ["Date: Tue, 14 Nov 2023 22:13:20 +0000", "Message-ID: <1@leatworks.example>", "Subject: =?utf-8?"] {
            assert!(head.contains(line), "`{line}` in {head}");
        }
        assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
    }

    #[test]
    fn the_same_mail_gives_the_same_bytes() {
        let from: Mailbox = default_from().parse().expect("a mailbox");
        let bytes = || message(&from, &mail("Ada"), "<1@leatworks.example>").expect("a message").formatted();
        assert_eq!(bytes(), bytes());
    }

    #[tokio::test]
    async fn repeating_an_attempt_leaves_one_mail() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = default_from().parse().expect("a mailbox");
        let to = Transport::Maildir(Maildir::open(folder.path().to_owned()).expect("a Maildir"));
        let task = Send { from: default_from(), maildir: None, smtp: None, ready: Some(Ready { from, to }) };
        let cx = Context::detached();
        let first = task.run(mail("Ada"), &cx).await.expect("sent");
        let second = task.run(mail("Ada"), &cx).await.expect("sent");
        assert_eq!(first, second);
        assert_eq!(std::fs::read_dir(folder.path().join("new")).expect("a folder").count(), 1);
    }
}
