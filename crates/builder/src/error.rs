//! Why a build ends without an image.

use std::io;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Docker's words, such as `dockerfile parse error on line 3: unknown instruction: RUNN`.
    #[error("dockerfile parse error on line {line}: {message}")]
    Dockerfile { line: usize, message: String },
    /// Of `--change`: an instruction that has no meaning there.
    #[error(
        "{0} is not a valid change command: use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, \
         ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR"
    )]
    Change(String),
    #[error("the Dockerfile {0} is not in the build context")]
    NoDockerfile(String),
    #[error("target stage {0:?} could not be found")]
    NoTarget(String),
    #[error("build context {name}={value}: only docker-image://REFERENCE is supported")]
    Context { name: String, value: String },
    /// A step that cannot be done, such as a COPY of a file that is not there.
    #[error("Dockerfile line {line}: {message}")]
    Step { line: usize, message: String },
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Failed { command: String, code: u8 },
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error(transparent)]
    Image(#[from] bulkhead_image::ImageError),
    /// The executor's own error, whole: who made the executor knows its type.
    #[error(transparent)]
    Executor(Box<dyn std::error::Error + Send + Sync>),
}
