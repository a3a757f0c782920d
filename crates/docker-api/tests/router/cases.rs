use std::future::Future;
use std::pin::Pin;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::rig::{Reply, Rig, busybox, cut};

type Case = for<'a> fn(&'a Rig) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |rig| Box::pin($name(rig)))),*];
    };
}

cases![
    refusals_have_dockers_statuses_and_sentences,
    filters_choose_and_are_refused_by_name,
    streams_come_in_pieces_and_end,
    a_reader_that_goes_is_let_go,
    half_sent_bodies_change_nothing,
    a_socket_with_labels_has_only_those_containers,
    a_socket_that_reads_changes_nothing,
];

async fn refusals_have_dockers_statuses_and_sentences(rig: &Rig) {
    rig.import().await;
    rig.create("made", "true", json!({})).await;
    let create = "/v1.51/containers/create";
    for (method, path, body, status, message) in [
        ("GET", "/v1.51/containers/none/json", "", 404, "No such container: none"),
        ("POST", "/v1.51/containers/none/start", "", 404, "No such container: none"),
        ("GET", "/v1.51/images/none/json", "", 404, "No such image: none:latest"),
        ("GET", "/v1.51/volumes/none", "", 404, "get none: no such volume"),
        ("GET", "/v1.51/networks/nowhere", "", 404, "network nowhere not found"),
        ("GET", "/v1.51/exec/none/json", "", 404, "No such exec instance: none"),
        ("GET", "/v1.51/nothing", "", 404, "page not found"),
        ("PATCH", "/v1.51/containers/json", "", 404, "page not found"),
        ("POST", create, r#"{"Image":"missing"}"#, 404, "No such image: missing:latest"),
        ("POST", "/v1.51/containers/made/stop", "", 304, ""),
        ("POST", "/v1.51/containers/made/kill", "", 409, "is not running"),
        (
            "POST",
            "/v1.51/containers/create?name=made",
            r#"{"Image":"box","Cmd":["true"]}"#,
            409,
            "is already in use",
        ),
        (
            "POST",
            "/v1.51/containers/create?name=-",
            r#"{"Image":"box","Cmd":["true"]}"#,
            400,
            "Invalid container name",
        ),
        ("POST", create, r#"{"Image":"box","Cmd":7}"#, 400, "Cmd is the number 7, and must be"),
        ("POST", create, r#"{"Image":"box""#, 400, ""),
        ("POST", create, "", 400, ""),
        ("GET", "/v1.51/containers/made/logs", "", 400, "you must choose at least one stream"),
        ("GET", "/v1.99/info", "", 400, "client version 1.99 is too new"),
        ("GET", "/v1.0/info", "", 400, "client version 1.0 is too old"),
        ("DELETE", "/v1.51/images/box", "", 409, "made"),
    ] {
        let reply = rig.send(method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {reply:?}");
        if status == 304 {
            assert!(reply.body.is_empty(), "{reply:?}");
            continue;
        }
        assert_eq!(reply.headers["content-type"], "application/json", "{path}: {reply:?}");
        let said = reply.message();
        assert!(!said.is_empty() && !said.contains('\n'), "{path}: {reply:?}");
        assert!(
            said.contains(message) || message == "made",
            "{path}: {said:?} without {message:?}"
        );
        let missing = reply.headers.get("bulkhead-missing").map(|value| value.as_bytes());
        let is_image = said.starts_with("No such image");
        assert_eq!(missing, is_image.then_some(&b"image"[..]), "{path}: {reply:?}");
    }
    // Nothing of what was refused is there.
    let names = names(&rig.get("/v1.51/containers/json?all=1").await);
    assert_eq!(names, ["/made"]);
}

fn names(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let all = reply.json();
    let mut names: Vec<String> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|container| container["Names"][0].as_str().expect("a name").to_owned())
        .collect();
    names.sort();
    names
}

fn encode(filters: &Value) -> String {
    let text = filters.to_string();
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

async fn filters_choose_and_are_refused_by_name(rig: &Rig) {
    rig.import().await;
    rig.create("one", "true", json!({ "Labels": { "tier": "web", "in": "" } })).await;
    rig.create("two", "true", json!({ "Labels": { "tier": "data" } })).await;
    rig.create("three", "sleep 1000", json!({ "Labels": { "tier": "web" } })).await;
    rig.start("three").await;
    for (all, filters, want) in [
        (0, json!({}), &["/three"][..]),
        (1, json!({}), &["/one", "/three", "/two"]),
        (1, json!({ "label": ["tier=web"] }), &["/one", "/three"]),
        (1, json!({ "label": { "tier=web": true, "in": true } }), &["/one"]),
        (1, json!({ "label": { "tier=web": true, "in": false } }), &["/one", "/three"]),
        (1, json!({ "name": ["^/?t"] }), &["/three", "/two"]),
        (1, json!({ "name": ["one", "two"] }), &["/one", "/two"]),
        // by status, all are asked
        (0, json!({ "status": ["created"] }), &["/one", "/two"]),
        (0, json!({ "status": ["running"], "label": ["tier=data"] }), &[]),
        (1, json!({ "ancestor": ["box"] }), &["/one", "/three", "/two"]),
        (1, json!({ "before": ["two"] }), &["/one"]),
        (1, json!({ "since": ["one"] }), &["/three", "/two"]),
    ] {
        let path = format!("/v1.51/containers/json?all={all}&filters={}", encode(&filters));
        assert_eq!(names(&rig.get(&path).await), want, "{filters}");
    }
    for (path, filters) in [
        ("containers/json", json!({ "colour": ["red"] })),
        ("images/json", json!({ "colour": ["red"] })),
        ("volumes", json!({ "colour": ["red"] })),
        ("networks", json!({ "colour": ["red"] })),
        ("events", json!({ "colour": ["red"] })),
        ("containers/json", json!({ "status": ["asleep"] })),
        ("containers/json", json!({ "name": ["("] })),
        ("containers/json", json!(["label"])),
        ("containers/json", json!({ "label": 7 })),
        ("containers/json", json!({ "before": ["nobody"] })),
    ] {
        let reply = rig.get(&format!("/v1.51/{path}?filters={}", encode(&filters))).await;
        let status = if filters.get("before").is_some() { 404 } else { 400 };
        assert_eq!(reply.status, status, "{path} {filters}: {reply:?}");
        assert!(!reply.message().is_empty(), "{path} {filters}: {reply:?}");
    }
    let reply = rig.get("/v1.51/containers/json?filters=%7B").await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

async fn streams_come_in_pieces_and_end(rig: &Rig) {
    rig.import().await;
    let script = "until [ -e /go ]; do sleep 0.01; done; echo one; echo two >&2; seq 3 2000";
    rig.create("talks", script, json!({})).await;
    let logs = "/v1.51/containers/talks/logs?stdout=1&stderr=1&follow=1";
    // One that does not run has said all that it had to say.
    let none = rig.get(logs).await;
    assert_eq!((none.status, none.body.len()), (200, 0), "{none:?}");
    rig.start("talks").await;
    // Asked for before there is anything: the head comes at once, and the body when there is some.
    let response = rig.open("GET", logs, Body::empty()).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("content-length").is_none());
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "application/vnd.docker.multiplexed-stream");
    let mut body = response.into_body();
    let wait = rig.send("POST", "/v1.51/containers/talks/wait?condition=next-exit", Body::empty());
    let mut go = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    go.append_data(&mut header, "go", std::io::empty()).expect("tar");
    let go = go.into_inner().expect("tar");
    let put = rig.send("PUT", "/v1.51/containers/talks/archive?path=/", go);
    let (waited, put) = tokio::join!(wait, put);
    assert_eq!((waited.json()["StatusCode"].clone(), put.status), (json!(0), 200), "{waited:?}");
    let (mut bytes, mut pieces) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame.expect("a piece").into_data().expect("data"));
        pieces += 1;
    }
    assert!(pieces > 1, "{pieces}");
    let (mut rest, mut texts) = (bytes.as_slice(), [String::new(), String::new()]);
    while let Some((head, more)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(head[4..].try_into().expect("four bytes")) as usize;
        let (text, more) = more.split_at(length);
        texts[usize::from(head[0]) - 1].push_str(std::str::from_utf8(text).expect("text"));
        rest = more;
    }
    let numbers: String = (3..=2000).map(|number| format!("{number}\n")).collect();
    assert_eq!(texts, [format!("one\n{numbers}"), "two\n".to_owned()]);
    // Events: one object a line, and an end where one was asked for.
    let filters = encode(&json!({ "container": ["talks"] }));
    let events = rig.get(&format!("/v1.51/events?since=0&until=1&filters={filters}")).await;
    assert_eq!((events.status, events.body.len()), (200, 0), "{events:?}");
    // until a second that is still to come, which is waited for
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = now.as_secs() + 2;
    let events = rig.get(&format!("/v1.51/events?since=0&until={until}&filters={filters}")).await;
    let actions: Vec<String> = events
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object a line"))
        .map(|event| event["Action"].as_str().expect("an action").to_owned())
        .collect();
    for action in ["create", "start", "die"] {
        assert!(actions.iter().any(|it| it == action), "{action}: {actions:?}");
    }
    // An archive of an image: whole, and a tar.
    let saved = rig.get("/v1.51/images/box/get").await;
    assert_eq!(saved.headers["content-type"], "application/x-tar");
    let mut archive = tar::Archive::new(&saved.body[..]);
    let names = archive
        .entries()
        .expect("an archive")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string());
    assert!(names.collect::<Vec<_>>().contains(&"manifest.json".to_owned()));
}

