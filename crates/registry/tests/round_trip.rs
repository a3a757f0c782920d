//! The registry and the client of `bulkhead-image` against each other, and the server against
//! requests that no good client sends. All on loopback, on a port of the kernel's choice.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bulkhead_image::{
    Content, Credentials, ImageError, Layer, Progress, RegistryClient, RegistryOptions, StoredImage,
};
use bulkhead_registry::{Users, router};
use bulkhead_types::image::{ImageConfig, RootFs};
use bulkhead_types::{Digest, Reference};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct OneUser;

impl Users for OneUser {
    fn check(&self, user: &str, password: &str) -> bool {
        (user, password) == ("admin", "secret")
    }
}

struct Rig {
    directory: tempfile::TempDir,
    address: String,
    content: Arc<Content>,
    client: RegistryClient,
    lines: Mutex<Vec<String>>,
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let content = Content::open(&directory.path().join("engine")).expect("a store");
        let storage = directory.path().join("registry");
        std::fs::create_dir(&storage).expect("a directory");
        let router = router(&storage, Arc::new(OneUser)).expect("a registry");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            directory,
            address,
            content: Arc::new(content),
            client: RegistryClient::new(RegistryOptions::default()),
            lines: Mutex::default(),
        }
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().expect("a reference")
    }

    fn layer(&self, name: &str, text: &str) -> Layer {
        let source = tempfile::tempdir_in(self.directory.path()).expect("a directory");
        std::fs::write(source.path().join(name), text).expect("a file");
        let source = std::fs::File::open(source.path()).expect("a directory");
        self.content.commit_upper(source.as_fd(), None).expect("stored").expect("a change")
    }

    fn image(&self) -> (StoredImage, Vec<Layer>) {
        let layers = vec![self.layer("a", "first"), self.layer("b", "second")];
        let config = ImageConfig {
            architecture: bulkhead_types::image::Platform::host().architecture,
            os: "linux".to_owned(),
            variant: None,
            created: None,
            author: String::new(),
            config: Default::default(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history: Vec::new(),
        };
        let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        (self.content.write_image(&config, &descriptors).expect("stored"), layers)
    }

    fn report(&self) -> impl Fn(Progress) + Send + Sync {
        |progress: Progress| self.lines.lock().expect("no panic").push(progress.status)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = std::mem::take(&mut *self.lines.lock().expect("no panic"));
        lines.sort();
        lines.dedup();
        lines
    }

    async fn push(&self, image: &StoredImage, to: &str) -> Result<(Digest, u64), ImageError> {
        let to = self.reference(to);
        let credentials = credentials("secret");
        self.client
            .push(Arc::clone(&self.content), image, &to, Some(&credentials), &self.report())
            .await
    }

    async fn pull(&self, content: &Arc<Content>, from: &str) -> Result<StoredImage, ImageError> {
        let from = self.reference(from);
        let credentials = credentials("secret");
        self.client.pull(Arc::clone(content), &from, Some(&credentials), &self.report()).await
    }

    fn empty_content(&self, name: &str) -> Arc<Content> {
        Arc::new(Content::open(&self.directory.path().join(name)).expect("a store"))
    }

    /// Sends raw bytes after the request line, and returns status, headers and body as text.
    async fn raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.expect("it listens");
        let login = base64::engine::general_purpose::STANDARD.encode("admin:secret");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Basic {login}\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // A server that refuses may close before it has read everything.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
        (status, text)
    }
}

fn credentials(password: &str) -> Credentials {
    Credentials {
        username: "admin".to_owned(),
        password: password.to_owned(),
        identitytoken: String::new(),
    }
}

/// A header's value in a raw answer.
fn header(answer: &str, name: &str) -> Option<String> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

