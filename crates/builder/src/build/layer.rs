//! Making a layer: file work on threads that may wait, an archive through a pipe into the store.

use std::io::{BufReader, PipeWriter};
use std::sync::Arc;

use bulkhead_archive::{Entry, Kind, Writer};
use bulkhead_image::{Content, ImageError, Layer};
use bulkhead_types::Digest;

use super::Build;
use super::run::SCRIPT;
use crate::BuildError;
use crate::copy::CopyError;
use crate::request::Executor;
use crate::view::View;

impl<E: Executor> Build<'_, E> {
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

pub(super) fn view(content: &Content, diff_ids: &[Digest]) -> Result<View, ImageError> {
    let layers = diff_ids.iter().map(|diff_id| content.layer(*diff_id));
    layers.collect::<Result<_, _>>().map(View::new)
}

/// Why there is no layer.
pub(super) enum Failed {
    Copy(CopyError),
    Image(ImageError),
}

impl Failed {
    pub(super) fn at(self, line: usize) -> BuildError {
        match self {
            Self::Copy(error) => at_line(error, line),
            Self::Image(error) => BuildError::Image(error),
        }
    }
}

pub(super) fn at_line(error: CopyError, line: usize) -> BuildError {
    match error {
        CopyError::Io { what, cause } => BuildError::Io { what, cause },
        CopyError::Refused(message) => BuildError::Step { line, message },
    }
}

/// Stores what `write` sends through a pipe, so that no layer is ever whole in memory.
pub(super) fn import(
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
pub(super) async fn blocking<T: Send + 'static>(
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
