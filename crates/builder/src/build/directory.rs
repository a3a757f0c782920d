//! Directories that an instruction wants: WORKDIR's, and those of volumes for RUN.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_image::Layer;
use bulkhead_types::{Digest, Timestamp};

use super::layer::{at_line, blocking, import, view};
use super::{Build, now};
use crate::BuildError;
use crate::cache::{self, CachedStep};
use crate::copy::{CopyError, Transfer, resolve_owner};
use crate::event::Vertex;
use crate::request::Executor;
use crate::state::{State, absolute};

impl<E: Executor> Build<'_, E> {
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
}
