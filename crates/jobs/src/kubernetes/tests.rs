//! The executor against an API server of a few lines, which fails as real ones do.

use super::{Kubernetes, object};
use crate::{
    Adapter, Attempt, Cause, Commit, Executor, Job, JobError, Location, Spec, State, Store, job::tests::job as base, record,
};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What a program does here.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    /// Leaves something, and ends well.
    Works,
    /// Ends with this exit code.
    Fails(i32),
    /// Never ends.
    Hangs,
    /// Its Job is removed by somebody while it runs.
    Vanishes,
    /// It has committed, and then its Job is removed by its time to live.
    WorksAndVanishes,
}

/// What comes to a request instead of its answer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// This status, and nothing is done.
    Refused(u16),
    /// It is done, and this status is answered all the same.
    Done(u16),
    /// No answer, ever.
    Silence,
    /// It is done, and there is no answer, ever.
    Lost,
}

#[derive(Default)]
struct Server {
    jobs: BTreeMap<String, Value>,
    /// How often each Job was looked at.
    looks: BTreeMap<String, u32>,
    /// The names of all Jobs that were ever made.
    made: Vec<String>,
    faults: VecDeque<(Method, Fault)>,
}

struct Rig {
    server: Arc<Mutex<Server>>,
    store: Store,
    kubernetes: Kubernetes,
    /// Where the store is.
    _folder: tempfile::TempDir,
}

/// After so many looks a program is at its end.
const LOOKS: u32 = 4;

fn adapter() -> Adapter {
    let container = |name: &str| json!({ "name": name, "image": "x" });
    Adapter {
        topology: "books".to_owned(),
        task: "split".to_owned(),
        codec: "json".to_owned(),
        routes: Vec::new(),
        ends: Vec::new(),
        edges: BTreeMap::from([("[*]-->split".to_owned(), "0.split".to_owned())]),
        timeout_ms: 20_000,
        parallelism: 1,
        attempts: 3,
        spec: Spec::default(),
        owner: json!({ "apiVersion": "leatworks.dev/v1alpha1", "kind": "Topology", "name": "books", "uid": "u" }),
        template: json!({ "spec": { "initContainers": [container("prepare"), container("worker")], "containers": [container("commit")] } }),
    }
}

impl Rig {
    /// An API server on whose nodes the first Job's program is the first of these, and so on; the last goes on for ever.
    fn new(programs: &[Program], faults: &[(Method, Fault)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let store = Store::open(&Location { url, options: BTreeMap::new() }).unwrap();
        let server = Arc::new(Mutex::new(Server { faults: faults.iter().cloned().collect(), ..Server::default() }));
        let (of_service, kept, programs) = (server.clone(), store.clone(), programs.to_vec());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, store, programs) = (of_service.clone(), kept.clone(), programs.clone());
            async move { Ok::<_, Infallible>(answer(&server, &store, &programs, request).await) }
        });
        let kubernetes = Kubernetes::new(Client::new(service, "shop"), "shop", store.clone(), adapter());
        Self { server, store, kubernetes, _folder: folder }
    }

    fn made(&self) -> Vec<String> {
        self.server.lock().unwrap().made.clone()
    }

    /// Until it has made a Job, and then it is killed.
    async fn killed_after_making_one(&self, job: &Job) {
        let made = async {
            while self.server.lock().unwrap().looks.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            biased;
            () = made => {}
            result = self.kubernetes.execute(job) => panic!("it has ended: {result:?}"),
        }
    }

    async fn record(&self, job: &Job) -> Attempt {
        Attempt::at(&self.store, &record::folder(job, 1)).await.unwrap().expect("a record")
    }
}

async fn answer(server: &Mutex<Server>, store: &Store, programs: &[Program], request: Request<Body>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let fault = {
        let mut server = server.lock().unwrap();
        match server.faults.front() {
            Some((method, _)) if *method == parts.method => server.faults.pop_front().map(|(_, fault)| fault),
            _ => None,
        }
    };
    match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Lost) => {
            let _ = serve(server, store, programs, &parts.method, parts.uri.path(), &body).await;
            std::future::pending().await
        }
        Some(Fault::Refused(code)) => status(code),
        Some(Fault::Done(code)) => {
            let _ = serve(server, store, programs, &parts.method, parts.uri.path(), &body).await;
            status(code)
        }
        None => serve(server, store, programs, &parts.method, parts.uri.path(), &body).await,
    }
}

fn status(code: u16) -> Response<Full<Bytes>> {
    // Only this reason says that there is no such object: any other 404 is somebody else's, on the way.
    let reason = if code == 404 { "NotFound" } else { "x" };
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": "no", "code": code });
    reply(code, &status)
}