async fn a_reader_that_goes_is_let_go(rig: &Rig) {
    rig.import().await;
    // Far more than any buffer on the way holds.
    let script = "dd if=/dev/zero bs=1024 count=20000 2>/dev/null; echo end";
    rig.create("writes", script, json!({})).await;
    rig.start("writes").await;
    let logs = "/v1.51/containers/writes/logs?stdout=1&follow=1";
    let mut following = rig.open("GET", logs, Body::empty()).await.into_body();
    following.frame().await.expect("a piece").expect("no error");
    drop(following);
    let waited = rig.send("POST", "/v1.51/containers/writes/wait", Body::empty()).await;
    assert_eq!(waited.json()["StatusCode"], 0, "{waited:?}");
    let tail = rig.get("/v1.51/containers/writes/logs?stdout=1&tail=1").await;
    assert!(tail.body.ends_with(b"end\n"), "{tail:?}");
    // One that waits without end, and goes.
    rig.create("stays", "sleep 1000", json!({})).await;
    rig.start("stays").await;
    let events = rig.open("GET", "/v1.51/events", Body::empty()).await;
    drop(rig.open("GET", "/v1.51/containers/stays/logs?stdout=1&follow=1", Body::empty()).await);
    drop(events);
    let removed = rig.send("DELETE", "/v1.51/containers/stays?force=1", Body::empty()).await;
    assert_eq!(removed.status, 204, "{removed:?}");
}

