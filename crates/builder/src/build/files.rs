use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_archive::{Entry, Kind, Writer};
use bulkhead_image::{Content, ImageError, Layer};
use bulkhead_types::{Digest, Timestamp};

use super::run::SCRIPT;
use super::{Build, Running, now};
use crate::BuildError;
use crate::cache::{self, CachedStep};
use crate::copy::{Collected, CopyError, Transfer};
use crate::event::Vertex;
use crate::ignore::Ignore;
use crate::instruction::{Copy, Instruction};
use crate::owner::{self, ModeChange};
use crate::plan::Origin;
use crate::request::Executor;
use crate::state::{State, absolute};
use crate::view::View;

impl<E: Executor> Build<'_, E> {
    pub(super) async fn copy(
        &self,
        running: Running<'_>,
        state: &mut State,
        copy: &Copy,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let line = instruction.line;
        let vertex = running.vertex;
        let refused = |message: String| BuildError::Step { line, message };
        let faulty = |message: String| BuildError::Dockerfile { line, message };
        let expand = |text: &String| state.expand(text, self.plan.escape).map_err(faulty);
        let keyword = if copy.add { "ADD" } else { "COPY" };
        let expand_all =
            |words: &[String]| state.expand_all(words, self.plan.escape).map_err(faulty);
        let mut sources = expand_all(&copy.sources)?;
        let destination = expand(&copy.destination)?;
        let checksum = copy.checksum.as_ref().map(expand).transpose()?;
        let exclude = expand_all(&copy.exclude)?;
        let owner = copy.chown.as_ref().map(expand).transpose()?;
        let mode = copy.chmod.as_ref().map(expand).transpose()?;
        let mut files = Vec::new();
        for document in &copy.files {
            let mut content = document.file();
            if document.mark.expand {
                content = state.expand_document(&content, self.plan.escape).map_err(faulty)?;
            }
            files.push((document.mark.name.clone(), content));
        }
        let mut history = vec![keyword.to_owned()];
        history.extend(copy.from.iter().map(|from| format!("--from={from}")));
        history.extend(owner.iter().map(|owner| format!("--chown={owner}")));
        history.extend(mode.iter().map(|mode| format!("--chmod={mode}")));
        history.extend(checksum.iter().map(|checksum| format!("--checksum={checksum}")));
        history.extend(exclude.iter().map(|pattern| format!("--exclude={pattern}")));
        history.extend(sources.iter().cloned());
        history.extend(files.iter().map(|(name, _)| format!("<<{name}")));
        history.push(destination.clone());
        let history = history.join(" ");

        let lower = view(&self.content, &state.image.rootfs.diff_ids)?;
        let origin = self.plan.origin(running.stage, copy).map_err(faulty)?;
        let mut ignores = Vec::new();
        if !exclude.is_empty() {
            let pattern = Ignore::parse(&exclude.join("\n"));
            ignores
                .push(Arc::new(pattern.map_err(|pattern| {
                    refused(format!("--exclude: wrong pattern {pattern:?}"))
                })?));
        }
        let remote = self
            .fetch_sources(running, copy, &sources, &destination, checksum.as_deref(), line)
            .await?;
        let is_remote = remote.is_some();
        let source = match &origin {
            Origin::Context if let Some(remote) = remote => {
                sources = remote.sources;
                View::new(vec![remote.directory])
            }
            Origin::Context => {
                ignores.push(Arc::clone(&self.ignore));
                let context = self.context.try_clone();
                View::new(vec![context.map_err(|cause| BuildError::Io {
                    what: "open the build context".to_owned(),
                    cause,
                })?])
            }
            Origin::Stage(index) => match running.stages.get(index) {
                Some(stage) => view(&self.content, &stage.image.rootfs.diff_ids)?,
                // Only a trigger of the base image can name a stage that the plan did not see.
                None => {
                    return Err(refused(format!(
                        "{} names a stage that this target does not need otherwise",
                        instruction.text
                    )));
                }
            },
            Origin::Image(reference) => {
                let image = self.image(vertex, reference).await?;
                view(&self.content, &self.content.config(image.id)?.rootfs.diff_ids)?
            }
        };
        let working_directory = state.image.config.working_dir.clone();
        let add = copy.add;
        // What was fetched stays as it is, as Docker has it.
        let unpack = copy.unpack.unwrap_or(!is_remote);
        let seconds = Timestamp::now().as_second();
        let prepared = blocking(move || {
            let transfer = Transfer {
                keyword,
                source,
                from_context: origin == Origin::Context,
                ignores,
                owner: owner.map(|text| resolve_owner(&text, &lower)).transpose()?,
                lower,
                sources,
                files,
                working_directory,
                destination,
                mode: mode
                    .map(|text| ModeChange::parse(&text))
                    .transpose()
                    .map_err(CopyError::Refused)?,
                unpack: add && unpack,
                now: seconds,
            };
            let collected = transfer.collect()?;
            let digest = transfer.digest(&collected)?;
            Ok((transfer, collected, digest))
        })
        .await;
        let at = |error| at_line(error, line);
        let (transfer, collected, digest): (Transfer, Collected, Digest) = prepared.map_err(at)?;

        let key = cache::key([&state.chain.hex(), &history, &digest.hex()[..]]);
        if let Some(step) = self.cached(key) {
            self.done(vertex, state, key, step, true, history).await;
            return Ok(());
        }
        let content = Arc::clone(&self.content);
        let imported = blocking(move || {
            Ok(import(&content, move |to| transfer.write(&collected, BufWriter::new(to))))
        });
        let layer = imported.await.map_err(at)?.map_err(|failed| failed.at(line))?;
        if is_remote {
            self.forget_sources(running, line);
        }
        let layer = Some((layer.descriptor, layer.diff_id));
        let step = CachedStep { layer, created: now() };
        self.done(vertex, state, key, step, false, history).await;
        Ok(())
    }

    /// Makes the directory where it is missing, for the stage's user as BuildKit does.
    pub(super) async fn working_directory(
        &self,
        vertex: &Vertex,
        state: &mut State,
        path: &str,
        line: usize,
    ) -> Result<(), BuildError> {
        let path = state
            .expand(path, self.plan.escape)
            .map_err(|message| BuildError::Dockerfile { line, message })?;
        let directory = absolute(&state.image.config.working_dir, &path);
        state.image.config.working_dir = directory.clone();
        let history = format!("WORKDIR {directory}");
        let key = cache::key([&state.chain.hex(), history.as_str(), &state.image.config.user]);
        if let Some(step) = self.cached(key) {
            self.done(vertex, state, key, step, true, history).await;
            return Ok(());
        }
        let user = state.image.config.user.clone();
        let layer = self.missing_directory(state, directory, user, Timestamp::now(), line).await?;
        let layer = layer.map(|layer| (layer.descriptor, layer.diff_id));
        let step = CachedStep { layer, created: now() };
        self.done(vertex, state, key, step, false, history).await;
        Ok(())
    }

    /// Layers with the directories of volumes that the image does not have. Docker's builder makes
    /// them with the step's container. They are below the step and not part of the image, which
    /// gets such a directory with the first file that a step leaves in it.
    pub(super) async fn volume_layers(
        &self,
        state: &State,
        line: usize,
    ) -> Result<Vec<Digest>, BuildError> {
        let mut layers = Vec::new();
        for volume in state.image.config.volumes.iter().flat_map(BTreeMap::keys) {
            let owner = String::new();
            // No time of its own, so that all builds make the same layer.
            let time = Timestamp::UNIX_EPOCH;
            let made = self.missing_directory(state, volume.clone(), owner, time, line).await?;
            layers.extend(made.map(|layer| layer.diff_id));
        }
        Ok(layers)
    }

    /// A layer with the directory, for `user`; `None` where it is there already.
    async fn missing_directory(
        &self,
        state: &State,
        directory: String,
        user: String,
        time: Timestamp,
        line: usize,
    ) -> Result<Option<Layer>, BuildError> {
        let lower = view(&self.content, &state.image.rootfs.diff_ids)?;
        let content = Arc::clone(&self.content);
        let made = blocking(move || {
            let found = lower.resolve(Path::new(&directory)).map_err(|cause| CopyError::Io {
                what: format!("look up {directory} in the image"),
                cause,
            })?;
            match &found.node {
                Some(node) if node.is_directory() => return Ok(None),
                Some(_) => {
                    return Err(CopyError::Refused(format!("{directory} is not a directory")));
                }
                None => {}
            }
            let owner = match user.as_str() {
                "" => None,
                user => Some(resolve_owner(user, &lower)?),
            };
            let directory = Transfer::of_directory(lower, owner, time.as_second());
            let path: PathBuf = found.path;
            Ok(Some(import(&content, move |to| {
                directory.write_directory(&path, BufWriter::new(to))
            })))
        });
        let layer = made.await.map_err(|error| at_line(error, line))?.transpose();
        layer.map_err(|failed| failed.at(line))
    }

    /// A layer that holds nothing but an executable script.
    pub(super) async fn script_layer(&self, script: String) -> Result<Layer, BuildError> {
        let content = Arc::clone(&self.content);
        let made = blocking(move || {
            Ok(import(&content, move |to| {
                let failed = |cause| CopyError::Io { what: "write the script".to_owned(), cause };
                let kind = Kind::File { size: script.len() as u64 };
                let entry = Entry { mode: 0o755, ..Entry::new(SCRIPT, kind) };
                let mut archive = Writer::new(to);
                archive.file(&entry, script.as_bytes()).map_err(failed)?;
                archive.finish().map(drop).map_err(failed)
            }))
        });
        made.await.map_err(|error| at_line(error, 0))?.map_err(|failed| failed.at(0))
    }
}