#[tokio::test]
async fn images_come_back_as_they_were_pushed() {
    let rig = Rig::new().await;
    let (image, layers) = rig.image();
    let (digest, size) = rig.push(&image, "team/deep/app:1").await.expect("push");
    assert_eq!(digest, image.manifest);
    assert_eq!(size, rig.content.blob_size(image.manifest).expect("stored"));
    let lines = rig.lines();
    for expected in ["Preparing", "Pushed"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
    }
    rig.push(&image, "team/deep/app:2").await.expect("push again");
    assert!(rig.lines().contains(&"Layer already exists".to_owned()));

    let other = rig.empty_content("other");
    let pulled = rig.pull(&other, "team/deep/app:1").await.expect("pull");
    assert_eq!(pulled, image);
    let lines = rig.lines();
    for expected in ["Pulling fs layer", "Download complete", "Extracting", "Pull complete"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
    }
    for layer in &layers {
        assert!(other.has_layer(layer.diff_id) && other.contains(layer.descriptor.digest));
    }
    assert_eq!(
        other.read(image.id).expect("config"),
        rig.content.read(image.id).expect("config"),
        "the configuration's bytes are the registry's"
    );
    rig.pull(&other, &format!("team/deep/app@{digest}")).await.expect("pull by digest");
    assert_eq!(
        rig.lines(),
        Vec::<String>::new(),
        "all of it is here, and Docker says nothing then"
    );
    let found = rig
        .client
        .resolve(&rig.reference("team/deep/app:1"), Some(&credentials("secret")))
        .await
        .expect("resolve");
    assert_eq!((found.digest, found.size), (digest, size));
    let described = rig
        .client
        .describe(&rig.reference("team/deep/app:1"), Some(&credentials("secret")))
        .await
        .expect("describe");
    assert_eq!(described.0, found);
    let config: ImageConfig =
        serde_json::from_slice(&rig.content.read(image.id).expect("config")).expect("config");
    let [platform] = described.1.as_slice() else { panic!("{described:?}") };
    assert_eq!((&platform.os, &platform.architecture), (&config.os, &config.architecture));
}

