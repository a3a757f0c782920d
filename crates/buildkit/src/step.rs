//! Work of the builder's own, such as the transfer of a context, as clients see it: a vertex.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexStatus};
use bulkhead_types::{Digest, Id};
use tonic::Status;

use crate::job::Job;
use crate::status::{now, status_of, vertex_of};

/// Work of the builder's own, as a vertex.
pub(crate) struct Step<'a> {
    job: &'a Job,
    vertex: Vertex,
}

impl<'a> Step<'a> {
    pub(crate) async fn begin(job: &'a Job, name: &str) -> Self {
        let vertex = Vertex {
            digest: Digest::of(Id::random().to_string().as_bytes()).to_string(),
            name: name.to_owned(),
            started: Some(now()),
            ..Vertex::default()
        };
        job.shown.push(vertex_of(vertex.clone())).await;
        Self { job, vertex }
    }

    pub(crate) async fn end<T>(mut self, result: Result<T, Status>) -> Result<T, Status> {
        self.vertex.completed = Some(now());
        if let Err(status) = &result {
            self.vertex.error = status.message().to_owned();
        }
        self.job.shown.push(vertex_of(self.vertex)).await;
        result
    }

    pub(crate) fn digest(&self) -> &str {
        &self.vertex.digest
    }

    /// Tells of a part of it that is done.
    pub(crate) async fn done(&self, what: &str) {
        let time = Some(now());
        self.tell(what, 0, time).await;
    }

    /// Tells how much has come.
    pub(crate) async fn transferred(&self, bytes: u64, is_all: bool) {
        let what =
            format!("transferring {}:", self.vertex.name.rsplit(' ').next().unwrap_or_default());
        let completed = is_all.then(now);
        self.tell(&what, bytes, completed).await;
    }

    async fn tell(&self, what: &str, current: u64, completed: Option<Timestamp>) {
        let status = VertexStatus {
            id: what.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: what.to_owned(),
            current: current.try_into().unwrap_or(i64::MAX),
            timestamp: Some(now()),
            started: self.vertex.started,
            completed,
            ..VertexStatus::default()
        };
        self.job.shown.push(status_of(status)).await;
    }
}
