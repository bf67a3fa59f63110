//! The email pipeline with a mail server: every mail arrives once, also when the server first asks to try again.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

/// What a mail server took: the recipient and the text of each mail.
type Inbox = Arc<Mutex<Vec<(String, String)>>>;

/// A mail server on loopback, as much of RFC 5321 as a client needs. The first recipient is asked to try again later.
fn server() -> (u16, Inbox) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    let port = listener.local_addr().expect("it has an address").port();
    let inbox = Inbox::default();
    let busy = Arc::new(Mutex::new(true));
    let taken = inbox.clone();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (inbox, busy) = (taken.clone(), busy.clone());
            // A client that hangs up in the middle has sent nothing.
            thread::spawn(move || serve(connection, &inbox, &busy).ok());
        }
    });
    (port, inbox)
}

fn serve(connection: TcpStream, inbox: &Inbox, busy: &Mutex<bool>) -> std::io::Result<()> {
    let mut answer = connection.try_clone()?;
    let mut lines = BufReader::new(connection).lines();
    let mut recipient = String::new();
    answer.write_all(b"220 mill.example ESMTP\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" | "HELO" => "250 mill.example",
            "RCPT" if std::mem::take(&mut *busy.lock().expect("no holder panics")) => "451 busy, try again later",
            "RCPT" => {
                recipient = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok"
            }
            "DATA" => {
                answer.write_all(b"354 go on\r\n")?;
                let text: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                inbox.lock().expect("no holder panics").push((recipient.clone(), text.join("\n")));
                "250 taken"
            }
            "QUIT" => {
                answer.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => "250 ok",
        };
        answer.write_all(reply.as_bytes())?;
        answer.write_all(b"\r\n")?;
    }
    Ok(())
}

#[test]
fn a_configured_mail_server_gets_every_mail_once() {
    let (port, inbox) = server();
    let home = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(env!("CARGO_BIN_EXE_email-pipeline"))
        .args(["run", "-o", "json"])
        .env("LEATWORKS_HOME", home.path())
        .env("LEAT_TOPOLOGY__EMAIL_PIPELINE__TASK__SEND__SETTINGS__SMTP", format!("127.0.0.1:{port}"))
        .output()
        .expect("the binary starts");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&report["done"], &report["dead_lettered"]), (&1.into(), &0.into()), "{report}");
    assert_eq!((&report["tasks"]["send"]["handled"], &report["tasks"]["send"]["retried"]), (&3.into(), &1.into()), "{report}");
    let mut mails = inbox.lock().expect("no holder panics").clone();
    mails.sort();
    let recipients: Vec<&str> = mails.iter().map(|(recipient, _)| recipient.as_str()).collect();
    assert_eq!(recipients, ["ada@example.org", "grace@example.org", "margaret@example.org"]);
    for (recipient, text) in &mails {
        for header in ["From: ", "Subject: ", "Date: ", "Message-ID: <", "Content-Type: text/plain"] {
            assert!(text.lines().any(|line| line.starts_with(header)), "{recipient}: no `{header}` in\n{text}");
        }
    }
}