#[tokio::test]
async fn who_may_not_enter_is_told_so() {
    let rig = Rig::new().await;
    let (image, _) = rig.image();
    let right = Some(credentials("secret"));
    rig.client.log_in(&rig.address, right.as_ref()).await.expect("the right password");
    for (wrong, why) in [
        (Some(credentials("guess")), "unauthorized: incorrect username or password"),
        (None, "unauthorized: authentication required"),
    ] {
        let error = rig.client.log_in(&rig.address, wrong.as_ref()).await;
        assert_eq!(error.expect_err("it may not enter").to_string(), why);
    }
    let reference = rig.reference("app");
    for credentials in [None, Some(credentials("guess"))] {
        let content = Arc::clone(&rig.content);
        let pushed =
            rig.client.push(content, &image, &reference, credentials.as_ref(), &|_| {}).await;
        let message = pushed.expect_err("refused").to_string();
        assert_eq!(message, "unauthorized: authentication required");
    }
    let mut stream = tokio::net::TcpStream::connect(&rig.address).await.expect("it listens");
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(
        header(&answer, "www-authenticate").as_deref(),
        Some("Basic realm=\"Bulkhead registry\"")
    );
    assert!(answer.contains("\"code\":\"UNAUTHORIZED\""), "{answer}");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let rig = Rig::new().await;
    let message = rig.pull(&rig.content, "nobody/knows:1").await.expect_err("missing").to_string();
    let name = format!("{}/nobody/knows:1", rig.address);
    assert_eq!(
        message,
        format!("manifest for {name} not found: manifest unknown: manifest unknown")
    );
    // A port that nobody listens on any more.
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let reference = format!("{closed}/app").parse().expect("a reference");
    let error = rig.client.resolve(&reference, None).await.expect_err("nobody is there");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn damaged_content_is_not_taken() {
    let rig = Rig::new().await;
    let (image, layers) = rig.image();
    rig.push(&image, "app:1").await.expect("push");
    // Somebody wrote into the registry's files: same length, other bytes.
    let path = rig
        .directory
        .path()
        .join("registry/content/blobs/sha256")
        .join(layers[1].descriptor.digest.hex());
    let mut bytes = std::fs::read(&path).expect("the blob");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("damage");
    let other = rig.empty_content("other");
    let error = rig.pull(&other, "app:1").await.expect_err("damaged");
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
    assert!(other.stored(image.id).is_err() && !other.contains(layers[1].descriptor.digest));
    assert_eq!(temporary(&rig.directory.path().join("other")), 0);
}

fn temporary(content: &Path) -> usize {
    std::fs::read_dir(content.join("tmp")).expect("it is there").count()
}

#[tokio::test]
async fn blobs_are_seen_in_their_own_repository_only() {
    let rig = Rig::new().await;
    let digest = Digest::of(b"private");
    let (status, _) =
        rig.raw("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), "", b"private").await;
    assert_eq!(status, 201);
    let (status, answer) = rig.raw("GET", &format!("/v2/a/blobs/{digest}"), "", b"").await;
    assert!(status == 200 && answer.ends_with("private"), "{answer}");
    let path = format!("/v2/b/blobs/{digest}");
    let (status, answer) = rig.raw("GET", &path, "", b"").await;
    assert!(status == 404 && answer.contains("BLOB_UNKNOWN"), "{answer}");
    let mount =
        |to: &str, from: &str| format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
    assert_eq!(rig.raw("POST", &mount("b", "c"), "", b"").await.0, 202, "c has it not");
    assert_eq!(rig.raw("POST", &mount("b", "a"), "", b"").await.0, 201);
    let (status, answer) = rig.raw("GET", &path, "Range: bytes=3-5\r\n", b"").await;
    assert!(status == 206 && answer.ends_with("vat"), "{answer}");
    assert_eq!(rig.raw("GET", &path, "Range: bytes=7-\r\n", b"").await.0, 416);
    assert_eq!(rig.raw("DELETE", &format!("/v2/a/blobs/{digest}"), "", b"").await.0, 202);
    assert_eq!(rig.raw("GET", &path, "", b"").await.0, 200, "b keeps it");
    assert_eq!(rig.raw("DELETE", &path, "", b"").await.0, 202);
    assert_eq!(rig.raw("DELETE", &path, "", b"").await.0, 404);
}

#[tokio::test]
async fn chunks_come_in_order_or_not_at_all() {
    let rig = Rig::new().await;
    let start = async || {
        let (status, answer) = rig.raw("POST", "/v2/a/blobs/uploads/", "", b"").await;
        assert_eq!(status, 202);
        header(&answer, "location").expect("a place to go on")
    };
    let upload = start().await;
    let chunk = |range: &str| format!("Content-Range: {range}\r\n");
    for (range, body, expected) in [
        ("1-3", &b"bcd"[..], 416),
        ("0-2", b"abcd", 416),
        ("x", b"abc", 416),
        ("0-2", b"abc", 202),
        ("0-2", b"abc", 416),
        ("4-5", b"ef", 416),
        ("3-5", b"def", 202),
    ] {
        let (status, answer) = rig.raw("PATCH", &upload, &chunk(range), body).await;
        assert_eq!(status, expected, "{range}: {answer}");
    }
    let (status, answer) = rig.raw("GET", &upload, "", b"").await;
    assert_eq!((status, header(&answer, "range").as_deref()), (204, Some("0-5")));
    let elsewhere = upload.replace("/v2/a/", "/v2/b/");
    assert_eq!(rig.raw("PATCH", &elsewhere, "", b"x").await.0, 404);
    let digest = Digest::of(b"abcdefg");
    let (status, answer) = rig.raw("PUT", &format!("{upload}?digest={digest}"), "", b"g").await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(rig.raw("GET", &upload, "", b"").await.0, 404, "it is done");

    let upload = start().await;
    let (status, answer) = rig.raw("PUT", &format!("{upload}?digest={digest}"), "", b"x").await;
    assert!(status == 400 && answer.contains("DIGEST_INVALID"), "{answer}");
    let upload = start().await;
    assert_eq!(rig.raw("DELETE", &upload, "", b"").await.0, 204);
    assert_eq!(rig.raw("DELETE", &upload, "", b"").await.0, 404);
    assert_eq!(temporary(&rig.directory.path().join("registry/content")), 0);
}

#[tokio::test]
async fn manifests_are_checked_listed_and_deleted() {
    let rig = Rig::new().await;
    let (image, _) = rig.image();
    for tag in ["b", "a", "c"] {
        rig.push(&image, &format!("app:{tag}")).await.expect("push");
    }
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let bytes = rig.content.read(image.manifest).expect("the manifest");
    let (status, answer) = rig.raw("PUT", "/v2/other/manifests/x", kind, &bytes).await;
    assert!(status == 404 && answer.contains("MANIFEST_BLOB_UNKNOWN"), "{answer}");
    let (status, answer) = rig.raw("PUT", "/v2/app/manifests/x", kind, b"{").await;
    assert!(status == 400 && answer.contains("MANIFEST_INVALID"), "{answer}");
    let large = vec![b' '; (4 << 20) + 1];
    assert_eq!(rig.raw("PUT", "/v2/app/manifests/x", kind, &large).await.0, 413);
    let wrong = Digest::of(b"wrong");
    let path = format!("/v2/app/manifests/{wrong}");
    let (status, answer) = rig.raw("PUT", &path, kind, &bytes).await;
    assert!(status == 400 && answer.contains("DIGEST_INVALID"), "{answer}");

    let (_, answer) = rig.raw("GET", "/v2/app/tags/list?n=2", "", b"").await;
    assert!(answer.ends_with(r#"{"name":"app","tags":["a","b"]}"#), "{answer}");
    assert_eq!(
        header(&answer, "link").as_deref(),
        Some("</v2/app/tags/list?n=2&last=b>; rel=\"next\"")
    );
    let (_, answer) = rig.raw("GET", "/v2/app/tags/list?n=2&last=b", "", b"").await;
    assert!(answer.ends_with(r#""tags":["c"]}"#), "{answer}");
    let (_, answer) = rig.raw("GET", "/v2/_catalog", "", b"").await;
    assert!(answer.ends_with(r#"{"repositories":["app"]}"#), "{answer}");
    assert_eq!(rig.raw("GET", "/v2/_catalog?n=-1", "", b"").await.0, 400);
    assert_eq!(rig.raw("GET", "/v2/nobody/tags/list", "", b"").await.0, 404);

    // An attachment is found by its subject.
    let mut attached: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    attached["artifactType"] = "text/x-note".into();
    attached["subject"] = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest, "size": bytes.len(),
    });
    let attached = attached.to_string();
    let (status, answer) =
        rig.raw("PUT", "/v2/app/manifests/note", kind, attached.as_bytes()).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(header(&answer, "oci-subject"), Some(image.manifest.to_string()));
    let path = format!("/v2/app/referrers/{}", image.manifest);
    let digest = Digest::of(attached.as_bytes()).to_string();
    for (query, there) in
        [("", true), ("?artifactType=text/x-note", true), ("?artifactType=x", false)]
    {
        let (status, answer) = rig.raw("GET", &format!("{path}{query}"), "", b"").await;
        assert_eq!((status, answer.contains(&digest)), (200, there), "{query}: {answer}");
    }

    assert_eq!(rig.raw("DELETE", "/v2/app/manifests/a", "", b"").await.0, 202);
    assert_eq!(rig.raw("HEAD", "/v2/app/manifests/a", "", b"").await.0, 404);
    assert_eq!(rig.raw("HEAD", "/v2/app/manifests/b", "", b"").await.0, 200);
    let path = format!("/v2/app/manifests/{}", image.manifest);
    assert_eq!(rig.raw("DELETE", &path, "", b"").await.0, 202);
    for gone in [path.as_str(), "/v2/app/manifests/b"] {
        assert_eq!(rig.raw("GET", gone, "", b"").await.0, 404, "{gone}");
    }
}

#[tokio::test]
async fn hostile_paths_leave_the_storage_alone() {
    let rig = Rig::new().await;
    let mut victim = std::fs::File::create(rig.directory.path().join("victim")).expect("a file");
    victim.write_all(b"untouched").expect("written");
    for path in [
        "/v2/../../victim/blobs/uploads/",
        "/v2/%2e%2e/%2e%2e/blobs/uploads/",
        "/v2/..%2f..%2fvictim/blobs/uploads/",
        "/v2/a/../b/blobs/uploads/",
        "/v2/A/blobs/uploads/",
        "/v2/a%00/blobs/uploads/",
        "/v2//blobs/uploads/",
    ] {
        let (status, answer) = rig.raw("POST", path, "", b"x").await;
        assert!(matches!(status, 400 | 404), "{path}: {answer}");
    }
    let repositories = rig.directory.path().join("registry/repositories");
    assert_eq!(std::fs::read_dir(repositories).expect("it is there").count(), 0);
    assert_eq!(
        std::fs::read(rig.directory.path().join("victim")).expect("it is there"),
        b"untouched"
    );
}
