use bulkhead_runtime::{ContainerSpec, FdIndex, ProcessSpec};
use bulkhead_types::Id;
use serde::{Deserialize, Serialize};

/// Clone a container into its namespaces and prepare everything up to the exec.
///
/// The descriptors that `spec` and `attachments` name by index travel with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateContainer {
    pub id: Id,
    pub spec: ContainerSpec,
    pub log: Log,
    /// Keep stdin open: without it the process reads `/dev/null`.
    pub stdin_open: bool,
    /// Close stdin for good when the first attached client goes (Docker's `StdinOnce`).
    pub stdin_once: bool,
    /// Clients that wait since before the start (`docker run` attaches first).
    pub attachments: Vec<Attachment>,
    /// Answer as soon as the container has its process and its namespaces, so that links are
    /// plugged while its mounts are made. It may be started at once then, and what fails in the
    /// meantime is the answer to the start.
    pub answer_early: bool,
}

/// Where the output of a container goes besides attached clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Log {
    None,
    /// Docker's json-file format in a directory that the engine opened; rotated by size.
    JsonFile {
        directory: FdIndex,
        name: String,
        max_size: u64,
        max_files: u32,
    },
}

/// One attached client: a stream socket on which output arrives and stdin is sent.
///
/// Without a terminal, output is in Docker's frames (`[stream, 0, 0, 0, u32 length]`, 1 stdout,
/// 2 stderr); with one it is raw. The warden shuts the socket down when the process has ended and
/// all its output is sent. A reader that is behind holds the program back, as that of a pipe does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Attachment {
    pub socket: FdIndex,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Run one more process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    pub container: Id,
    pub id: Id,
    pub process: ProcessSpec,
    pub cgroup_v1_procs: Vec<FdIndex>,
    pub cgroup_v2: Option<FdIndex>,
    pub stdin_open: bool,
    pub attachments: Vec<Attachment>,
    pub lifetime: Lifetime,
}

/// How long what an exec brings about may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// As long as it likes: what it leaves in the background goes on, and how it ended is kept until
    /// [`crate::Client::forget`].
    Free,
    /// A probe: it ends with the connection that asked for it, all that it has started ends with it,
    /// and nothing of it is kept once its end is told.
    Bound,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 + the signal's number when a signal ended it.
    pub code: u8,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// What the warden tells without being asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A container or an exec (`container` differs from `id`) has ended and its output is written.
    /// Only for what has run: a start that failed is the answer to its request.
    Exited { container: Id, id: Id, exit: Exit },
}

/// What the warden knows of one container; kept until [`crate::Client::forget`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    pub id: Id,
    /// The host's pid; only for showing (`docker inspect`, `docker top`), never for signalling.
    pub pid: u32,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Cloned and waiting for [`crate::Client::start`].
    Created,
    Running,
    Exited(Exit),
}

/// Why a process could not be started: the plan's step and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// Worded so that Docker's clients find their exit status: `executable file not found` is 127,
    /// `permission denied` 126.
    pub message: String,
    pub errno: i32,
}