async fn half_sent_bodies_change_nothing(rig: &Rig) {
    rig.import().await;
    rig.create("target", "true", json!({})).await;
    let whole = busybox();
    let half = &whole[..whole.len() / 2];
    let mut file = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4 << 20);
    header.set_mode(0o644);
    file.append_data(&mut header, "tmp/big", std::io::Read::take(std::io::repeat(b'x'), 4 << 20))
        .expect("tar");
    let file = file.into_inner().expect("tar");
    let images = || async { rig.get("/v1.51/images/json?all=1").await.json() };
    let before = images().await;
    for (method, path, body) in [
        ("POST", "/v1.51/containers/create?name=half", cut(&[br#"{"Image":"b"#])),
        ("POST", "/v1.51/containers/create?name=half", cut(&[br#"{"Image":"box"}"#])),
        ("POST", "/v1.51/images/create?fromSrc=-&repo=half", cut(&[half])),
        ("POST", "/v1.51/images/create?fromSrc=-&repo=half", cut(&[&whole])),
        ("POST", "/v1.51/images/load", cut(&[half])),
        ("POST", "/v1.51/build?t=half", cut(&[half])),
        ("PUT", "/v1.51/containers/target/archive?path=/", cut(&[&file[..file.len() / 2]])),
    ] {
        let reply = rig.send(method, path, body).await;
        // A stream has its status before its end, and says there what went wrong.
        let told = reply.status >= 400 || reply.text().contains("\"error\"");
        assert!(told, "{method} {path}: {reply:?}");
    }
    assert_eq!(images().await, before);
    assert_eq!(names(&rig.get("/v1.51/containers/json?all=1").await), ["/target"]);
    let builds = rig.path().join("data/builds");
    let left = std::fs::read_dir(&builds).map(|all| all.count()).unwrap_or(0);
    assert_eq!(left, 0, "contexts of builds are left");
    // A body that is no JSON to its end, or longer than any request is.
    let long = format!(r#"{{"Image":"box","Cmd":["{}"]}}"#, "x".repeat(40 << 20));
    let reply = rig.send("POST", "/v1.51/containers/create?name=half", long).await;
    assert!((400..500).contains(&reply.status), "{} {}", reply.status, reply.message());
}

async fn a_socket_with_labels_has_only_those_containers(rig: &Rig) {
    rig.import().await;
    rig.create("own", "sleep 1000", json!({ "Labels": { "tier": "web" } })).await;
    let other = rig.create("other", "sleep 1000", json!({ "Labels": { "tier": "data" } })).await;
    rig.start("own").await;
    rig.start("other").await;
    let exec = json!({ "Cmd": ["true"] });
    let others = rig.send("POST", "/v1.51/containers/other/exec", exec.to_string()).await;
    let others = others.json()["Id"].as_str().expect("an id").to_owned();
    let web = rig.limited("label=tier=web");
    let ask = async |method: &str, path: &str, body: &str| {
        Rig::send_by(&web, method, &format!("/v1.51{path}"), body.to_owned()).await
    };
    for filters in [
        json!({}),
        json!({ "label": ["tier"] }),
        json!({ "label": { "tier": true } }),
        json!({ "name": ["o"] }),
        json!({ "label": null }),
    ] {
        let path = format!("/containers/json?all=1&filters={}", encode(&filters));
        assert_eq!(names(&ask("GET", &path, "").await), ["/own"], "{filters}");
    }
    for filters in [json!({ "label": ["tier=data"] }), json!({ "label": "tier=data" })] {
        let path = format!("/containers/json?all=1&filters={}", encode(&filters));
        assert!(names(&ask("GET", &path, "").await).is_empty(), "{filters}");
    }
    let privileged = r#"{"Cmd":["true"],"Privileged":true}"#;
    let short = &other[..12];
    for (method, path, body, status) in [
        ("GET", "/containers/own/json", "", 200),
        ("GET", "/_ping", "", 200),
        ("POST", "/containers/own/restart?t=0", "", 204),
        ("POST", "/containers/own/exec", r#"{"Cmd":["true"]}"#, 201),
        ("POST", "/containers/own/exec", privileged, 403),
        ("GET", "/containers/other/json", "", 404),
        ("GET", "/containers/%6fther/json", "", 404),
        ("POST", "/containers/other/stop", "", 404),
        ("POST", "/containers/other/exec", r#"{"Cmd":["true"]}"#, 404),
        ("GET", "/containers/other/archive?path=/", "", 404),
        ("POST", &format!("/containers/{short}/kill"), "", 404),
        ("GET", &format!("/exec/{others}/json"), "", 404),
        ("POST", &format!("/exec/{others}/start"), "{}", 404),
        ("GET", "/images/json", "", 403),
        ("GET", "/info", "", 403),
        ("POST", "/containers/create", r#"{"Image":"box"}"#, 403),
        ("POST", "/bulkhead/containers/run", r#"{"Image":"box"}"#, 403),
        ("POST", "/bulkhead/down", "", 403),
        ("POST", "/containers/own/rename?name=x", "", 403),
        ("DELETE", "/containers/own?force=1", "", 403),
        ("POST", "/grpc", "", 403),
        ("GET", "/nothing", "", 403),
        ("GET", "/containers/json?filters=7", "", 400),
    ] {
        let reply = ask(method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        if status == 403 {
            assert!(reply.message().contains("label tier=web"), "{reply:?}");
        }
    }
    // Both have ended and started: what is told is of the own one.
    rig.send("POST", "/v1.51/containers/other/restart?t=0", "").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    let told = ask("GET", &format!("/events?since=1&until={now}"), "").await.text();
    assert!(told.contains("restart") && told.contains("tier"), "{told}");
    assert!(!told.contains("other") && !told.contains("data"), "{told}");
    assert!(told.lines().all(|line| line.contains(r#""Type":"container""#)), "{told}");
}

async fn a_socket_that_reads_changes_nothing(rig: &Rig) {
    rig.import().await;
    rig.create("box", "sleep 1000", json!({ "Env": ["PASSWORD=secret"] })).await;
    let reads = rig.limited("role=read-only");
    let ask = async |method: &str, path: &str| {
        Rig::send_by(&reads, method, &format!("/v1.51{path}"), String::new()).await
    };
    for path in [
        "/containers/json?all=1",
        "/containers/box/json",
        "/bulkhead/containers/json?all=1",
        "/images/json",
        "/images/box/json",
        "/networks",
        "/volumes",
        "/info",
        "/version",
        "/system/df",
        "/containers/box/logs?stdout=1",
    ] {
        let reply = ask("GET", path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(!reply.text().contains("secret"), "{path}");
    }
    assert_eq!(ask("GET", "/containers/box/json").await.json()["Config"]["Env"][0], "PASSWORD=***");
    for (method, path) in [
        ("GET", "/containers/box/logs?stdout=1&details=1"),
        ("POST", "/containers/box/start"),
        ("DELETE", "/containers/box"),
        ("POST", "/containers/box/attach?logs=1"),
        ("GET", "/containers/box/attach/ws"),
        ("GET", "/containers/box/archive?path=/etc"),
        ("GET", "/containers/box/export"),
        ("GET", "/images/box/get"),
        ("POST", "/containers/box/exec"),
        ("POST", "/volumes/create"),
        ("POST", "/images/prune"),
        ("POST", "/bulkhead/containers/box/exec"),
        ("POST", "/bulkhead/down"),
    ] {
        let reply = ask(method, path).await;
        assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
        assert!(reply.message().ends_with("which is read-only"), "{reply:?}");
    }
    assert_eq!(rig.get("/v1.51/containers/box/json").await.json()["State"]["Status"], "created");
}
