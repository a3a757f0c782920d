//! What a build tells while it goes: typed, so that each front end words it in its own protocol.

use bulkhead_image::Progress;
use bulkhead_types::{Digest, Stream};
use tokio::sync::mpsc;

/// One operation of a build as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Names what the operation does and all it stands on: the same work has the same digest.
    pub digest: Digest,
    /// The instruction as written.
    pub name: String,
    /// Digests of the operations whose results it needs.
    pub inputs: Vec<Digest>,
    /// Of what only sets something, such as ENV, there is none.
    pub place: Option<Place>,
}

/// Where an operation stands among those of its stage that work on files, FROM being the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stage's name, or `stage-N` where there are several; empty for the only one.
    pub stage: String,
    pub number: usize,
    pub of: usize,
}

/// Events of operations that do not need each other come in any order between each other; work that
/// stands in a Dockerfile twice is told twice, one after the other.
#[derive(Debug, Clone)]
pub enum Event {
    /// All that the target needs, each after its inputs. Comes once.
    Planned(Vec<Vertex>),
    /// The ONBUILD triggers of the base image that FROM, `vertex`, brought. They are done when FROM
    /// is completed, in order, and before the stage's own.
    Triggered {
        vertex: Digest,
        triggers: Vec<Vertex>,
    },
    Started(Digest),
    /// A RUN that is not cached got its container, or a name that stands for it.
    Running {
        vertex: Digest,
        container: Digest,
    },
    CacheHit(Digest),
    /// An image that the operation needs is pulled.
    Progress {
        vertex: Digest,
        progress: Progress,
    },
    /// What the operation's program writes, in order, cut anywhere but within a character.
    Log {
        vertex: Digest,
        stream: Stream,
        text: String,
    },
    /// The operation is done; `image` names what the stage has come to. `None`: of an ARG before
    /// FROM there is none.
    Completed {
        vertex: Digest,
        image: Option<Digest>,
    },
    /// The operation could not be done, and the build ends for it.
    Failed(Digest),
    Warning(Warning),
}

/// What a user should know, and what does not keep the image from being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The parser's own sentence.
    Dockerfile(String),
    /// `--build-arg` names that no ARG instruction declares.
    UnusedArguments(Vec<String>),
}

/// Where events go. A reader that stands still holds the build back, as a pipe would; one that is
/// gone is let go.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// A pair of ends with room for a few events.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(ROOM);
        (Self(sender), receiver)
    }

    /// Returns when there is room for the event, or nobody who would read it.
    pub async fn send(&self, event: Event) {
        let _ = self.0.send(event).await;
    }
}

/// Events that may wait to be read; a log event is at most one read of a socket.
const ROOM: usize = 64;
