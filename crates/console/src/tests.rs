//! The routes without a browser: what a person sends, and what is shown.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use bulkhead_ecs::{Control, Options};
use bulkhead_store::Embedded;
use tower::ServiceExt;

use crate::{Users, router};

struct Admin;

impl Users for Admin {
    fn check(&self, user: &str, password: &str) -> bool {
        (user, password) == ("admin", "secret")
    }
}

/// A console over an empty control plane, and the cookie of whoever is logged in.
struct Visit {
    router: Router,
    control: Arc<Control>,
    cookie: String,
    _directory: tempfile::TempDir,
}

impl Visit {
    fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("control.redb")).unwrap();
        let control = Arc::new(Control::new(Arc::new(store), Options::default()));
        let router = router(Arc::clone(&control), Arc::new(Admin));
        Self { router, control, cookie: String::new(), _directory: directory }
    }

    async fn logged_in() -> Self {
        let mut visit = Self::begin();
        let answer = visit.send(post("/login", "user=admin&password=secret")).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        visit.cookie = cookie.split(';').next().unwrap().to_owned();
        visit
    }

    async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        let headers = request.headers_mut();
        headers.entry(header::HOST).or_insert(header::HeaderValue::from_static("127.0.0.1:7480"));
        if !self.cookie.is_empty() {
            headers.insert(header::COOKIE, self.cookie.parse().unwrap());
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The status, and the page or where it leads.
    async fn ask(&self, request: Request<Body>) -> (u16, String) {
        let answer = self.send(request).await;
        let status = answer.status().as_u16();
        if let Some(to) = answer.headers().get(header::LOCATION) {
            return (status, to.to_str().unwrap().to_owned());
        }
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, form: &str) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn nobody_else_sees_or_changes_anything() {
    let visit = Visit::begin();
    for path in ["/", "/clusters", "/clusters/x/tasks/y", "/task-definitions/new", "/live"] {
        assert_eq!(visit.ask(get(path)).await, (303, "/login".to_owned()), "{path}");
    }
    let answer = visit.ask(post("/clusters", "name=theirs")).await;
    assert_eq!(answer, (303, "/login".to_owned()));
    assert!(visit.control.list_clusters(None, None).unwrap().items.is_empty());
    let (status, page) = visit.ask(post("/login", "user=admin&password=guess")).await;
    assert!(status == 403 && page.contains("<form"), "{page}");
}

#[tokio::test]
async fn another_site_can_do_nothing_with_a_log_in() {
    let visit = Visit::logged_in().await;
    let mut foreign = post("/clusters", "name=theirs");
    foreign.headers_mut().insert(header::ORIGIN, "http://example.org".parse().unwrap());
    assert_eq!(visit.ask(foreign).await.0, 403);
    let mut rebound = get("/clusters");
    rebound.headers_mut().insert(header::HOST, "example.org".parse().unwrap());
    assert_eq!(visit.ask(rebound).await.0, 421);
    assert!(visit.control.list_clusters(None, None).unwrap().items.is_empty());
}

#[tokio::test]
async fn a_task_is_defined_run_and_stopped_by_forms() {
    let visit = Visit::logged_in().await;
    let made = visit.ask(post("/clusters", "name=blue")).await;
    assert_eq!(made, (303, "/clusters/blue".to_owned()));
    let form = "how=form&family=web&name=app&image=nginx&memory=64&cpu=10&ports=8080%3A80%2Fudp";
    let made = visit.ask(post("/task-definitions", form)).await;
    assert_eq!(made, (303, "/task-definitions/web/1".to_owned()));
    let (status, page) = visit.ask(get("/task-definitions/web/1")).await;
    assert!(status == 200 && page.contains("8080:80/udp"), "{page}");
    // No instance is there to run it: the page says why.
    let (status, page) = visit.ask(post("/clusters/blue/run-task", "definition=web&count=1")).await;
    assert_eq!(status, 400);
    assert!(page.contains("No Container Instances were found in your cluster."), "{page}");
    let gone = visit.ask(post("/task-definitions/web/1/deregister", "")).await;
    assert_eq!(gone, (303, "/task-definitions/web/1".to_owned()));
    assert!(visit.ask(get("/task-definitions/web/1")).await.1.contains("INACTIVE"));
    let (status, page) = visit.ask(post("/clusters/blue/tasks/none/stop", "")).await;
    assert!(status == 400 && page.contains("task"), "{page}");
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_said_beside_what_was_typed() {
    let visit = Visit::logged_in().await;
    let (status, page) = visit.ask(post("/clusters", "name=no%20name")).await;
    assert!(status != 303 && page.contains("<form"), "{page}");
    for (field, value, sentence) in [
        ("ports", "80%3Ax", "80:x"),
        ("ports", "70000%3A80", "70000:80"),
        ("memory", "much", "is not a whole number"),
    ] {
        let form = format!("how=form&family=typed-family&name=app&image=nginx&{field}={value}");
        let (status, page) = visit.ask(post("/task-definitions", &form)).await;
        assert!(status == 400 && page.contains(sentence), "{field}: {page}");
        assert!(page.contains("typed-family"), "{page}");
    }
    let (status, page) = visit.ask(post("/task-definitions", "how=json&json=%7B")).await;
    assert!(status == 400 && page.contains("{"), "{page}");
    assert_eq!(visit.ask(get("/clusters/nowhere/tasks/none")).await.0, 400);
}

#[tokio::test]
async fn a_name_is_text_on_every_page() {
    let visit = Visit::logged_in().await;
    let form = "how=form&family=%3Cscript%3E&name=%3Cscript%3E&image=%3Cscript%3E";
    let (_, page) = visit.ask(post("/task-definitions", form)).await;
    assert!(!page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn a_log_out_ends_the_log_in() {
    let visit = Visit::logged_in().await;
    assert_eq!(visit.ask(get("/clusters")).await.0, 200);
    assert_eq!(visit.ask(post("/logout", "")).await, (303, "/login".to_owned()));
    assert_eq!(visit.ask(get("/clusters")).await, (303, "/login".to_owned()));
}

/// What the answer to a log-in waits for.
struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Users for Slow {
    fn check(&self, _: &str, _: &str) -> bool {
        self.0.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20)).is_ok()
    }
}

/// On one thread: a log-in that waited there would keep the other page for ever.
#[tokio::test]
async fn a_log_in_that_waits_keeps_nobody_else() {
    let visit = Visit::begin();
    let (go_on, waits) = std::sync::mpsc::channel();
    let router = router(Arc::clone(&visit.control), Arc::new(Slow(std::sync::Mutex::new(waits))));
    let slow = Visit { router, ..visit };
    let (logged_in, ()) =
        tokio::join!(slow.ask(post("/login", "user=admin&password=secret")), async {
            assert_eq!(slow.ask(get("/login")).await.0, 200);
            go_on.send(()).unwrap();
        });
    assert_eq!(logged_in, (303, "/clusters".to_owned()));
}
