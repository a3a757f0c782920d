//! The agent's actors against a Docker that a test plays: it answers as its script says, and records
//! what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulkhead_aws_api::acs::{DesiredStatus, PayloadTask};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::options::Options;
use crate::reports::Report;
use crate::state::{SavedTask, StateFile};

const TASK: &str = "arn:aws:ecs:r:0:task/default/0a";
const PATIENCE: Duration = Duration::from_secs(20);

/// How one request is answered instead of as Docker would.
enum Answer {
    /// A status and Docker's sentence.
    Refuse(u16, &'static str),
    /// The pull's stream says that it failed.
    FailPull(&'static str),
    /// It is done, and the connection breaks before the answer.
    BreakOff,
    /// It is done, and the container has ended with this code before anybody looks.
    EndAtOnce(i64),
}

#[derive(Default)]
struct Docker {
    /// `METHOD PATH`, without the version and the query, and the body.
    asked: Mutex<Vec<(String, String)>>,
    /// By the beginning of `METHOD PATH`; each is used once.
    script: Mutex<Vec<(&'static str, Answer)>>,
    /// By id: what was asked for, and the state.
    containers: Mutex<BTreeMap<String, (Value, Value)>>,
    images: Mutex<Vec<String>>,
    news: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Docker {
    fn take(&self, what: &str) -> Option<Answer> {
        let mut script = lock(&self.script);
        let at = script.iter().position(|(beginning, _)| what.starts_with(beginning))?;
        Some(script.remove(at).1)
    }

    fn asked(&self, beginning: &str) -> Vec<(String, String)> {
        let all = lock(&self.asked);
        all.iter().filter(|(what, _)| what.starts_with(beginning)).cloned().collect()
    }

    /// Ends a container as its program would.
    fn end(&self, name: &str, code: i64) {
        let mut containers = lock(&self.containers);
        let of = |body: &Value| body["Labels"]["com.amazonaws.ecs.container-name"] == name;
        let found = containers.values_mut().find(|(body, _)| of(body));
        found.expect("it was made").1 = json!({"Status": "exited", "ExitCode": code});
    }

    fn answer(
        &self,
        method: &str,
        path: &str,
        query: &HashMap<String, String>,
        body: &str,
    ) -> Response {
        let what = format!("{method} {path}");
        let scripted = self.take(&what);
        match scripted {
            Some(Answer::Refuse(status, sentence)) => return refuse(status, sentence),
            Some(Answer::FailPull(sentence)) => {
                let error = json!({"errorDetail": {"message": sentence}, "error": sentence});
                return format!("{}\r\n{error}\r\n", json!({"status": "Pulling"})).into_response();
            }
            _ => {}
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let done = match (method, parts.as_slice()) {
            ("POST", ["images", "create"]) => {
                lock(&self.images).push(format!("{}:{}", query["fromImage"], query["tag"]));
                json!({"status": "Download complete"}).to_string().into_response()
            }
            ("GET", ["images", name @ .., "json"]) => {
                let name = name.join("/").replace("%3A", ":").replace("%2F", "/");
                match lock(&self.images).contains(&name) {
                    true => answer(&json!({"RepoDigests": [format!("{name}@sha256:00")]})),
                    false => refuse(404, "No such image"),
                }
            }
            ("POST", ["containers", "create"]) => {
                let mut containers = lock(&self.containers);
                let id = format!("id-{}", containers.len());
                let mut body: Value = serde_json::from_str(body).expect("a body in JSON");
                body["Name"] = json!(query["name"]);
                containers.insert(id.clone(), (body, json!({"Status": "created"})));
                (StatusCode::CREATED, answer(&json!({"Id": id, "Warnings": []}))).into_response()
            }
            ("GET", ["containers", "json"]) => {
                let ids: Vec<Value> =
                    lock(&self.containers).keys().map(|id| json!({"Id": id})).collect();
                answer(&json!(ids))
            }
            ("GET", ["containers", id, "json"]) => match lock(&self.containers).get(*id) {
                Some((body, state)) => answer(&json!({
                    "Id": id, "Name": format!("/{}", body["Name"].as_str().unwrap_or_default()),
                    "State": state, "Config": {"Labels": body["Labels"]},
                    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": "49153"}]}},
                })),
                None => refuse(404, "No such container"),
            },
            ("POST", ["containers", id, verb]) => {
                let mut containers = lock(&self.containers);
                let Some((_, state)) = containers.get_mut(*id) else {
                    return refuse(404, "No such container");
                };
                *state = match (*verb, &scripted) {
                    ("start", Some(Answer::EndAtOnce(code))) => {
                        json!({"Status": "exited", "ExitCode": code})
                    }
                    ("start", _) => {
                        let now = jiff::Timestamp::now().to_string();
                        json!({"Status": "running", "StartedAt": now})
                    }
                    ("stop", _) => json!({"Status": "exited", "ExitCode": 143}),
                    _ => panic!("nobody asks for {what}"),
                };
                StatusCode::NO_CONTENT.into_response()
            }
            ("DELETE", ["containers", id]) => {
                lock(&self.containers).remove(*id);
                StatusCode::NO_CONTENT.into_response()
            }
            ("DELETE", ["volumes", _]) => StatusCode::NO_CONTENT.into_response(),
            _ => panic!("nobody asks for {what}"),
        };
        match scripted {
            Some(Answer::BreakOff) => {
                let cut = futures_util::stream::iter([
                    Ok(Bytes::from_static(b"{")),
                    Err(std::io::Error::other("the engine is gone")),
                ]);
                Response::new(Body::from_stream(cut))
            }
            _ => done,
        }
    }
}

fn answer(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn refuse(status: u16, sentence: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, answer(&json!({"message": sentence}))).into_response()
}

async fn serve(State(docker): State<Arc<Docker>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let body = String::from_utf8(body.to_vec()).expect("text");
    let path = match head.uri.path().strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((version, rest)) if version.starts_with("1.") => format!("/{rest}"),
        _ => head.uri.path().to_owned(),
    };
    let query = head.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    // nothing else is escaped in what these tasks name
    let plain = |value: &str| value.replace("%3A", ":").replace("%2F", "/");
    let query = pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect();
    lock(&docker.asked).push((format!("{} {path}", head.method), body.clone()));
    let response = docker.answer(head.method.as_str(), &path, &query, &body);
    docker.news.notify_one();
    response
}

/// One task, its actor, and the Docker that it drives.
struct Play {
    docker: Arc<Docker>,
    state: Arc<StateFile>,
    reports: mpsc::UnboundedReceiver<Report>,
    wake: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
    _directory: tempfile::TempDir,
}

impl Play {
    async fn begin(task: Value, script: Vec<(&'static str, Answer)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let docker = Arc::new(Docker { script: Mutex::new(script), ..Docker::default() });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&docker));
        let listener = UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let state = Arc::new(StateFile::open(&directory.path().join("data")).unwrap());
        let payload: PayloadTask = serde_json::from_value(task).unwrap();
        let saved = SavedTask { payload, ..SavedTask::default() };
        state.change(|state| state.tasks.insert(TASK.to_owned(), saved)).unwrap();
        let credentials = bulkhead_aws_api::sigv4::Credentials {
            access_key_id: "key".to_owned(),
            secret_access_key: "secret".to_owned(),
        };
        let options = Options::new(
            "http://127.0.0.1:1",
            credentials,
            socket.clone(),
            directory.path().to_owned(),
        );
        let (sender, reports) = mpsc::unbounded_channel();
        let wake = Arc::new(Notify::new());
        let actor = Actor {
            arn: TASK.to_owned(),
            engine: Engine::at(&socket),
            options: Arc::new(options),
            state: Arc::clone(&state),
            reports: sender,
            health: Arc::default(),
            wake: Arc::clone(&wake),
        };
        let acted = tokio::spawn(actor.run());
        Self { docker, state, reports, wake, tasks: [served, acted], _directory: directory }
    }

    async fn report(&mut self) -> Value {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await;
        report.expect("a report in time").expect("the actor lives").request
    }

    /// The report of the task's end; those before it tell of its containers, one by one.
    async fn last_report(&mut self) -> Value {
        loop {
            let report = self.report().await;
            if report["status"] == "STOPPED" {
                return report;
            }
        }
    }

    /// Waits until something was asked for so often.
    async fn until_asked(&self, beginning: &str, times: usize) {
        let asked = async {
            while self.docker.asked(beginning).len() < times {
                self.docker.news.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("it is asked for");
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn task(containers: Value) -> Value {
    json!({
        "arn": TASK, "taskClusterArn": "arn:aws:ecs:r:0:cluster/default", "family": "web",
        "version": "3", "desiredStatus": "RUNNING", "launchType": "EC2", "networkMode": "bridge",
        "containers": containers,
    })
}

fn web() -> Value {
    task(json!([{
        "name": "web", "image": "127.0.0.1:5000/web:7", "cpu": 10, "memory": 64, "essential": true,
        "environment": {"A": "1"},
        "portMappings": [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}],
    }]))
}

#[tokio::test]
async fn a_task_is_pulled_made_started_and_its_end_is_reported() {
    let mut play = Play::begin(web(), Vec::new()).await;
    let running = play.report().await;
    assert_eq!(running["status"], "RUNNING");
    assert_eq!(running["containers"][0]["imageDigest"], "sha256:00");
    let binding = &running["containers"][0]["networkBindings"][0];
    assert_eq!((&binding["containerPort"], &binding["hostPort"]), (&json!(80), &json!(49153)));
    assert_eq!(*lock(&play.docker.images), ["127.0.0.1:5000/web:7"]);
    let made = play.docker.asked("POST /containers/create");
    let body: Value = serde_json::from_str(&made[0].1).unwrap();
    assert_eq!((made.len(), &body["Image"]), (1, &json!("127.0.0.1:5000/web:7")));
    assert_eq!(body["Env"], json!(["A=1", "AWS_EXECUTION_ENV=AWS_ECS_EC2"]));
    assert_eq!(body["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "");
    assert_eq!(body["Labels"]["com.amazonaws.ecs.task-arn"], TASK);
    play.docker.end("web", 3);
    play.wake.notify_one();
    assert_eq!(play.last_report().await["containers"][0]["exitCode"], 3);
    assert_eq!(play.docker.asked("POST /containers/id-0/").len(), 1, "started once, never stopped");
}

#[tokio::test]
async fn a_pull_that_fails_is_the_reason_of_the_end() {
    for (answer, sentence) in [
        (Answer::FailPull("manifest unknown"), "manifest unknown"),
        (Answer::Refuse(500, "no such host"), "no such host"),
    ] {
        let mut play = Play::begin(web(), vec![("POST /images/create", answer)]).await;
        let stopped = play.report().await;
        let reason = format!("CannotPullContainerError: Error response from daemon: {sentence}");
        assert_eq!((&stopped["status"], &stopped["reason"]), (&json!("STOPPED"), &json!(reason)));
        assert!(play.docker.asked("POST /containers").is_empty());
    }
}

#[tokio::test]
async fn an_image_that_is_here_serves_where_its_registry_is_away() {
    let script = vec![("POST /images/create", Answer::Refuse(500, "connection refused"))];
    let mut play = Play::begin(web(), script).await;
    lock(&play.docker.images).push("127.0.0.1:5000/web:7".to_owned());
    assert_eq!(play.report().await["status"], "RUNNING");
}

#[tokio::test]
async fn what_a_lost_connection_has_done_is_not_done_again() {
    let script = vec![
        ("POST /containers/create", Answer::BreakOff),
        ("POST /containers/id-0/start", Answer::BreakOff),
    ];
    let mut play = Play::begin(web(), script).await;
    assert_eq!(play.report().await["status"], "RUNNING");
    assert_eq!(play.docker.asked("POST /containers/create").len(), 1);
    assert_eq!(play.docker.asked("POST /containers/id-0/start").len(), 1);
    let made = play.state.read(|state| state.tasks[TASK].made.clone());
    assert_eq!(made["web"], "id-0");
}

#[tokio::test]
async fn an_end_before_anybody_looks_is_an_end() {
    let script = vec![("POST /containers/id-0/start", Answer::EndAtOnce(9))];
    let mut play = Play::begin(web(), script).await;
    assert_eq!(play.last_report().await["containers"][0]["exitCode"], 9);
}

#[tokio::test]
async fn refused_settings_and_starts_are_reasons_too() {
    for (request, kind) in [
        ("POST /containers/create", "CannotCreateContainerError"),
        ("POST /containers/id-0/start", "CannotStartContainerError"),
    ] {
        let script = vec![(request, Answer::Refuse(400, "that cannot be"))];
        let mut play = Play::begin(web(), script).await;
        let reason = format!("{kind}: Error response from daemon: that cannot be");
        assert_eq!(play.report().await["reason"], reason);
    }
}

#[tokio::test]
async fn an_order_to_stop_stops_those_first_that_need_others() {
    let containers = json!([
        {"name": "app", "image": "app", "essential": true, "stopTimeout": 7},
        {"name": "proxy", "image": "proxy", "essential": true, "links": ["app"]},
    ]);
    let mut play = Play::begin(task(containers), Vec::new()).await;
    assert_eq!(play.report().await["status"], "RUNNING");
    let proxy = &play.docker.asked("POST /containers/create")[1].1;
    let body: Value = serde_json::from_str(proxy).unwrap();
    let link = body["HostConfig"]["Links"][0].as_str().unwrap();
    assert!(link.starts_with("ecs-web-3-app-") && link.ends_with(":app"), "{link}");
    let stop = |task: &mut SavedTask| task.payload.desired_status = DesiredStatus::Stopped;
    play.state.change(|state| state.tasks.get_mut(TASK).map(stop)).unwrap();
    play.wake.notify_one();
    play.until_asked("POST /containers/id-", 4).await;
    let verbs: Vec<String> =
        play.docker.asked("POST /containers/id-").into_iter().map(|(what, _)| what).collect();
    let want = ["id-0/start", "id-1/start", "id-1/stop", "id-0/stop"];
    assert_eq!(verbs, want.map(|verb| format!("POST /containers/{verb}")));
    play.last_report().await;
}

#[tokio::test]
async fn a_task_ends_when_what_it_waits_for_takes_longer_than_its_start_timeout() {
    let containers = json!([
        {"name": "web", "image": "web", "essential": true,
            "dependsOn": [{"containerName": "setup", "condition": "SUCCESS"}]},
        {"name": "setup", "image": "setup", "essential": false, "startTimeout": 1},
    ]);
    let mut play = Play::begin(task(containers), Vec::new()).await;
    let stopped = play.last_report().await;
    assert_eq!(
        stopped["reason"],
        "CannotStartContainerError: dependency setup was not SUCCESS within its startTimeout of 1 seconds"
    );
    let verbs: Vec<String> =
        play.docker.asked("POST /containers/id-").into_iter().map(|(what, _)| what).collect();
    let want = ["id-1/start", "id-1/stop"];
    assert_eq!(verbs, want.map(|verb| format!("POST /containers/{verb}")), "web never runs");
}
