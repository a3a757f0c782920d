//! Events for those who watch, and of what only clients know.

use bulkhead_types::{Digest, Id, Timestamp};
use tokio::sync::broadcast;

use crate::{Engine, Event};

/// What a client does with a container that changes nothing of its state.
#[derive(Debug, Clone)]
pub enum ContainerAction {
    /// `docker cp` out of it.
    ArchivePath(String),
    Commit {
        comment: String,
        image: Digest,
        /// Empty when the image has no name.
        reference: String,
    },
    Export,
    /// `docker cp` into it.
    ExtractToDir(String),
}

/// What a client does with an image that changes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAction {
    Load,
    Save,
    Tag,
}

impl Engine {
    /// Publishes what the engine itself does not see.
    pub fn container_event(&self, id: Id, action: ContainerAction) {
        // One that has been removed meanwhile needs no event more.
        let Ok(record) = self.containers.record(id) else { return };
        let (name, more) = match action {
            ContainerAction::ArchivePath(path) => ("archive-path", vec![("path", path)]),
            ContainerAction::Commit { comment, image, reference } => {
                let image = ("imageID", image.to_string());
                ("commit", vec![("comment", comment), image, ("imageRef", reference)])
            }
            ContainerAction::Export => ("export", vec![]),
            ContainerAction::ExtractToDir(path) => ("extract-to-dir", vec![("path", path)]),
        };
        self.events.container(&record.container, name, &more);
    }

    pub fn image_event(&self, id: Digest, action: ImageAction, name: &str) {
        let action = match action {
            ImageAction::Load => "load",
            ImageAction::Save => "save",
            ImageAction::Tag => "tag",
        };
        self.events.image(action, id, Some(name));
    }

    /// Everything that happens from now on, after what the ring of the last 256 still has since
    /// `since`.
    pub fn events(&self, since: Option<Timestamp>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        self.events.subscribe(since)
    }
}
