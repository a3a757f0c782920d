//! The client against registries that want more than they should get. The round trip with a good
//! one is in the tests of `bulkhead-registry`.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that answers by a function from the head of a request, and remembers the heads.
struct Server {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (own, seen) = (address.clone(), Arc::clone(&heads));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    head.push(byte[0]);
                    if head == [0x16] {
                        break; // the client tries TLS first
                    }
                }
                let Ok(head) = String::from_utf8(head) else { continue };
                let text = if head.starts_with('\x16') {
                    "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned()
                } else {
                    seen.lock().expect("no panic").push(head.clone());
                    answer(&own, &head)
                };
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

fn credentials() -> Credentials {
    Credentials {
        username: "me".to_owned(),
        password: "canary".to_owned(),
        identitytoken: String::new(),
    }
}

fn sends_password(head: &str) -> bool {
    head.to_lowercase().contains("authorization: basic")
}

async fn resolve(server: &Server) -> Result<Descriptor, ImageError> {
    let reference = format!("{}/app:1", server.address).parse().expect("a reference");
    RegistryClient::new(RegistryOptions::default()).resolve(&reference, Some(&credentials())).await
}

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{"x":1},"layers":[]}"#;

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_used_instead_of_it() {
    let server = Server::new(|own, head| {
        if head.starts_with("GET /token?service=s&scope=repository%3Aapp%3Apull&account=me ") {
            assert!(sends_password(head));
            return answer(200, "", r#"{"token":"t0ken"}"#);
        }
        if head.to_lowercase().contains("authorization: bearer t0ken") {
            return answer(200, "", MANIFEST);
        }
        let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"s\"");
        answer(401, &format!("WWW-Authenticate: {challenge}\r\n"), "")
    })
    .await;
    let found = resolve(&server).await.expect("a manifest");
    assert_eq!(found.digest, Digest::of(MANIFEST.as_bytes()));
    let heads = server.heads();
    assert_eq!(heads.len(), 3);
    assert!(!sends_password(&heads[0]) && !sends_password(&heads[2]));
}

#[tokio::test]
async fn an_index_is_for_all_that_it_names() {
    let entry = |architecture: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":7,
            "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            Digest::of(architecture.as_bytes())
        )
    };
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("s390x"), entry("amd64"));
    let server = Server::new(move |_, _| answer(200, "", &index)).await;
    let reference = format!("{}/app:1", server.address).parse().expect("a reference");
    let client = RegistryClient::new(RegistryOptions::default());
    let (_, platforms) = client.describe(&reference, None).await.expect("an index");
    let names: Vec<&str> = platforms.iter().map(|it| it.architecture.as_str()).collect();
    assert_eq!(names, ["s390x", "amd64"]);
    assert_eq!(server.heads().len(), 1, "only the index is asked for");
}

#[tokio::test]
async fn passwords_go_to_no_other_site() {
    for (realm, complaint) in [
        ("https://evil.example/token", "another site"),
        ("http://evil.example/token", "plain http"),
        ("https://169.254.169.254/token", "another site"),
        ("file:///etc/shadow", "no address"),
        ("", "no address"),
    ] {
        let server = Server::new(move |_, _| {
            let challenge = format!("Bearer realm=\"{realm}\"");
            answer(401, &format!("WWW-Authenticate: {challenge}\r\n"), "")
        })
        .await;
        let error = resolve(&server).await.expect_err(realm).to_string();
        // 'cannot be reached' is a machine without DNS: nothing was sent there either
        assert!(error.contains(complaint) || error.contains("reached"), "{realm}: {error}");
        assert!(!error.contains("canary"), "{error}");
        assert!(!server.heads().iter().any(|head| sends_password(head)), "{realm}");
    }
}

