//! The container engine: Docker's meaning of containers, images, networks, volumes and events,
//! without HTTP.
//!
//! Crash-only: every decision is a store transaction before it is an effect, and [`Engine::open`]
//! is the one path that both a first start and a recovery take.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables)]

mod container;
mod error;
mod hosts;
mod links;
mod log_reader;
mod merge;
mod mounts;
mod names;
mod options;
mod pool;
mod ports;
mod restart;
mod signals;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_image::{Content, Credentials, Progress, StoredImage};
use bulkhead_spec::{Digest, Id, Reference, Timestamp, image};

pub use container::*;
pub use error::{Class, EngineError};
pub use options::Options;

/// One engine on one data directory. Cheap to share: put it in an [`Arc`].
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Takes the data directory's lock, finds or starts the warden, and makes what is found match
    /// what is recorded: adopts running containers, records exits that happened meanwhile, removes
    /// orphans, restarts what its policy says.
    pub async fn open(options: Options) -> Result<Arc<Self>, EngineError> {
        todo!()
    }

    pub fn options(&self) -> &Options {
        todo!()
    }

    pub fn content(&self) -> Arc<Content> {
        todo!()
    }

    // Containers: `name` is a name, an id or an unambiguous start of an id, as in Docker.

    pub async fn create(&self, create: CreateContainer) -> Result<Container, EngineError> {
        todo!()
    }

    pub async fn start(&self, name: &str) -> Result<Started, EngineError> {
        todo!()
    }

    /// Sends the stop signal, then SIGKILL after `timeout` seconds (the container's, else 10).
    pub async fn stop(
        &self,
        name: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<Stopped, EngineError> {
        todo!()
    }

    pub async fn restart(&self, name: &str, timeout: Option<i64>) -> Result<(), EngineError> {
        todo!()
    }

    /// `signal` as Docker reads it: `KILL`, `SIGKILL`, `9`.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        todo!()
    }

    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        todo!()
    }

    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        todo!()
    }

    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), EngineError> {
        todo!()
    }

    pub async fn rename(&self, name: &str, new: &str) -> Result<(), EngineError> {
        todo!()
    }

    pub fn container(&self, name: &str) -> Result<Container, EngineError> {
        todo!()
    }

    /// Newest first.
    pub fn containers(&self) -> Vec<Container> {
        todo!()
    }

    /// Resolves when the condition holds, with the exit code. The future is registered when this
    /// returns, so a start that comes later is not missed.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<u8, EngineError>> + Send + use<>, EngineError> {
        Ok(std::future::ready(Ok(0)))
    }

    /// A stream socket on which the container's output arrives (framed unless it has a terminal)
    /// and its stdin is sent; works before the start too.
    pub async fn attach(
        &self,
        name: &str,
        streams: Streams,
    ) -> Result<std::os::unix::net::UnixStream, EngineError> {
        todo!()
    }

    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        todo!()
    }

    /// Log records in order; with `follow`, until the container has ended.
    pub async fn logs(
        &self,
        name: &str,
        query: LogQuery,
    ) -> Result<tokio::sync::mpsc::Receiver<LogLine>, EngineError> {
        todo!()
    }

    pub async fn stats(&self, name: &str) -> Result<Stats, EngineError> {
        todo!()
    }

    /// The rows of ps(1) for the container's processes: (titles, rows).
    pub async fn top(&self, name: &str) -> Result<(Vec<String>, Vec<Vec<String>>), EngineError> {
        todo!()
    }

    /// Duplicates a namespace descriptor of a running container (`net` for `bulkhead netns attach`).
    pub async fn namespace(&self, name: &str, kind: &str) -> Result<OwnedFd, EngineError> {
        todo!()
    }

    // Exec.

    pub async fn exec_create(&self, container: &str, exec: CreateExec) -> Result<Id, EngineError> {
        todo!()
    }

    /// Starts it; the socket is as for [`Engine::attach`]. `None` when detached.
    pub async fn exec_start(
        &self,
        exec: &str,
        detach: bool,
        terminal_size: (u16, u16),
    ) -> Result<Option<std::os::unix::net::UnixStream>, EngineError> {
        todo!()
    }

    pub async fn exec_resize(
        &self,
        exec: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        todo!()
    }

    pub fn exec(&self, exec: &str) -> Result<ExecView, EngineError> {
        todo!()
    }

    // Images: `name` is a reference, an id or the start of one.

    pub fn images(&self) -> Result<Vec<Image>, EngineError> {
        todo!()
    }

    pub fn image(&self, name: &str) -> Result<Image, EngineError> {
        todo!()
    }

    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<Image, EngineError> {
        todo!()
    }

    pub async fn push(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<(Digest, u64), EngineError> {
        todo!()
    }

    pub async fn log_in(
        &self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<(), EngineError> {
        todo!()
    }

    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<image::Descriptor, EngineError> {
        todo!()
    }

    pub fn tag(&self, name: &str, reference: &Reference) -> Result<(), EngineError> {
        todo!()
    }

    /// Gives an image that a build or an import stored its names, in one transaction.
    pub fn add_image(
        &self,
        image: &StoredImage,
        references: &[Reference],
    ) -> Result<Image, EngineError> {
        todo!()
    }

    /// What was untagged and deleted, in Docker's order.
    pub async fn remove_image(
        &self,
        name: &str,
        force: bool,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        todo!()
    }

    /// Makes an image of one layer from a tar stream that can be read from `tar`.
    pub async fn import(
        &self,
        tar: OwnedFd,
        references: &[Reference],
        config: image::Config,
        message: &str,
    ) -> Result<Image, EngineError> {
        todo!()
    }

    // Networks, volumes.

    pub fn networks(&self) -> Vec<NetworkView> {
        todo!()
    }

    pub fn volumes(&self) -> Vec<Volume> {
        todo!()
    }

    pub async fn create_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume, EngineError> {
        todo!()
    }

    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        todo!()
    }

    // The engine itself.

    pub fn info(&self) -> Info {
        todo!()
    }

    /// Everything that happens from now on, after what the ring of the last 256 still has since
    /// `since`.
    pub fn events(
        &self,
        since: Option<Timestamp>,
    ) -> (Vec<Event>, tokio::sync::broadcast::Receiver<Event>) {
        todo!()
    }

    /// Stops every container, removes links, nftables, cgroups and mounts, and ends the warden.
    pub async fn tear_down(&self) -> Result<(), EngineError> {
        todo!()
    }

    // For builds: `docker-api` gives the builder an Executor over these.

    /// Runs one throw-away container over `layers` and commits its changes. Output goes to `output`.
    pub async fn run_step(
        &self,
        step: Step,
        output: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(u8, Option<bulkhead_image::Layer>), EngineError> {
        todo!()
    }

    pub fn cached_step(&self, key: Digest) -> Option<Vec<u8>> {
        todo!()
    }

    pub fn remember_step(&self, key: Digest, value: Vec<u8>) {
        todo!()
    }
}
