//! `render`: one subscriber becomes a mail, or the reason why there is none.

use super::{Mail, Outcome, User, email};
use handlebars::Handlebars;
use leatworks::{Context, Permanent, Route, Setup, Task, TaskError};
use lettre::Address;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Renders mails from a handlebars template whose first line is `Subject: …`, followed by an empty line and the text.
#[derive(Debug, Deserialize)]
pub struct Render {
    /// The template.
    #[serde(default = "default_template")]
    template: PathBuf,
    #[serde(skip)]
    templates: Handlebars<'static>,
}

fn default_template() -> PathBuf {
    "examples/email-pipeline/mail.hbs".into()
}

/// What [`Render`] gives.
#[derive(Clone, Debug, PartialEq, Eq, Route, Serialize, Deserialize)]
pub enum Rendered {
    /// A mail to send.
    Mail(Mail),
    /// Nobody gets one.
    Skipped(Outcome),
}

impl Task for Render {
    type In = User;
    type Out = Rendered;

    async fn start(&mut self, _setup: &Setup) -> Result<(), TaskError> {
        let failed = |cause: String| {
            let path = self.template.display();
            TaskError::permanent(format!("mail template `{path}`: {cause}; name another by `settings = {{ template = \"…\" }}`"))
        };
        let text = tokio::fs::read_to_string(&self.template).await.map_err(|error| failed(error.to_string()))?;
        self.templates = templates(&text).map_err(failed)?;
        Ok(())
    }

    async fn run(&self, user: User, _cx: &Context) -> Result<Rendered, TaskError> {
        if !user.subscribed {
            return Ok(skipped(user, "unsubscribed"));
        }
        if user.email.parse::<Address>().is_err() {
            return Ok(skipped(user, "invalid address"));
        }
        // A line break in a name must not become one in a header.
        let subject = email::one_line(&self.templates.render("subject", &user).permanent()?);
        let body = self.templates.render("body", &user).permanent()?;
        Ok(Rendered::Mail(Mail { name: user.name, email: user.email, subject, body, date_s: user.date_s }))
    }
}

fn skipped(user: User, reason: &str) -> Rendered {
    Rendered::Skipped(Outcome { email: user.email, result: email::Result::Skipped { reason: reason.to_owned() } })
}

/// Subject and text are templates of their own, so that no field can move the border between them.
fn templates(text: &str) -> Result<Handlebars<'static>, String> {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let subject = head.strip_prefix("Subject:").ok_or("its first line must be `Subject: …`")?;
    let mut templates = Handlebars::new();
    templates.set_strict_mode(true);
    templates.register_escape_fn(handlebars::no_escape);
    templates.register_template_string("subject", subject.trim()).map_err(|error| error.to_string())?;
    templates.register_template_string("body", body).map_err(|error| error.to_string())?;
    Ok(templates)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn render(template: &str, name: &str, email: &str, subscribed: bool) -> Rendered {
        let task = Render { template: "unused".into(), templates: templates(template).expect("a template") };
        let user = User { name: name.to_owned(), email: email.to_owned(), subscribed, date_s: 7 };
        task.run(user, &Context::detached()).await.expect("rendered")
    }

    const TEMPLATE: &str = "Subject: Hello {{name}}\n\nDear {{name}},\nyou are {{email}}.\n";

    #[tokio::test]
    async fn a_subscriber_gets_a_mail() {
        let Rendered::Mail(mail) = render(TEMPLATE, "Ada & Co", "ada@example.org", true).await else { panic!("no mail") };
        assert_eq!(mail.subject, "Hello Ada & Co");
        assert_eq!(mail.body, "Dear Ada & Co,\nyou are ada@example.org.\n");
    }

    #[tokio::test]
    async fn a_name_cannot_add_a_header() {
        let Rendered::Mail(mail) = render(TEMPLATE, "Ada\r\nBcc: all@example.org\n\n", "ada@example.org", true).await else {
            panic!("no mail")
        };
        assert_eq!(mail.subject, "Hello Ada Bcc: all@example.org");
    }

    #[tokio::test]
    async fn who_gets_none_is_told_with_the_reason() {
        for (email, subscribed, expected) in [
            ("ada@example.org", false, "unsubscribed"),
            ("", true, "invalid address"),
            ("ada", true, "invalid address"),
            ("ada@exa mple.org", true, "invalid address"),
        ] {
            let Rendered::Skipped(outcome) = render(TEMPLATE, "Ada", email, subscribed).await else {
                panic!("a mail to `{email}`")
            };
            assert_eq!(outcome.result, email::Result::Skipped { reason: expected.to_owned() });
        }
    }

    #[test]
    fn the_example_template_is_one() {
        templates(include_str!("../../examples/email-pipeline/mail.hbs")).expect("a template");
        assert!(templates("Dear {{name}}").is_err());
    }
}