fn reply(code: u16, value: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::new(value.to_string().into())).unwrap()
}

async fn serve(
    server: &Mutex<Server>,
    store: &Store,
    programs: &[Program],
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Full<Bytes>> {
    let name = path.rsplit_once("/jobs/").map(|(_, name)| name.to_owned());
    match (method.as_str(), name) {
        ("POST", _) => {
            let object: Value = serde_json::from_slice(body).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let mut server = server.lock().unwrap();
            if server.jobs.contains_key(&name) {
                return status(409);
            }
            server.made.push(name.clone());
            server.jobs.insert(name, object.clone());
            reply(201, &object)
        }
        ("DELETE", Some(name)) => match server.lock().unwrap().jobs.remove(&name) {
            Some(object) => reply(200, &object),
            None => status(404),
        },
        ("GET", Some(name)) => look(server, store, programs, &name).await,
        ("GET", None) if path.ends_with("/jobs") => {
            let items: Vec<Value> = server.lock().unwrap().jobs.values().cloned().collect();
            reply(200, &json!({ "kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": items }))
        }
        ("GET", None) if path.ends_with("/log") => Response::new(Full::new(Bytes::from_static(b"said\n"))),
        ("GET", None) => {
            let worker = json!({ "name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": { "running": {} } });
            let pod =
                json!({ "metadata": { "name": "pod" }, "status": { "phase": "Pending", "initContainerStatuses": [worker] } });
            reply(200, &json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod] }))
        }
        _ => status(405),
    }
}

