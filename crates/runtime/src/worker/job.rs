//! Serves a job as a worker: whoever calls it waits until the job is done, wherever it runs.

use super::{Bound, ServeError};
use crate::{
    def::{TaskDef, TopologyDef},
    job,
    plan::TaskPlan,
};
use leatworks_jobs::{Executor, JobError, Spec, Store, answer_max};
use std::{future::Future, sync::Arc, time::Duration};

/// A job, and who runs it.
pub struct JobServer {
    /// The topology.
    pub topology: &'static TopologyDef,
    /// The task.
    pub task: &'static TaskDef,
    /// What is run.
    pub spec: Spec,
    /// Who runs it.
    pub executor: Arc<dyn Executor>,
    /// Where its files are.
    pub store: Store,
    /// How long they are kept.
    pub keep: Duration,
}

impl std::fmt::Debug for JobServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobServer").field("topology", &self.topology.name).field("task", &self.task.name).finish_non_exhaustive()
    }
}

/// Serves a job until `stop` resolves; then takes no new calls and waits for those that run. It is ready when `check` has succeeded.
///
/// # Errors
/// [`ServeError::Serve`], and [`ServeError::Start`] if `check` fails.
pub async fn serve_job(
    bound: Bound,
    server: JobServer,
    check: impl Future<Output = Result<(), JobError>> + Send,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let JobServer { topology, task, spec, executor, store, keep } = server;
    // The executor sees to the program's own time.
    let plan = TaskPlan { timeout: answer_max(task.timeout), ..TaskPlan::new(task) };
    let open = async {
        check.await.map_err(job::task_error)?;
        Ok(job::open_far(task, topology, spec, executor, store, keep))
    };
    bound.serve(plan, open, stop).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cause, Context,
        context::Place,
        def::{JobDef, Kind, example},
        worker,
    };
    use leatworks_broker::{Message, MessageId};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    static TASK: TaskDef = TaskDef { kind: Kind::Job(JobDef { options: "{}" }), ..example::TASK };

    static TOPOLOGY: TopologyDef = TopologyDef { tasks: &[&TASK], ..example::TOPOLOGY };

    /// Gives so many bytes of an answer, and breaks the connection. Gives the request.
    async fn serve(listener: &TcpListener, answer: &str, sent: usize) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        stream.write_all(&answer.as_bytes()[..sent]).await.unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_connection_that_breaks_costs_a_job_no_attempt() {
        let log = "x".repeat(300);
        let failure = format!(r#"{{"cause":"timeout","error":"it took too long; log: {log}"}}"#);
        for (status, body, cause) in
            [("200 OK", r#"{"tasks":[]}"#, None), ("504 Gateway Timeout", failure.as_str(), Some(Cause::Timeout))]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let handler =
                worker::client(&format!("http://{}", listener.local_addr().unwrap()), &TASK, &TOPOLOGY, TASK.timeout).unwrap();
            let message = Message {
                id: MessageId(7),
                root: MessageId(5),
                payload: "{}".into(),
                properties: job::parents(Some(MessageId(6))),
                ..Message::default()
            };
            let place = Place { topology: "t", task: "task", edge: "a-->task".into(), settings: serde_json::Value::Null };
            let cx = Context::new(Arc::new(place), &message, 4);
            let answer = format!("HTTP/1.1 {status}\r\nleat-batch: 1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            for sent in [0, 30, answer.len() - 1] {
                let (result, _) = tokio::join!(handler.handle(&message, &cx), serve(&listener, &answer, sent));
                // What a worker says of a failure may be cut; an answer that tells of a success may not.
                let is_cut = sent < answer.len() - 1 || cause.is_none();
                assert_eq!(result.unwrap_err().is_unreached(), is_cut, "{status}, {sent} bytes");
            }
            let (result, request) = tokio::join!(handler.handle(&message, &cx), serve(&listener, &answer, answer.len()));
            assert!(
                request.contains("leat-attempt: 4\r\n") && request.contains("leat-parent-id: 00000000000000000000000000000006")
            );
            match (result, cause) {
                (Ok(outputs), None) => assert!(outputs.is_empty()),
                (Err(error), Some(cause)) => {
                    assert_eq!(error.cause(), cause);
                    assert!(error.to_string().ends_with(&log), "what it says is not cut: {error}");
                }
                (result, _) => panic!("{status}: {result:?}"),
            }
            assert!(handler.batch().is_none(), "a job is called for each message");
        }
    }
}
