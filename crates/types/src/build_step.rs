//! One RUN of a Dockerfile, as the builder asks for it and the engine runs it.

use crate::Digest;

/// A throw-away container whose changes become a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStep {
    /// The program and its arguments; never empty.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    pub working_directory: String,
    /// As in `docker run --user`; empty for the image's root.
    pub user: String,
    pub network: StepNetwork,
    /// Diff ids of the layers below, lowest first.
    pub layers: Vec<Digest>,
    /// What the step before has made, as builds name it: events of the step's container show it.
    pub base: Digest,
}

/// Which of a program's outputs something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepNetwork {
    /// The network of the whole build (`docker build --network`).
    #[default]
    OfBuild,
    None,
    Host,
}
