//! What the builder needs of the engine: images, and containers for RUN.

use std::fs::File;
use std::sync::Arc;

use bulkhead_builder::{BuildError, Event, Events, Executor, Fetched, Pull};
use bulkhead_engine::{Class, Engine, EngineError, HostConfig, Image};
use bulkhead_image::{DownloadError, Downloader, Layer, Progress, StoredImage};
use bulkhead_types::{BuildStep, Digest, Reference};
use tokio::sync::mpsc;

use crate::credentials::CredentialSource;

/// One build's view of the engine.
#[derive(Debug)]
pub(crate) struct EngineExecutor {
    pub(crate) engine: Arc<Engine>,
    pub(crate) credentials: CredentialSource,
    /// What holds for all steps.
    pub(crate) host: HostConfig,
}

impl Executor for EngineExecutor {
    async fn image(
        &self,
        reference: &Reference,
        pull: Pull,
        vertex: Digest,
        events: &Events,
    ) -> Result<StoredImage, BuildError> {
        let stored = |image: Image| StoredImage { id: image.id, manifest: image.manifest };
        if pull == Pull::IfMissing {
            match self.engine.images().find(&reference.to_string()) {
                Ok(image) => return Ok(stored(image)),
                Err(error) if error.class == Class::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        // Progress comes from threads that must not wait: it is little, and all of it is told.
        let (sender, mut receiver) = mpsc::unbounded_channel::<Progress>();
        let progress = Arc::new(move |progress| {
            let _ = sender.send(progress);
        });
        let credentials = self.credentials.of(reference.domain()).await;
        let pulling = self.engine.images().pull(reference, credentials, progress);
        let telling = async {
            while let Some(progress) = receiver.recv().await {
                events.send(Event::Progress { vertex, progress }).await;
            }
        };
        match tokio::join!(pulling, telling).0 {
            Ok(image) => Ok(stored(image)),
            Err(error) => Err(failed(error)),
        }
    }

    async fn fetch(
        &self,
        address: &str,
        to: File,
        vertex: Digest,
        events: &Events,
    ) -> Result<Fetched, BuildError> {
        let status = format!("Downloading {address}");
        let progress = Progress { id: String::new(), status, current: None, total: None };
        events.send(Event::Progress { vertex, progress }).await;
        let downloaded = Downloader::default().fetch(address, to).await;
        let file = downloaded.map_err(|error| BuildError::Executor(FetchError(error).into()))?;
        Ok(Fetched { digest: file.digest, modified: file.modified })
    }

    async fn run(
        &self,
        step: BuildStep,
        vertex: Digest,
        events: &Events,
    ) -> Result<Option<Layer>, BuildError> {
        let command = step.arguments.join(" ");
        let (sender, mut receiver) = mpsc::channel(ROOM);
        let running = self.engine.run_step(step, self.host.clone(), sender);
        let telling = async {
            while let Some((stream, text)) = receiver.recv().await {
                events.send(Event::Log { vertex, stream, text }).await;
            }
        };
        match tokio::join!(running, telling).0 {
            Ok((0, layer)) => Ok(layer),
            Ok((code, _)) => Err(BuildError::Failed { command, code }),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The engine's error as the builder passes it on; the service has it back whole.
fn failed(error: EngineError) -> BuildError {
    BuildError::Executor(error.into())
}

#[derive(Debug, thiserror::Error)]
#[error("ADD failed: {0}")]
struct FetchError(#[source] DownloadError);

/// Pieces of output that may wait; a piece is at most one read of the program's pipe.
const ROOM: usize = 16;
