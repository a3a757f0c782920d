use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_types::image::{DOCKER_LAYER_GZIP, Manifest};
use bulkhead_types::image::{Descriptor, ImageConfig, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD};
use bulkhead_types::{Digest, Reference};
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderMap, StatusCode};
use tokio_util::task::TaskTracker;

use super::session::Session;
use super::{Progress, documents};
use crate::error::While;
use crate::images::parse;
use crate::{Content, ImageError, SMALL, StoredImage};

type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What waits for the disk, on threads of its own. It is not ended by an error elsewhere in the same
/// pull, so that the pull has to wait for it.
#[derive(Debug, Default)]
struct Work(TaskTracker);

/// How layers are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// At once.
    pub parallel: usize,
    /// How often one is asked for whose connection breaks.
    pub attempts: usize,
}

/// Why a blob has not arrived.
enum Fault {
    /// The connection has broken: another one may not.
    Broke(ImageError),
    Final(ImageError),
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// How often progress is reported.
const TICK: Duration = Duration::from_millis(100);

/// Nothing of it is at work any more when it returns.
pub(super) async fn pull(
    session: &Session,
    content: &Arc<Content>,
    reference: &Reference,
    limits: Limits,
    report: Report<'_>,
) -> Result<StoredImage, ImageError> {
    let work = Work::default();
    let pulled = pull_by(&work, session, content, reference, limits, report).await;
    work.0.close();
    work.0.wait().await;
    pulled
}

async fn pull_by(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    reference: &Reference,
    limits: Limits,
    report: Report<'_>,
) -> Result<StoredImage, ImageError> {
    let top = documents::fetch(session, reference, &reference.version()).await?;
    let (bytes, manifest) = documents::manifest(session, reference, &top).await?;
    let config = config(work, session, content, &manifest.config, limits.attempts).await?;
    let layers = layers(&manifest, &config)?;
    let id = manifest.config.digest;
    // Of an image that is here Docker says nothing about layers, and of a layer that is here only
    // that (moby: distribution/pull_v2.go, `pullSchema2Layers`; xfer/download.go).
    let here = |(layer, diff_id): &(Descriptor, Digest)| {
        content.contains(layer.digest) && content.has_layer(*diff_id)
    };
    if !layers.iter().all(here) {
        for (layer, _) in layers.iter().filter(|layer| !here(layer)) {
            report(Progress::line(layer.digest.short(), "Pulling fs layer"));
        }
        fetch_layers(work, session, content, &layers, limits, report).await?;
    }
    let content = Arc::clone(content);
    work.run(move || {
        let manifest = content.write(&bytes)?;
        content.link_image(id, manifest)?;
        Ok(StoredImage { id, manifest })
    })
    .await
}

async fn config(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    descriptor: &Descriptor,
    attempts: usize,
) -> Result<ImageConfig, ImageError> {
    if descriptor.size > SMALL {
        return Err(ImageError::BadImage("its configuration is larger than 4 MiB".to_owned()));
    }
    if !content.contains(descriptor.digest) {
        let silent: Heard<'_> = (&|_| {}, &|_| {});
        fetch_blob(work, session, content, descriptor, attempts, silent).await?;
    }
    parse(&content.read(descriptor.digest)?, "configuration", descriptor.digest)
}

/// Each layer's blob with its diff id.
fn layers(
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<(Descriptor, Digest)>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(ImageError::BadImage(format!(
            "its manifest has {} layers, its configuration {}",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    // Foreign layers name addresses to fetch from (CVE-2020-15157); file system images would be
    // parsed by the kernel.
    let kinds = [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP];
    if let Some(odd) =
        manifest.layers.iter().find(|layer| !kinds.contains(&layer.media_type.as_str()))
    {
        return Err(ImageError::BadImage(format!(
            "a layer is of the kind {:?}, which is not supported",
            odd.media_type
        )));
    }
    Ok(manifest.layers.iter().cloned().zip(diff_ids.iter().copied()).collect())
}

/// Downloads layers, some at once, and unpacks each as soon as it and those below are there.
async fn fetch_layers(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    layers: &[(Descriptor, Digest)],
    limits: Limits,
    report: Report<'_>,
) -> Result<(), ImageError> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let downloads = async {
        // Moved in, so that the channel closes with the last download.
        let sender = sender;
        let one =
            |index| download(work, session, content, layers, (index, limits.attempts), report);
        let downloads = (0..layers.len()).map(one);
        let mut downloads = futures_util::stream::iter(downloads).buffered(limits.parallel);
        while let Some(index) = downloads.try_next().await? {
            // Nobody listens any more if unpacking failed, and that error is the one returned.
            let _ = sender.send(index);
        }
        Ok(())
    };
    let unpacking = async {
        while let Some(index) = receiver.recv().await {
            let (descriptor, diff_id) = layers[index].clone();
            let short = descriptor.digest.short();
            if content.has_layer(diff_id) {
                continue;
            }
            let size = Some(descriptor.size);
            report(Progress {
                id: short.clone(),
                status: "Extracting".to_owned(),
                current: Some(0),
                total: size,
            });
            let parents: Vec<_> = layers[..index].iter().map(|(_, below)| *below).collect();
            let content = Arc::clone(content);
            work.run(move || content.unpack(&descriptor, diff_id, &parents)).await?;
            report(Progress::line(short, "Pull complete"));
        }
        Ok(())
    };
    futures_util::future::try_join(downloads, unpacking).await.map(drop)
}

async fn download(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    layers: &[(Descriptor, Digest)],
    (index, attempts): (usize, usize),
    report: Report<'_>,
) -> Result<usize, ImageError> {
    let (descriptor, diff_id) = &layers[index];
    let id = descriptor.digest.short();
    // An image may have the same layer twice; the first one fetches it.
    let repeated = layers[..index].iter().any(|(below, _)| below.digest == descriptor.digest);
    if repeated || content.contains(descriptor.digest) {
        if repeated || content.has_layer(*diff_id) {
            report(Progress::line(id, "Already exists"));
        } else {
            report(Progress::line(id, "Download complete"));
        }
        return Ok(index);
    }
    let last = std::sync::Mutex::new(None::<Instant>);
    let total = Some(descriptor.size);
    let arrived = |current| {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= TICK) || Some(current) == total {
            *last = Some(Instant::now());
            let status = "Downloading".to_owned();
            report(Progress { id: id.clone(), status, current: Some(current), total });
        }
    };
    let retrying = |status: &str| report(Progress::line(id.clone(), status));
    fetch_blob(work, session, content, descriptor, attempts, (&arrived, &retrying)).await?;
    report(Progress::line(id.clone(), "Verifying Checksum"));
    report(Progress::line(id, "Download complete"));
    Ok(index)
}

/// Who hears how many bytes have arrived, and what a retry is called.
type Heard<'a> = (&'a (dyn Fn(u64) + Send + Sync), &'a (dyn Fn(&str) + Send + Sync));

/// Fetches a blob into the store; it appears there only if size and digest are right. One whose
/// connection breaks is asked for again, each time a second later than the time before.
async fn fetch_blob(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    descriptor: &Descriptor,
    attempts: usize,
    (arrived, retrying): Heard<'_>,
) -> Result<(), ImageError> {
    let mut attempt = 1;
    loop {
        match try_blob(work, session, content, descriptor, arrived).await {
            Ok(()) => return Ok(()),
            Err(Fault::Broke(error)) if attempt < attempts => {
                tracing::info!("{}: {error}; attempt {attempt} of {attempts}", descriptor.digest);
                let unit = if attempt == 1 { "second" } else { "seconds" };
                retrying(&format!("Retrying in {attempt} {unit}"));
                tokio::time::sleep(Duration::from_secs(attempt as u64)).await;
                attempt += 1;
            }
            Err(Fault::Broke(error) | Fault::Final(error)) => return Err(error),
        }
    }
}

async fn try_blob(
    work: &Work,
    session: &Session,
    content: &Arc<Content>,
    descriptor: &Descriptor,
    arrived: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Fault> {
    let url = session.url(&format!("blobs/{}", descriptor.digest));
    let response = session.get(url, &HeaderMap::new()).await.map_err(Fault::Broke)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            let digest = descriptor.digest;
            let message = format!("blob unknown to registry: {digest}");
            return Err(ImageError::NotFound(message).into());
        }
        _ => return Err(session.refused("fetch a layer", response).await.into()),
    }
    let wrong_size = |found: u64| {
        ImageError::BadImage(format!(
            "{} should have {} bytes and has {}{found}",
            descriptor.digest,
            descriptor.size,
            if found > descriptor.size { "at least " } else { "" },
        ))
    };
    let mut body = response.into_body();
    let mut writer = content.writer()?;
    while let Some(piece) = session.piece(&mut body).await.map_err(Fault::Broke)? {
        let size = writer.size() + piece.len() as u64;
        if size > descriptor.size {
            return Err(wrong_size(size).into());
        }
        writer.write_all(&piece).doing(|| format!("write {}", descriptor.digest))?;
        arrived(size);
    }
    if writer.size() != descriptor.size {
        return Err(wrong_size(writer.size()).into());
    }
    let expected = descriptor.digest;
    Ok(work.run(move || writer.commit(Some(expected))).await.map(drop)?)
}

impl Work {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        match self.0.spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(std::io::Error::other(error)).doing(|| "store".to_owned()),
        }
    }
}
