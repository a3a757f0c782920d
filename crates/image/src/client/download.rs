//! Fetches one file from an address, for `ADD https://…`: no registry, no credentials.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulkhead_types::{Digest, Hasher, Timestamp};
use http::header::{CONTENT_LENGTH, LAST_MODIFIED, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use super::connection::Connections;
use super::origin::{Origin, Url};

/// A file that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Download {
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
    /// What the server says of it (`Last-Modified`).
    pub modified: Option<Timestamp>,
}

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(
        "{0} is not an address that can be fetched: write it as http://HOST/PATH or https://HOST/PATH, without a user"
    )]
    Address(String),
    #[error("{address} cannot be reached: {cause}")]
    Unreachable { address: String, cause: io::Error },
    #[error("{address} answered {status}")]
    Status { address: String, status: StatusCode },
    #[error("{address} {problem}")]
    Refused { address: String, problem: &'static str },
    #[error("{address} broke off after {size} bytes: {cause}")]
    BrokeOff { address: String, size: u64, cause: io::Error },
    #[error("cannot keep what {address} sends: {cause}")]
    Write { address: String, cause: io::Error },
}

/// Fetches files. TLS certificates are always checked; plain HTTP is used where an address says so.
#[derive(Debug, Clone)]
pub struct Downloader {
    connections: Arc<Connections>,
}

impl Default for Downloader {
    fn default() -> Self {
        Self { connections: Arc::new(Connections::new(Vec::new())) }
    }
}

impl Downloader {
    /// Fetches `address` into `to`, which is empty, following redirects: never from TLS to plain
    /// text, and never from the world into an inside network.
    pub async fn fetch(&self, address: &str, to: File) -> Result<Download, DownloadError> {
        let whole = self.fetch_within_limits(address, to);
        tokio::time::timeout(TIME, whole).await.unwrap_or_else(|_| {
            Err(DownloadError::Refused {
                address: address.to_owned(),
                problem: "took more than an hour",
            })
        })
    }

    async fn fetch_within_limits(
        &self,
        address: &str,
        to: File,
    ) -> Result<Download, DownloadError> {
        let url = parse(address).ok_or_else(|| DownloadError::Address(address.to_owned()))?;
        let response = self.follow(address, url).await?;
        let refused = |problem| DownloadError::Refused { address: address.to_owned(), problem };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let announced = header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > LARGEST) {
            return Err(refused("is larger than 20 GiB"));
        }
        let modified = header(LAST_MODIFIED).and_then(http_date);
        let mut body = response.into_body();
        let mut to = tokio::fs::File::from_std(to);
        let mut hasher = Hasher::new();
        let mut size = 0;
        loop {
            let broke_off =
                |cause| DownloadError::BrokeOff { address: address.to_owned(), size, cause };
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| broke_off(io::ErrorKind::TimedOut.into()))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| broke_off(io::Error::other(error)))?;
            let Ok(bytes) = frame.into_data() else { continue };
            size += bytes.len() as u64;
            if size > LARGEST {
                return Err(refused("is larger than 20 GiB"));
            }
            hasher.update(&bytes);
            let written = to.write_all(&bytes).await;
            written.map_err(|cause| DownloadError::Write { address: address.to_owned(), cause })?;
        }
        let flushed = to.flush().await;
        flushed.map_err(|cause| DownloadError::Write { address: address.to_owned(), cause })?;
        Ok(Download { size, digest: hasher.finish(), modified })
    }

    /// Asks, and asks elsewhere as long as the answer says so.
    async fn follow(
        &self,
        address: &str,
        mut url: Url,
    ) -> Result<Response<Incoming>, DownloadError> {
        let refused = |problem| DownloadError::Refused { address: address.to_owned(), problem };
        let unreachable = |cause| DownloadError::Unreachable { address: address.to_owned(), cause };
        for _ in 0..=REDIRECTS {
            let request = Request::builder()
                .uri(&url.path)
                .body(Empty::new().map_err(|never| match never {}).boxed())
                .map_err(|_| DownloadError::Address(address.to_owned()))?;
            let answer = self.connections.send_as_written(&url.origin, request);
            let response = tokio::time::timeout(SILENCE, answer)
                .await
                .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
                .map_err(unreachable)?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => {}
                status => {
                    return Err(DownloadError::Status { address: address.to_owned(), status });
                }
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location
                .and_then(|location| url.join(location))
                .ok_or_else(|| refused("redirects to no usable address"))?;
            if url.origin.tls && !next.origin.tls {
                return Err(refused("redirects from https to http, which is refused"));
            }
            let inside = self.connections.is_internal(&next.origin).await.map_err(unreachable)?;
            let was_inside =
                self.connections.is_internal(&url.origin).await.map_err(unreachable)?;
            if inside && !was_inside {
                return Err(refused("redirects into an inside network, which is refused"));
            }
            url = next;
        }
        Err(refused("redirects in circles"))
    }
}

fn parse(address: &str) -> Option<Url> {
    let uri: http::Uri = address.parse().ok()?;
    if uri.authority()?.as_str().contains('@') {
        return None;
    }
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some(Url { origin: Origin::parse(address)?, path: path.to_owned() })
}

/// A date in HTTP's words (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
}

/// Bytes; as much as a layer may have.
const LARGEST: u64 = 20 << 30;

/// A server that sends nothing for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);

/// For the whole file.
const TIME: Duration = Duration::from_secs(3600);

const REDIRECTS: usize = 5;

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives each of its answers to one request, and where it listens.
    fn server(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = std::thread::spawn(move || {
            let mut paths = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).expect("text");
                paths.push(head.split(' ').nth(1).expect("a path").to_owned());
                stream.write_all(answer.as_bytes()).expect("sends");
            }
            paths
        });
        (address, serving)
    }

    #[tokio::test]
    async fn a_file_arrives_whole_or_not_at_all() {
        let found = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nLast-Modified: Thu, 01 Jan 1970 \
                     00:01:00 GMT\r\n\r\nhello";
        let moved = "HTTP/1.1 302 Found\r\nLocation: /b/file?x=y\r\nContent-Length: 0\r\n\r\n";
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
        let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let answers = [moved, found, cut, none].map(str::to_owned).to_vec();
        let (address, serving) = server(answers);
        let url = format!("{address}/a");
        let mut file = tempfile::tempfile().expect("a file");
        let downloader = Downloader::default();
        let fetch = async || downloader.fetch(&url, file.try_clone().expect("a file")).await;
        let download = fetch().await.expect("arrives");
        let modified = Timestamp::from_second(60).expect("a time");
        let digest = Digest::of(b"hello");
        assert_eq!(download, Download { size: 5, digest, modified: Some(modified) });
        let cut = fetch().await.expect_err("cut short");
        assert!(matches!(cut, DownloadError::BrokeOff { size: 5, .. }), "{cut}");
        let error = fetch().await.expect_err("not there").to_string();
        assert_eq!(error, format!("{url} answered 404 Not Found"));
        assert_eq!(serving.join().expect("it ends"), ["/a", "/b/file?x=y", "/a", "/a"]);
        let mut text = String::new();
        file.rewind().expect("seeks");
        file.read_to_string(&mut text).expect("reads");
        assert!(text.starts_with("hello"));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        for address in ["http://", "ftp://x/y", "http://user:secret@host/x", "x"] {
            let file = tempfile::tempfile().expect("a file");
            let error = Downloader::default().fetch(address, file).await.expect_err(address);
            assert!(matches!(error, DownloadError::Address(_)), "{error}");
        }
    }
}
