//! Images as one tar archive: what `docker save` writes and `docker load` reads.
//!
//! What is written is an OCI image layout with Docker's `manifest.json` beside it, as Docker 25 and
//! later do. What is read is either of the two, so archives of podman, skopeo and buildx as well,
//! and Docker's older form with `ID/layer.tar`.

pub(crate) mod load;
pub(crate) mod save;

use serde::{Deserialize, Serialize};

/// The annotation that carries an image's name in an index, as containerd writes it.
const NAME: &str = "io.containerd.image.name";
/// The one that the image specification has; often only a tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[cfg(test)]
mod tests;
