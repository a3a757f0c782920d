//! Uploads that go on over several requests.
//!
//! They live in memory and one temporary file each: after a restart a client starts the upload
//! again, which the specification asks of it anyhow.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use bulkhead_image::BlobWriter;
use bulkhead_types::Digest;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};

use crate::Registry;
use crate::answer::{Answer, CONTENT_DIGEST, Refusal, empty, header};
use crate::request::{blocking, find, query};
use crate::route::Name;
use crate::store::random_name;

/// An upload that nobody has touched for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Each holds a file descriptor.
const OPEN_LIMIT: usize = 256;
/// Room for new uploads is made of those that were idle for this long.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

#[derive(Debug)]
struct Upload {
    name: Name,
    /// `None` while a request writes.
    writer: Option<BlobWriter>,
    touched: Instant,
}

impl Uploads {
    fn add(&self, name: Name, writer: BlobWriter) -> Result<String, Refusal> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut uploads, IDLE);
        if uploads.len() >= OPEN_LIMIT {
            forget(&mut uploads, IDLE_WHEN_FULL);
        }
        if uploads.len() >= OPEN_LIMIT {
            return Err(Refusal::new(429, "TOOMANYREQUESTS", "too many uploads are open"));
        }
        let id = random_name();
        let upload = Upload { name, writer: Some(writer), touched: Instant::now() };
        uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Takes the writer for the time of a request. An upload is known to its repository only.
    fn take<'a>(&'a self, name: &Name, id: &str) -> Result<Taken<'a>, Refusal> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut uploads, IDLE);
        let upload =
            uploads.get_mut(id).filter(|upload| upload.name == *name).ok_or_else(unknown)?;
        upload.touched = Instant::now();
        let Some(writer) = upload.writer.take() else {
            return Err(Refusal::new(
                409,
                "BLOB_UPLOAD_INVALID",
                "another request writes to this upload",
            ));
        };
        Ok(Taken { uploads: self, id: id.to_owned(), writer: Some(writer) })
    }

    fn remove(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn forget(uploads: &mut HashMap<String, Upload>, idle: Duration) {
    uploads.retain(|_, upload| upload.writer.is_none() || upload.touched.elapsed() < idle);
}

/// A writer that returns to its upload, also when the client hangs up in the middle.
struct Taken<'a> {
    uploads: &'a Uploads,
    id: String,
    writer: Option<BlobWriter>,
}

impl Taken<'_> {
    fn writer(&mut self) -> &mut BlobWriter {
        self.writer.as_mut().expect("it is only given away by finish, which takes self")
    }

    /// Ends the upload and gives the writer away.
    fn finish(mut self) -> BlobWriter {
        self.uploads.remove(&self.id);
        self.writer.take().expect("it is only given away here")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let mut uploads = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(upload) = uploads.get_mut(&self.id) {
                upload.writer = Some(writer);
                upload.touched = Instant::now();
            }
        }
    }
}

/// `POST /v2/NAME/blobs/uploads/`: mounts, takes a whole blob, or starts an upload.
pub(crate) async fn start(registry: Arc<Registry>, name: Name, request: Request) -> Answer {
    let query = query(&request);
    if let (Some(digest), Some(from)) = (find(&query, "mount"), find(&query, "from"))
        && let (Ok(digest), Some(from)) = (digest.parse(), Name::parse(from))
        && registry.store.mount(&from, &name, digest)?
    {
        return Ok(created(&name, digest));
    }
    let mut writer = registry.store.content.writer()?;
    if let Some(digest) = find(&query, "digest") {
        let digest = parse_digest(digest)?;
        receive(request, &mut writer).await?;
        return commit(registry, name, writer, digest).await;
    }
    let id = registry.uploads.add(name.clone(), writer)?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// `PATCH`: the next piece.
pub(crate) async fn append(registry: &Registry, name: &Name, id: &str, request: Request) -> Answer {
    let mut taken = registry.uploads.take(name, id)?;
    check_range(request.headers(), name, id, taken.writer().size())?;
    receive(request, taken.writer()).await?;
    Ok(progress(StatusCode::ACCEPTED, name, id, taken.writer().size()))
}

/// `PUT`: the last piece, if there is one, and the digest of the whole.
pub(crate) async fn finish(
    registry: Arc<Registry>,
    name: Name,
    id: &str,
    request: Request,
) -> Answer {
    let query = query(&request);
    let digest = parse_digest(find(&query, "digest").unwrap_or_default())?;
    let mut taken = registry.uploads.take(&name, id)?;
    check_range(request.headers(), &name, id, taken.writer().size())?;
    receive(request, taken.writer()).await?;
    let writer = taken.finish();
    commit(Arc::clone(&registry), name, writer, digest).await
}

/// `GET`: how far an upload is.
pub(crate) fn state(registry: &Registry, name: &Name, id: &str) -> Answer {
    let size = registry.uploads.take(name, id)?.writer().size();
    Ok(progress(StatusCode::NO_CONTENT, name, id, size))
}

/// `DELETE`: gives an upload up.
pub(crate) fn cancel(registry: &Registry, name: &Name, id: &str) -> Answer {
    drop(registry.uploads.take(name, id)?.finish());
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn commit(registry: Arc<Registry>, name: Name, writer: BlobWriter, digest: Digest) -> Answer {
    blocking(move || {
        registry.store.add_blob(&name, writer, digest)?;
        Ok(created(&name, digest))
    })
    .await
}

/// Writes a body as it comes. What a client leaves unsent may follow in another request.
async fn receive(request: Request, writer: &mut BlobWriter) -> Result<(), Refusal> {
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| {
            Refusal::new(400, "BLOB_UPLOAD_INVALID", "the body broke off; send the rest again")
        })?;
        writer.write_all(&piece)?;
    }
    Ok(())
}

/// Pieces come in order and without gaps: `Content-Range: FIRST-LAST`, if it is given.
fn check_range(headers: &HeaderMap, name: &Name, id: &str, size: u64) -> Result<(), Refusal> {
    let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(()) };
    let range = range.to_str().ok().map(|text| text.strip_prefix("bytes ").unwrap_or(text));
    let range = range.and_then(|text| text.split('/').next()?.split_once('-'));
    let range = range
        .and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let fits = range.is_some_and(|(first, last)| {
        first == size
            && last
                .checked_sub(first)
                .and_then(|rest| rest.checked_add(1))
                .is_some_and(|announced| length.is_none_or(|length: u64| length == announced))
    });
    if fits {
        return Ok(());
    }
    let message = format!("the upload has {size} bytes, and the next piece must start there");
    let mut refusal = Refusal::new(416, "BLOB_UPLOAD_INVALID", message);
    *refusal.headers = progress(StatusCode::OK, name, id, size).headers().clone();
    Err(refusal)
}

fn created(name: &Name, digest: Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let location = header(format!("/v2/{}/blobs/{digest}", name.as_str()));
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CONTENT_DIGEST, header(digest));
    response
}

fn progress(status: StatusCode, name: &Name, id: &str, size: u64) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(format!("/v2/{}/blobs/uploads/{id}", name.as_str())));
    // `0-0` says one byte or none; Docker's registry writes the same for both.
    headers.insert(RANGE, header(format!("0-{}", size.saturating_sub(1))));
    headers.insert(HeaderName::from_static("docker-upload-uuid"), header(id));
    response
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::new(400, "DIGEST_INVALID", "the digest is not a sha256 one"))
}

fn unknown() -> Refusal {
    Refusal::new(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}