fn view(content: &Content, diff_ids: &[Digest]) -> Result<View, ImageError> {
    let layers = diff_ids.iter().map(|diff_id| content.layer(*diff_id));
    layers.collect::<Result<_, _>>().map(View::new)
}

fn resolve_owner(text: &str, view: &View) -> Result<owner::Owner, CopyError> {
    let resolved = owner::resolve(text, view)
        .map_err(|cause| CopyError::Io { what: "read the image's users".to_owned(), cause })?;
    resolved.map_err(CopyError::Refused)
}

/// Why there is no layer.
enum Failed {
    Copy(CopyError),
    Image(ImageError),
}

impl Failed {
    fn at(self, line: usize) -> BuildError {
        match self {
            Self::Copy(error) => at_line(error, line),
            Self::Image(error) => BuildError::Image(error),
        }
    }
}

fn at_line(error: CopyError, line: usize) -> BuildError {
    match error {
        CopyError::Io { what, cause } => BuildError::Io { what, cause },
        CopyError::Refused(message) => BuildError::Step { line, message },
    }
}

/// Stores what `write` sends through a pipe, so that no layer is ever whole in memory.
fn import(
    content: &Content,
    write: impl FnOnce(PipeWriter) -> Result<(), CopyError> + Send,
) -> Result<Layer, Failed> {
    let (reader, writer) = std::io::pipe()
        .map_err(|cause| Failed::Copy(CopyError::Io { what: "make a pipe".to_owned(), cause }))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write(writer));
        // The reading end is closed with the import, so the writer never waits for nobody.
        let imported = { content.import_layer(&mut BufReader::with_capacity(128 << 10, reader)) };
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (written, imported) {
            (Ok(()), Ok(layer)) => Ok(layer),
            (Err(CopyError::Io { cause, .. }), Err(error))
                if cause.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                Err(Failed::Image(error))
            }
            (Err(error), _) => Err(Failed::Copy(error)),
            (Ok(()), Err(error)) => Err(Failed::Image(error)),
        }
    })
}

/// Runs file work on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CopyError::Refused("the engine is shutting down".to_owned())),
        },
    }
}
