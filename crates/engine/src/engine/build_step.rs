//! One RUN of a build: a throw-away container whose changes become a layer.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bulkhead_image::Layer;
use bulkhead_types::{BuildStep, Digest, Id, StepNetwork, Timestamp};
use rustix::fs::{Mode, OFlags};

use crate::blocking::{Blocking, blocking};
use crate::containers::{Entry, Record};
use crate::engine::start::Cause;
use crate::error::io_error;
use crate::namespaces::{NamespaceMode, NamespaceModes};
use crate::transaction::Transaction;
use crate::{
    Container, ContainerConfig, Engine, EngineError, HostConfig, LogDriver, NetworkMode,
    Networking, Stream, Streams, WaitCondition, user_ids,
};

impl Engine {
    /// Checks what holds for all steps of a build before the first of them, so that a wrong limit
    /// is refused also where every step is cached.
    pub fn check_steps(&self, host: &HostConfig) -> Result<(), EngineError> {
        let mut host = host.clone();
        crate::validate::check(&ContainerConfig::default(), &mut host)?;
        NamespaceModes::resolve(&self.containers.lock(), &host).map(drop)
    }

    /// Runs one throw-away container over the step's layers and commits its changes.
    ///
    /// `host` has what holds for all steps of a build: limits, hosts, the network. What the program
    /// writes goes to `output`, which holds it back as a pipe would; without a receiver it is
    /// thrown away.
    pub async fn run_step(
        self: &Arc<Self>,
        step: BuildStep,
        host: HostConfig,
        output: tokio::sync::mpsc::Sender<(Stream, String)>,
    ) -> Result<(u8, Option<Layer>), EngineError> {
        let engine = Arc::clone(self);
        let _unnamed = self.images.hold_content().await;
        let id = blocking(move |may_block| engine.create_step(may_block, step, host)).await?;
        // A build that is given up in the middle leaves nothing either.
        let _removal = RemoveOnDrop { engine: Arc::clone(self), id };
        let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
        let socket = self.attach(id, streams).await?;
        let ended = self.wait(id, WaitCondition::NextExit)?;
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.start_now(may_block, id, Cause::User)
        })
        .await?;
        let reading = tokio::task::spawn_blocking(move || read_frames(socket, &output));
        reading.await.map_err(|panic| EngineError::internal(panic.to_string()))?;
        let code = ended.await?;
        if code != 0 {
            return Ok((code, None));
        }
        // The end is still being taken down: the upper directory is read when nothing writes to it.
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        let layer = blocking(move |_| {
            let _guard = guard;
            let range = engine.containers.record(id)?.container.id_range;
            let directory = engine.data_dir.container(id)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let upper = rustix::fs::openat(&directory, "upper", flags, Mode::empty())
                .map_err(|errno| io_error("upper")(errno.into()))?;
            Ok(engine.content.commit_upper(upper.as_fd(), range)?)
        })
        .await?;
        Ok((code, layer))
    }

    fn create_step(
        &self,
        may_block: &Blocking,
        step: BuildStep,
        host: HostConfig,
    ) -> Result<Id, EngineError> {
        if step.arguments.is_empty() {
            return Err(EngineError::invalid("no command specified"));
        }
        let id = Id::random();
        let mut host = HostConfig {
            network_mode: match step.network {
                StepNetwork::OfBuild => host.network_mode,
                StepNetwork::None => NetworkMode::None,
                StepNetwork::Host => NetworkMode::Host,
            },
            log_driver: LogDriver::None,
            ..host
        };
        let mut config = ContainerConfig {
            user: step.user,
            env: step.environment,
            working_dir: step.working_directory,
            attach_stdout: true,
            attach_stderr: true,
            ..ContainerConfig::default()
        };
        crate::validate::check(&config, &mut host)?;
        let mut ids =
            user_ids::wanted(&config.user, &[], std::iter::empty(), &step.layers, &self.content)?;
        let words = step.arguments.iter().chain(&config.env).map(String::as_str);
        ids.extend(user_ids::named(words));
        let _creating = self.allocation.hold(may_block);
        let endpoints = self.networks.endpoints(&host.network_mode, Vec::new(), None)?;
        let (stack, id_range) = {
            let state = self.containers.lock();
            let modes = NamespaceModes::resolve(&state, &host)?;
            config.hostname = match &modes.network {
                NamespaceMode::Container(other) => {
                    state.entry(*other)?.record.container.config.hostname.clone()
                }
                _ => "buildkitsandbox".to_owned(),
            };
            let users = self.user_ids.namespace(&modes, &state, &host)?;
            let id_range = self.user_ids.lease(&state, users, &ids)?;
            (modes.network_stack(&host), id_range)
        };
        let container = Container {
            id,
            name: format!("build-{}", id.short()).parse().expect("hexadecimal digits are a name"),
            created: Timestamp::now(),
            image: step.base.to_string(),
            image_id: step.layers.last().copied().unwrap_or_else(|| Digest::of(b"")),
            config,
            host,
            arguments: step.arguments,
            id_range,
            state: crate::State::default(),
            restart_count: 0,
            endpoints,
            network: Networking::detached(stack),
            mounts: Vec::new(),
            log_path: String::new(),
        };
        let record = Record {
            container,
            layers: step.layers,
            stopped_by_user: false,
            throw_away: true,
            ended_unhealthy: false,
        };
        let mut transaction = Transaction::default();
        let container = record.container.clone();
        self.containers.insert(&mut transaction, Entry::new(record));
        transaction.commit(&self.records, may_block)?;
        self.events.container(&container, "create", &[]);
        Ok(id)
    }
}

struct RemoveOnDrop {
    engine: Arc<Engine>,
    id: Id,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let (engine, id) = (Arc::clone(&self.engine), self.id);
        self.engine.runtime.spawn(async move {
            if let Err(error) = engine.remove(id, true, true).await
                && error.class != crate::Class::NotFound
            {
                tracing::warn!(%error, "remove a build step");
            }
        });
    }
}

/// Reads Docker's frames until the socket ends and sends the text on; a character that lies across
/// two frames of a stream is put together.
fn read_frames(mut socket: UnixStream, sender: &tokio::sync::mpsc::Sender<(Stream, String)>) {
    let mut rest = [Vec::new(), Vec::new()];
    let mut header = [0; 8];
    while socket.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut payload = Vec::new();
        let read = (&mut socket).take(length.into()).read_to_end(&mut payload);
        if read.is_err() || sender.is_closed() {
            return;
        }
        let stream = if header[0] == 2 { Stream::Stderr } else { Stream::Stdout };
        let pending = &mut rest[usize::from(stream == Stream::Stderr)];
        pending.extend(payload);
        let whole = match std::str::from_utf8(pending) {
            Ok(text) => text.len(),
            // Incomplete at the end: wait for the rest. Wrong in the middle: show it as it is.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => pending.len(),
        };
        let text: Vec<u8> = pending.drain(..whole).collect();
        if !text.is_empty()
            && sender.blocking_send((stream, String::from_utf8_lossy(&text).into_owned())).is_err()
        {
            return;
        }
    }
}
