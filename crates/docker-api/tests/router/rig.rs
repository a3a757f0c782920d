//! One engine in namespaces of its own, and its router.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use bulkhead_docker_api::Role;
use bulkhead_engine::{Engine, Options};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use rustix::thread::UnshareFlags;
use serde_json::Value;
use tower::ServiceExt;

pub struct Rig {
    pub engine: Arc<Engine>,
    router: axum::Router,
    run: PathBuf,
    directory: tempfile::TempDir,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("text")
    }
}

/// New network and mount namespaces for the whole process, with `lo` up and nothing shared.
pub fn enter_own_namespaces() {
    bulkhead_sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).expect("tests run as root");
    let recursive =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", recursive).expect("mounts can be made private");
    let own = std::fs::File::open("/proc/self/ns/net").expect("/proc is mounted");
    let host = bulkhead_network::Host::open().expect("netlink");
    host.loopback_up(std::os::fd::AsFd::as_fd(&own)).expect("lo can be brought up");
}

impl Rig {
    pub async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("router").tempdir().expect("a directory");
        let name = directory.path().to_string_lossy().replace(['/', '.'], "-");
        let run = directory.path().join("run");
        let options = Options {
            data: directory.path().join("data"),
            run: run.clone(),
            bridge: "bulkhead0".to_owned(),
            bridge_address: Some(("172.29.0.1".parse().expect("an address"), 24)),
            cgroup_parent: format!("bulkhead-test{name}"),
            ..Options::new(std::env::current_exe().expect("/proc is mounted"))
        };
        let engine = Engine::open(options).await.expect("the engine opens");
        let (shutdown, _) = tokio::sync::watch::channel(false);
        let router = bulkhead_docker_api::router(Arc::clone(&engine), shutdown, Role::default());
        Self { engine, router, run, directory }
    }

    /// Another socket's router over the same engine.
    pub fn limited(&self, role: &str) -> axum::Router {
        let (shutdown, _) = tokio::sync::watch::channel(false);
        let role = role.parse().expect("a role");
        bulkhead_docker_api::router(Arc::clone(&self.engine), shutdown, role)
    }

    /// Where everything of this rig is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The answer's head; its body comes as it is read.
    pub async fn open(&self, method: &str, path: &str, body: Body) -> Response<Body> {
        Self::open_by(&self.router, method, path, body).await
    }

    async fn open_by(
        router: &axum::Router,
        method: &str,
        path: &str,
        body: Body,
    ) -> Response<Body> {
        let kind = if path.contains("/create?from") || path.contains("/archive") {
            "application/x-tar"
        } else {
            "application/json"
        };
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        let request = request.header("content-type", kind).body(body).expect("a request");
        router.clone().oneshot(request).await.expect("it cannot fail")
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Reply {
        Self::send_by(&self.router, method, path, body).await
    }

    pub async fn send_by(
        router: &axum::Router,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> Reply {
        let response = Self::open_by(router, method, path, body.into()).await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        Reply { status, headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, Body::empty()).await
    }

    /// Makes the image `box`, from a body in pieces.
    pub async fn import(&self) {
        let pieces = busybox().chunks(60_000).map(|piece| Ok(piece.to_vec())).collect::<Vec<_>>();
        let changes = "changes=ENV%20PATH%3D%2Fbin";
        let path = format!("/v1.51/images/create?fromSrc=-&repo=box&{changes}");
        let body = Body::from_stream(futures_util::stream::iter(
            pieces.into_iter().collect::<Vec<Result<Vec<u8>, std::io::Error>>>(),
        ));
        let reply = self.send("POST", &path, body).await;
        assert!(reply.status == 200 && reply.text().contains("sha256:"), "{reply:?}");
    }

    /// Creates a container of `box` that runs a script.
    pub async fn create(&self, name: &str, script: &str, more: Value) -> String {
        let mut body = serde_json::json!({ "Image": "box", "Cmd": ["sh", "-c", script] });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let path = format!("/v1.51/containers/create?name={name}");
        let reply = self.send("POST", &path, body.to_string()).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["Id"].as_str().expect("an id").to_owned()
    }

    pub async fn start(&self, name: &str) {
        let path = format!("/v1.51/containers/{name}/start");
        let reply = self.send("POST", &path, Body::empty()).await;
        assert_eq!(reply.status, 204, "{reply:?}");
    }

    /// Ends everything and looks whether something is left.
    pub async fn done(&self) -> bool {
        if let Err(error) = self.engine.tear_down().await {
            eprintln!("tear down: {error}");
            return false;
        }
        let links = std::fs::read_to_string("/proc/net/dev").expect("/proc is mounted");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let own = self.path().display().to_string();
        let is_clean = !links.contains("bh") && !mounts.contains(&own);
        if !is_clean {
            eprintln!("left: {links}{mounts}");
        }
        // The warden answers before it ends.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.run.join("warden.sock").exists() {
            assert!(std::time::Instant::now() < end, "the warden is still there");
            tokio::task::yield_now().await;
        }
        is_clean
    }
}

/// A tree with busybox, as an archive.
pub fn busybox() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let new = |kind, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header
    };
    for directory in ["bin", "etc", "tmp"] {
        let mut header = new(tar::EntryType::Directory, 0o755);
        archive.append_data(&mut header, directory, std::io::empty()).expect("tar");
    }
    archive.append_path_with_name("/bin/busybox", "bin/busybox").expect("tar");
    for name in ["sh", "cat", "echo", "sleep", "true", "head", "seq", "ls", "dd"] {
        let mut header = new(tar::EntryType::Symlink, 0o777);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox").expect("tar");
    }
    archive.into_inner().expect("tar")
}

/// A body that is cut off: the sender has gone.
pub fn cut(pieces: &[&[u8]]) -> Body {
    let sent = pieces.iter().map(|piece| Ok(piece.to_vec())).collect::<Vec<_>>();
    let gone = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the sender has gone");
    Body::from_stream(futures_util::stream::iter(sent.into_iter().chain([Err(gone)])))
}
