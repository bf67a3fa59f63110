//! `start`: one request becomes one campaign.

use super::{Campaign, Request};
use leatworks::{Context, Task, TaskError};
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Begins a campaign.
#[derive(Debug, Deserialize)]
pub struct Start;

impl Task for Start {
    type In = Option<Request>;
    type Out = Campaign;

    async fn run(&self, request: Option<Request>, _cx: &Context) -> Result<Campaign, TaskError> {
        let began_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Campaign { subscribers: request.unwrap_or_default().subscribers, began_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_may_be_null_or_name_a_file() {
        for (request, expected) in [("null", None), ("{}", None), (r#"{"subscribers":"a.csv"}"#, Some("a.csv".into()))] {
            let request = serde_json::from_str(request).expect("a request");
            let campaign = Start.run(request, &Context::detached()).await.expect("a campaign");
            assert_eq!(campaign.subscribers, expected);
            assert!(campaign.began_s > 0);
        }
    }
}
