//! COPY and ADD: what is asked, the key under which its layer may be known, and the making of it.

use std::io::BufWriter;
use std::sync::Arc;

use bulkhead_image::Layer;
use bulkhead_types::{Digest, Timestamp};

use super::layer::{at_line, blocking, import, view};
use super::{Build, Running, now};
use crate::BuildError;
use crate::cache::{self, CachedStep};
use crate::copy::{Collected, CopyError, Transfer, resolve_owner};
use crate::ignore::Ignore;
use crate::instruction::{Copy, Instruction};
use crate::owner::ModeChange;
use crate::parse::Heredoc;
use crate::plan::Origin;
use crate::request::Executor;
use crate::state::State;
use crate::view::View;

/// An instruction with its variables expanded.
#[derive(Debug)]
struct Asked {
    /// `COPY` or `ADD`.
    keyword: &'static str,
    sources: Vec<String>,
    destination: String,
    checksum: Option<String>,
    exclude: Vec<String>,
    owner: Option<String>,
    mode: Option<String>,
    /// Here-documents: name and content.
    files: Vec<(String, String)>,
}

/// Where the files come from.
#[derive(Debug)]
struct Source {
    view: View,
    patterns: Vec<String>,
    ignores: Vec<Arc<Ignore>>,
    kind: SourceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Context,
    /// Files of the context's rights that were fetched.
    Fetched,
    /// A stage or an image: files keep their owners.
    Layers,
}

/// A transfer whose files were found.
#[derive(Debug)]
struct Prepared {
    transfer: Transfer,
    collected: Collected,
    /// Of all that the layer will hold.
    digest: Digest,
}

impl<E: Executor> Build<'_, E> {
    pub(super) async fn copy(
        &self,
        running: Running<'_>,
        state: &mut State,
        copy: &Copy,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let line = instruction.line;
        let asked = Asked::expand(copy, state, self.plan.escape)
            .map_err(|message| BuildError::Dockerfile { line, message })?;
        let history = asked.history(copy);
        let source = self.copy_source(running, copy, &asked, instruction).await?;
        let is_fetched = source.kind == SourceKind::Fetched;
        let lower = view(&self.content, &state.image.rootfs.diff_ids)?;
        let working_directory = state.image.config.working_dir.clone();
        // What was fetched stays as it is, as Docker has it.
        let unpack = copy.add && copy.unpack.unwrap_or(!is_fetched);
        let prepared = blocking(move || asked.prepare(source, lower, working_directory, unpack));
        let prepared = prepared.await.map_err(|error| at_line(error, line))?;

        let key = cache::key([&state.chain.hex(), &history, &prepared.digest.hex()[..]]);
        if let Some(step) = self.cached(key) {
            self.done(running.vertex, state, key, step, true, history).await;
            return Ok(());
        }
        let layer = self.copy_layer(prepared, line).await?;
        if is_fetched {
            self.forget_sources(running, line);
        }
        let layer = Some((layer.descriptor, layer.diff_id));
        let step = CachedStep { layer, created: now() };
        self.done(running.vertex, state, key, step, false, history).await;
        Ok(())
    }

    async fn copy_source(
        &self,
        running: Running<'_>,
        copy: &Copy,
        asked: &Asked,
        instruction: &Instruction,
    ) -> Result<Source, BuildError> {
        let line = instruction.line;
        let refused = |message: String| BuildError::Step { line, message };
        let origin = self
            .plan
            .origin(running.stage, copy)
            .map_err(|message| BuildError::Dockerfile { line, message })?;
        let mut ignores = Vec::new();
        if !asked.exclude.is_empty() {
            let ignore = Ignore::parse(&asked.exclude.join("\n"));
            let wrong = |pattern| refused(format!("--exclude: wrong pattern {pattern:?}"));
            ignores.push(Arc::new(ignore.map_err(wrong)?));
        }
        let patterns = asked.sources.clone();
        let (checksum, destination) = (asked.checksum.as_deref(), asked.destination.as_str());
        let fetched =
            self.fetch_sources(running, copy, &patterns, destination, checksum, line).await?;
        let layers = |view| Ok((view, SourceKind::Layers));
        let (view, kind) = match origin {
            Origin::Context if let Some(fetched) = fetched => {
                return Ok(Source {
                    view: View::new(vec![fetched.directory]),
                    patterns: fetched.sources,
                    ignores,
                    kind: SourceKind::Fetched,
                });
            }
            Origin::Context => {
                ignores.push(Arc::clone(&self.ignore));
                let what = "open the build context".to_owned();
                let context =
                    self.context.try_clone().map_err(|cause| BuildError::Io { what, cause })?;
                Ok((View::new(vec![context]), SourceKind::Context))
            }
            Origin::Stage(index) => match self.stage(index).await {
                Some(stage) => layers(view(&self.content, &stage.image.rootfs.diff_ids)?),
                // Only a trigger of the base image can name a stage that the plan did not see.
                None => Err(refused(format!(
                    "{} names a stage that this target does not need otherwise",
                    instruction.text
                ))),
            },
            Origin::Image(reference) => {
                let image = self.image(running.vertex, &reference).await?;
                let config = self.content.config(image.id)?;
                layers(view(&self.content, &config.rootfs.diff_ids)?)
            }
        }?;
        Ok(Source { view, patterns, ignores, kind })
    }

    async fn copy_layer(&self, prepared: Prepared, line: usize) -> Result<Layer, BuildError> {
        let content = Arc::clone(&self.content);
        let Prepared { transfer, collected, .. } = prepared;
        let imported = blocking(move || {
            Ok(import(&content, move |to| transfer.write(&collected, BufWriter::new(to))))
        });
        let imported = imported.await.map_err(|error| at_line(error, line))?;
        imported.map_err(|failed| failed.at(line))
    }
}