/// A Job as it is when it is looked at once more.
async fn look(server: &Mutex<Server>, store: &Store, programs: &[Program], name: &str) -> Response<Full<Bytes>> {
    let (mut object, program, looks) = {
        let mut server = server.lock().unwrap();
        let Some(object) = server.jobs.get(name).cloned() else { return status(404) };
        let looks = server.looks.entry(name.to_owned()).or_default();
        *looks += 1;
        let looks = *looks;
        let number = server.made.iter().position(|made| made == name).unwrap_or_default();
        (object, programs[number.min(programs.len() - 1)], looks)
    };
    let condition = |kind: &str| json!({ "conditions": [{ "type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "" }] });
    if looks >= LOOKS {
        if matches!(program, Program::Works | Program::WorksAndVanishes) {
            let attempt = object["metadata"]["labels"][object::ATTEMPT].as_str().unwrap().parse().unwrap();
            let commit = Commit { attempt, round: 1, events: Vec::new(), insights: None };
            commit.make(store, &base()).await.unwrap();
        }
        if matches!(program, Program::Vanishes | Program::WorksAndVanishes) {
            server.lock().unwrap().jobs.remove(name);
            return status(404);
        }
        object["status"] = match program {
            Program::Works => condition("Complete"),
            Program::Fails(_) => condition("Failed"),
            _ => json!({}),
        };
        server.lock().unwrap().jobs.insert(name.to_owned(), object.clone());
    }
    reply(200, &object)
}

fn attempt(number: u32) -> Job {
    Job { attempt: number, spec: Spec { permanent: vec![65], ..Spec::default() }, ..base() }
}

/// What it came to, in a word.
fn word(result: &Result<Commit, JobError>) -> String {
    match result {
        Ok(commit) => format!("committed by {}", commit.attempt),
        Err(error) => format!("{:?}: {}", error.cause, error),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_api_server_answers_an_attempt_has_one_job() {
    use Fault::{Done, Lost, Refused, Silence};
    let (post, get, delete) = (Method::POST, Method::GET, Method::DELETE);
    for (faults, expected, made) in [
        (vec![], "committed by 1", 1),
        (vec![(post.clone(), Done(500))], "committed by 1", 1),
        (vec![(post.clone(), Done(504)), (post.clone(), Refused(429)), (get.clone(), Silence)], "committed by 1", 1),
        (vec![(get.clone(), Refused(429)), (post.clone(), Refused(503)), (post.clone(), Silence)], "committed by 1", 1),
        (vec![(get.clone(), Refused(410)), (post.clone(), Refused(409)), (get.clone(), Refused(500))], "committed by 1", 1),
        (vec![(delete.clone(), Refused(500)), (delete.clone(), Silence)], "committed by 1", 1),
        (vec![(post.clone(), Lost), (get.clone(), Refused(410)), (get.clone(), Silence)], "committed by 1", 1),
        (vec![(post.clone(), Refused(422))], "Permanent", 0),
        // A right that is given back, or a quota with room again, costs nothing; one that stays away costs the attempt.
        (vec![(get.clone(), Refused(403)), (post.clone(), Refused(403)), (post.clone(), Refused(401))], "committed by 1", 1),
        (vec![(post.clone(), Refused(403)); 110], "Failed: making the Job `leat-", 0),
    ] {
        let rig = Rig::new(&[Program::Works], &faults);
        let result = rig.kubernetes.execute(&attempt(1)).await;
        assert!(word(&result).starts_with(expected), "{faults:?}: {result:?}");
        assert_eq!(rig.made().len(), made, "{faults:?}");
        if result.is_ok() {
            assert_eq!(rig.record(&attempt(1)).await.state, State::Succeeded);
            // What is left is removed, however often that has to be tried.
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(rig.server.lock().unwrap().jobs.is_empty(), "{faults:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ends_of_programs_are_told_apart() {
    for (program, expected) in [
        (Program::Works, "committed by 1"),
        (Program::Fails(3), "Failed: the Job has failed"),
        (Program::Vanishes, "Failed: the Job `leat-"),
        (Program::WorksAndVanishes, "committed by 1"),
        (Program::Hangs, "Timeout: the worker was ended, since it took longer than its timeout of 20s; log: "),
    ] {
        let rig = Rig::new(&[program], &[]);
        let result = rig.kubernetes.execute(&attempt(1)).await;
        assert!(word(&result).starts_with(expected), "{program:?}: {result:?}");
        assert_eq!(rig.made().len(), 1);
        let record = rig.record(&attempt(1)).await;
        assert!(record.ended_ms.is_some() && record.executor == "kubernetes", "{record:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_taken_up_by_whoever_comes_next() {
    use Program::{Fails, Vanishes, Works};
    for (programs, next, expected, made) in [
        // The adapter is started anew, and called again for the same attempt.
        (vec![Works], 1, "committed by 1", 1),
        (vec![Fails(3)], 1, "Failed: the Job has failed", 1),
        // The dispatcher is started anew, and comes with the next attempt.
        (vec![Works], 2, "committed by 1", 1),
        (vec![Fails(3), Works], 2, "committed by 2", 2),
        (vec![Vanishes, Works], 2, "committed by 2", 2),
    ] {
        let rig = Rig::new(&programs, &[]);
        rig.killed_after_making_one(&attempt(1)).await;
        let result = rig.kubernetes.execute(&attempt(next)).await;
        assert!(word(&result).starts_with(expected), "{programs:?}, {next}: {result:?}");
        assert_eq!(rig.made().len(), made, "{programs:?}, {next}");
        let again = rig.kubernetes.execute(&attempt(next)).await;
        assert_eq!(again.is_ok(), result.is_ok(), "once more it is the same, or a round of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_time_to_live_has_passed_unseen_is_no_success() {
    let rig = Rig::new(&[Program::Hangs, Program::Works], &[]);
    rig.killed_after_making_one(&attempt(1)).await;
    rig.server.lock().unwrap().jobs.clear();
    let result = rig.kubernetes.execute(&attempt(2)).await;
    assert_eq!(word(&result), "committed by 2");
    assert_eq!(rig.record(&attempt(1)).await.state, State::Begun, "nobody knows what became of it");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_made_and_is_gone_is_not_made_again() {
    let rig = Rig::new(&[Program::Hangs, Program::Works], &[]);
    rig.killed_after_making_one(&attempt(1)).await;
    rig.server.lock().unwrap().jobs.clear();
    let result = rig.kubernetes.execute(&attempt(1)).await;
    assert!(word(&result).contains("is gone, removed by somebody else"), "{result:?}");
    assert_eq!(rig.made().len(), 1);
    assert_eq!(word(&rig.kubernetes.execute(&attempt(2)).await), "committed by 2");
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_making_was_not_answered_and_that_is_removed_soon_is_not_made_again() {
    for fault in [Fault::Lost, Fault::Done(500)] {
        let rig = Rig::new(&[Program::Hangs, Program::Works], &[(Method::POST, fault)]);
        let removing = async {
            while rig.made().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            rig.server.lock().unwrap().jobs.clear();
        };
        let first = attempt(1);
        let (result, ()) = tokio::join!(rig.kubernetes.execute(&first), removing);
        assert!(word(&result).contains("is gone, removed by somebody else"), "{fault:?}: {result:?}");
        assert_eq!(rig.made().len(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_nobody_has_heard_of_is_told_again_and_one_that_was_given_back_is_tried_again() {
    let refused = (Method::POST, Fault::Refused(422));
    // What comes to the first attempt, how many a message has, what is called for after it, and how many Jobs are made by then.
    for (fault, attempts, next, made) in [
        (None, 3, &[1][..], 1),
        (None, 3, &[1, 1, 2, 2], 2),
        // Another attempt was made since, so the message has been to the dead letters.
        (None, 3, &[2, 1], 3),
        (None, 1, &[1], 2),
        (Some(refused), 3, &[1], 1),
    ] {
        let mut rig = Rig::new(&[Program::Fails(3)], fault.as_slice());
        rig.kubernetes.adapter = Arc::new(Adapter { attempts, ..adapter() });
        let mut before = rig.kubernetes.execute(&attempt(1)).await.unwrap_err();
        for number in next {
            let made = rig.made().len();
            let error = rig.kubernetes.execute(&attempt(*number)).await.unwrap_err();
            assert!(rig.made().len() > made || error == before, "{next:?}: {error}, and before that {before}");
            before = error;
        }
        assert_eq!(rig.made().len(), made, "{attempts} attempts, {next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_while_nobody_looks_is_written_down_and_removed() {
    for (program, state) in [(Program::Works, State::Succeeded), (Program::Fails(3), State::Failed)] {
        let rig = Rig::new(&[program], &[]);
        rig.killed_after_making_one(&attempt(1)).await;
        let name = attempt(1).name(1);
        rig.kubernetes.sweep_once().await.unwrap();
        assert_eq!(rig.record(&attempt(1)).await.state, State::Begun, "it has not ended yet");
        for _ in 0..LOOKS {
            rig.kubernetes.cluster.get(&name).await.unwrap();
        }
        let watch = rig.kubernetes.watched.begin(&name);
        rig.kubernetes.sweep_once().await.unwrap();
        assert_eq!(rig.record(&attempt(1)).await.state, State::Begun, "somebody else looks after it");
        drop(watch);
        rig.kubernetes.sweep_once().await.unwrap();
        let record = rig.record(&attempt(1)).await;
        assert!(record.state == state && record.log.is_some(), "{record:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(rig.server.lock().unwrap().jobs.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_somebody_else_has_is_not_taken_over() {
    let rig = Rig::new(&[Program::Works], &[]);
    let name = attempt(1).name(1);
    let other = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "labels": { "app": "theirs" } }, "spec": { "template": { "spec": { "containers": [] } } } });
    rig.server.lock().unwrap().jobs.insert(name.clone(), other.clone());
    let error = rig.kubernetes.execute(&attempt(1)).await.unwrap_err();
    assert!(error.cause == Cause::Permanent && error.to_string().contains("its labels are others"), "{error}");
    assert_eq!(rig.server.lock().unwrap().jobs.get(&name), Some(&other));
}

#[test]
fn a_job_is_what_its_attempt_and_its_template_say() {
    let job = Job { edge: "[*]-->split".to_owned(), ..attempt(2) };
    let object = object::object(&adapter(), &job, &job.name(1), "books/place/2", "books/place/2/job.json").unwrap();
    let object = serde_json::to_value(object).unwrap();
    let spec = &object["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["podReplacementPolicy"]), (&json!(0), &json!("Failed")));
    assert_eq!(spec["podFailurePolicy"]["rules"][0]["action"], "Ignore");
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never");
    let (of_job, of_pod) = (spec["activeDeadlineSeconds"].as_i64().unwrap(), pod["activeDeadlineSeconds"].as_i64().unwrap());
    assert!(of_job > of_pod && of_pod > 20, "{of_job} {of_pod}");
    let variable = |container: &Value, name: &str| {
        let env = container["env"].as_array().cloned().unwrap_or_default();
        env.iter().find(|one| one["name"] == name).map(|one| one["value"].clone())
    };
    let [prepare, worker] = [&pod["initContainers"][0], &pod["initContainers"][1]];
    assert_eq!(variable(prepare, "LEAT_JOB"), Some(json!("books/place/2/job.json")));
    assert_eq!(variable(&pod["containers"][0], "LEAT_JOB"), Some(json!("books/place/2/job.json")));
    assert_eq!((variable(worker, "LEAT_JOB"), variable(worker, "LEAT_ATTEMPT")), (None, Some(json!("2"))));
    for value in object["metadata"]["labels"].as_object().unwrap().values() {
        assert!(value.as_str().unwrap().len() <= 63, "{value}");
    }
    assert_eq!(object["metadata"]["ownerReferences"][0]["kind"], "Topology");
}