#[tokio::test]
async fn tags_are_listed_page_by_page() {
    let server = Server::new(|own, head| match head {
        head if head.contains("last=b ") => answer(200, "", r#"{"name":"app","tags":["c"]}"#),
        head if head.contains("/app/tags/list ") => {
            let link = format!("Link: <https://{own}/v2/app/tags/list?last=b>; rel=\"next\"\r\n");
            answer(200, &link, r#"{"name":"app","tags":["b","a"]}"#)
        }
        head if head.contains("/none/") => answer(200, "", r#"{"name":"none","tags":null}"#),
        head if head.contains("/circle/") => {
            let link = "Link: </v2/circle/tags/list>; rel=next\r\n";
            answer(200, link, r#"{"name":"circle","tags":["a"]}"#)
        }
        _ => answer(404, "", ""),
    })
    .await;
    let client = RegistryClient::new(RegistryOptions::default());
    let list = async |name: &str| {
        let reference = format!("{}/{name}", server.address).parse().expect("a reference");
        client.tags(&reference, None).await
    };
    assert_eq!(list("app").await.expect("two pages"), ["a", "b", "c"]);
    assert_eq!(list("none").await.expect("an empty list"), [""; 0]);
    assert_eq!(list("circle").await.expect("it ends"), ["a"]);
    let error = list("missing").await.expect_err("nothing there").to_string();
    assert!(error.contains("pull access denied"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_for_what_is_only_looked_at() {
    let mirror = Server::new(|_, head| match head.contains("/library/app/manifests/1 ") {
        true => answer(200, "", MANIFEST),
        false => answer(404, "", ""),
    })
    .await;
    let client = RegistryClient::new(RegistryOptions {
        registry_mirrors: vec![format!("http://{}", mirror.address).parse().expect("a mirror")],
        ..RegistryOptions::default()
    });
    let descriptor = client.resolve(&"app:1".parse().expect("a reference"), None).await;
    assert_eq!(descriptor.expect("the mirror has it").digest, Digest::of(MANIFEST.as_bytes()));
}

#[test]
fn a_mirror_is_an_address_without_a_path() {
    for (text, shown) in [
        ("http://127.0.0.1:5001", "http://127.0.0.1:5001/"),
        ("https://Mirror.example/", "https://mirror.example/"),
    ] {
        assert_eq!(text.parse::<Mirror>().expect(text).to_string(), shown);
    }
    for (text, part) in [
        ("mirror.example:5000", "such as https://"),
        ("ftp://mirror.example", "such as https://"),
        ("", "such as https://"),
        ("https://mirror.example/v2", "has a path"),
        ("https://mirror.example?x", "has a path"),
    ] {
        let error = text.parse::<Mirror>().expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[tokio::test]
async fn redirects_lose_the_authorization_and_never_loop() {
    let other = Server::new(|_, _| answer(200, "", MANIFEST)).await;
    let target = other.address.clone();
    let server = Server::new(move |_, head| {
        if !sends_password(head) {
            return answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
        }
        answer(307, &format!("Location: http://{target}/elsewhere\r\n"), "")
    })
    .await;
    // The way from a guess of TLS to plain http is open for an insecure registry itself only.
    let outcome = resolve(&server).await;
    let heads = other.heads();
    assert!(heads.iter().all(|head| !head.to_lowercase().contains("authorization")), "{heads:?}");
    assert!(outcome.is_ok() && heads.len() == 1, "{outcome:?}");

    let circle = Server::new(|_, _| answer(302, "Location: /v2/again\r\n", "")).await;
    let error = resolve(&circle).await.expect_err("a circle").to_string();
    assert!(error.contains("circles"), "{error}");
}

#[tokio::test]
async fn answers_are_no_longer_than_announced() {
    let server = Server::new(|_, head| {
        if head.contains("/blobs/") {
            return answer(200, "", &"x".repeat(5000));
        }
        let digest = Digest::of(b"x");
        let body = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}","size":100}},"layers":[]}}"#
        );
        answer(200, "", &body)
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let content = Arc::new(Content::open(directory.path()).expect("a store"));
    let reference = format!("{}/app:1", server.address).parse().expect("a reference");
    let client = RegistryClient::new(RegistryOptions::default());
    let pulled = client.pull(Arc::clone(&content), &reference, None, &|_| {}).await;
    let error = pulled.expect_err("too long").to_string();
    assert!(error.contains("should have 100 bytes"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).expect("there").count(), 0);
}

#[test]
fn secrets_are_not_shown() {
    let shown =
        format!("{:?}", Credentials { identitytoken: "canary".to_owned(), ..credentials() });
    assert!(!shown.contains("canary"), "{shown}");
}