impl Asked {
    fn expand(copy: &Copy, state: &State, escape: char) -> Result<Self, String> {
        let expand = |text: &String| state.expand(text, escape);
        let document = |document: &Heredoc| {
            let content = document.file();
            let content = match document.mark.expand {
                true => state.expand_document(&content, escape)?,
                false => content,
            };
            Ok((document.mark.name.clone(), content))
        };
        Ok(Self {
            keyword: if copy.add { "ADD" } else { "COPY" },
            sources: state.expand_all(&copy.sources, escape)?,
            destination: expand(&copy.destination)?,
            checksum: copy.checksum.as_ref().map(expand).transpose()?,
            exclude: state.expand_all(&copy.exclude, escape)?,
            owner: copy.chown.as_ref().map(expand).transpose()?,
            mode: copy.chmod.as_ref().map(expand).transpose()?,
            files: copy.files.iter().map(document).collect::<Result<_, String>>()?,
        })
    }

    /// The step's line in the image's history.
    fn history(&self, copy: &Copy) -> String {
        let mut words = vec![self.keyword.to_owned()];
        words.extend(copy.from.iter().map(|from| format!("--from={from}")));
        words.extend(self.owner.iter().map(|owner| format!("--chown={owner}")));
        words.extend(self.mode.iter().map(|mode| format!("--chmod={mode}")));
        words.extend(self.checksum.iter().map(|checksum| format!("--checksum={checksum}")));
        words.extend(self.exclude.iter().map(|pattern| format!("--exclude={pattern}")));
        words.extend(self.sources.iter().cloned());
        words.extend(self.files.iter().map(|(name, _)| format!("<<{name}")));
        words.push(self.destination.clone());
        words.join(" ")
    }

    /// Finds the files, on a thread that may wait.
    fn prepare(
        self,
        source: Source,
        lower: View,
        working_directory: String,
        unpack: bool,
    ) -> Result<Prepared, CopyError> {
        let mode = self.mode.map(|text| ModeChange::parse(&text)).transpose();
        let transfer = Transfer {
            keyword: self.keyword,
            source: source.view,
            from_context: source.kind != SourceKind::Layers,
            ignores: source.ignores,
            owner: self.owner.map(|text| resolve_owner(&text, &lower)).transpose()?,
            lower,
            sources: source.patterns,
            files: self.files,
            working_directory,
            destination: self.destination,
            mode: mode.map_err(CopyError::Refused)?,
            unpack,
            now: Timestamp::now().as_second(),
        };
        let collected = transfer.collect()?;
        let digest = transfer.digest(&collected)?;
        Ok(Prepared { transfer, collected, digest })
    }
}
