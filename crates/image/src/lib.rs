//! Image content: blobs by digest, unpacked layers, overlay mounts, and a registry client.
//!
//! Content is named by its digest and committed by rename after fsync, so a half-written file is
//! never reachable. Which names point at which images is the engine's business, not this crate's.
#![forbid(unsafe_code)]

mod blob;
mod client;
mod compression;
mod content;
mod directory;
mod error;
mod images;
mod layers;
mod lower;
mod metadata;
mod overlay;
mod scratch;
mod unpack;
mod upper;

pub use blob::BlobWriter;
pub use client::{
    Credentials, Download, DownloadError, Downloader, Mirror, Progress, RegistryClient,
    RegistryOptions,
};
pub use content::{Content, SMALL};
pub use error::ImageError;
pub use images::StoredImage;
pub use layers::Layer;
pub use metadata::is_opaque;
pub use overlay::{can_map_owners, mount_overlay};
