use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_types::image::{Descriptor, OCI_MANIFEST};
use bulkhead_types::{Digest, Reference};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::Progress;
use super::session::Session;
use crate::{Content, ImageError, StoredImage};

type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// `parallel` layers are sent at once.
pub(super) async fn push(
    session: &Session,
    content: &Arc<Content>,
    image: &StoredImage,
    reference: &Reference,
    parallel: usize,
    report: Report<'_>,
) -> Result<(Digest, u64), ImageError> {
    let manifest = content.manifest(image.id)?;
    let mut layers = Vec::<Descriptor>::new();
    for layer in &manifest.layers {
        if !layers.iter().any(|known| known.digest == layer.digest) {
            report(Progress::line(layer.digest.short(), "Preparing"));
            layers.push(layer.clone());
        }
    }
    for layer in layers.iter().skip(parallel) {
        report(Progress::line(layer.digest.short(), "Waiting"));
    }
    let uploads = layers.into_iter().map(|layer| async move {
        let (id, size) = (layer.digest.short(), layer.size);
        let sending = |current| {
            let (id, status) = (id.clone(), "Pushing".to_owned());
            report(Progress { id, status, current: Some(current), total: Some(size) });
        };
        let sent = upload(session, content, &layer, &sending).await?;
        let status = if sent { "Pushed" } else { "Layer already exists" };
        report(Progress::line(id, status));
        Ok::<_, ImageError>(())
    });
    futures_util::stream::iter(uploads).buffer_unordered(parallel).try_collect::<()>().await?;
    upload(session, content, &manifest.config, &|_| {}).await?;

    let bytes = Bytes::from(content.read(image.manifest)?);
    let kind = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_str(kind)
        .map_err(|_| ImageError::BadImage("its manifest is of no known kind".to_owned()))?;
    headers.insert(CONTENT_TYPE, kind);
    let payload = || {
        let body = Full::new(bytes.clone()).map_err(|never| match never {}).boxed();
        Ok((body, bytes.len() as u64))
    };
    // With a digest and no tag, the digest itself is the name; another one would be refused.
    let version = reference.tag().map_or_else(|| image.manifest.to_string(), str::to_owned);
    let url = session.url(&format!("manifests/{version}"));
    let response = session.call(Method::PUT, url, &headers, Some(&payload)).await?;
    if !response.status().is_success() {
        return Err(session.refused("push the manifest", response).await);
    }
    Ok((image.manifest, bytes.len() as u64))
}

/// Sends a blob. `false`: the registry has it already.
async fn upload(
    session: &Session,
    content: &Arc<Content>,
    descriptor: &Descriptor,
    sent: &(dyn Fn(u64) + Send + Sync),
) -> Result<bool, ImageError> {
    let digest = descriptor.digest;
    let response = session.head(session.url(&format!("blobs/{digest}"))).await?;
    match response.status() {
        StatusCode::OK => return Ok(false),
        StatusCode::NOT_FOUND => {}
        _ => return Err(session.refused("look for a layer", response).await),
    }
    content.blob_size(digest)?;
    let start = session.url("blobs/uploads/");
    let response = session.call(Method::POST, start.clone(), &HeaderMap::new(), None).await?;
    if response.status() != StatusCode::ACCEPTED {
        return Err(session.refused("start an upload", response).await);
    }
    let mut url = session.location(&start, &response)?;
    let separator = if url.path.contains('?') { '&' } else { '?' };
    url.path = format!("{}{separator}digest={digest}", url.path);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let progress = Arc::new(AtomicU64::new(0));
    let payload = || {
        let file = content.blob(digest).map_err(std::io::Error::other)?;
        let length = file.metadata()?.len();
        progress.store(0, Ordering::Relaxed);
        let progress = Arc::clone(&progress);
        let file = tokio::fs::File::from_std(file);
        let pieces = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
        let pieces = pieces.map_ok(move |piece| {
            progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Frame::data(piece)
        });
        Ok((BodyExt::boxed(StreamBody::new(pieces)), length))
    };
    let call = session.call(Method::PUT, url, &headers, Some(&payload));
    let ticks = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tick.tick().await;
            sent(progress.load(Ordering::Relaxed));
        }
    };
    let response = tokio::select! {
        response = call => response?,
        () = ticks => unreachable!("ticks go on for ever"),
    };
    if response.status() != StatusCode::CREATED && !response.status().is_success() {
        return Err(session.refused("push a layer", response).await);
    }
    Ok(true)
}
