//! The router behind a real socket, without an engine.

use axum::Router;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::*;

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

/// Sends requests one after the other on one connection to a server of its own.
async fn ask(requests: &[(&str, &str)]) -> Vec<Reply> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let (stop, stopped) = watch::channel(false);
    let routes = Router::new().route("/here", axum::routing::post(async || "here"));
    let listener = Listener::Unix(listener);
    let server = tokio::spawn(serve(listener, with_layers(complete(routes)), stopped, None));
    let stream = UnixStream::connect(&path).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let mut replies = Vec::new();
    for (method, path) in requests {
        let request = http::Request::builder()
            .method(*method)
            .uri(*path)
            .header("host", "docker")
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request");
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        replies.push(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
    }
    drop(sender);
    stop.send(true).expect("the server listens");
    server.await.expect("no panic").expect("no error");
    let _ = connection.await;
    replies
}

#[tokio::test]
async fn ping_works_with_and_without_a_version() {
    let replies = ask(&[("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.24/_ping")]).await;
    for reply in &replies {
        assert_eq!(reply.status, 200);
        for (name, value) in [
            ("api-version", "1.51"),
            ("ostype", "linux"),
            ("builder-version", "1"),
            ("docker-experimental", "false"),
            ("swarm", "inactive"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(reply.headers.get(name).and_then(|v| v.to_str().ok()), Some(value));
        }
    }
    assert_eq!(replies[0].body, "OK");
    assert_eq!(replies[1].headers["content-length"], "0");
    assert_eq!(replies[2].body, "OK");
}

#[tokio::test]
async fn what_is_not_there_is_dockers_404() {
    let requests =
        [("GET", "/nope"), ("GET", "/v1.51/nope"), ("GET", "/v1.51/here"), ("POST", "/v1.30/here")];
    let replies = ask(&requests).await;
    for reply in &replies[..3] {
        assert_eq!((reply.status, reply.body.as_str()), (404, r#"{"message":"page not found"}"#));
        assert_eq!(reply.headers["api-version"], "1.51");
    }
    assert_eq!((replies[3].status, replies[3].body.as_str()), (200, "here"));
}

#[tokio::test]
async fn a_client_that_is_too_new_is_told_so() {
    let reply = &ask(&[("GET", "/v1.60/_ping")]).await[0];
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.body,
        r#"{"message":"client version 1.60 is too new. Maximum supported API version is 1.51"}"#
    );
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_other_files_are_not() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("api.sock");
    drop(listen(&path, None).expect("a socket"));
    let _listener = listen(&path, None).expect("the stale one is replaced");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    assert!(listen(&file, None).is_err());
    assert!(listen(&directory.path().join("other"), Some("no such group")).is_err());
}
