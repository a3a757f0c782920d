//! A build's events as BuildKit's clients show them: vertices, their statuses, logs and warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use bulkhead_build_service::{Event, Warning};
use bulkhead_types::{Digest, Stream};

/// Now, as the protocol has it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or_default(),
    }
}

pub(crate) fn vertex_of(vertex: Vertex) -> StatusResponse {
    StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
}

pub(crate) fn status_of(status: VertexStatus) -> StatusResponse {
    StatusResponse { statuses: vec![status], ..StatusResponse::default() }
}

/// Words one build's events.
#[derive(Debug)]
pub(crate) struct Words {
    /// What the warnings of the Dockerfile are about.
    dockerfile: String,
    vertices: BTreeMap<Digest, Vertex>,
    /// Operations that only set something are not shown.
    hidden: BTreeSet<Digest>,
    failed: Vec<Digest>,
    statuses: BTreeMap<(Digest, String), Timestamp>,
}

impl Words {
    pub(crate) fn new(dockerfile: String) -> Self {
        Self {
            dockerfile,
            vertices: BTreeMap::new(),
            hidden: BTreeSet::new(),
            failed: Vec::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// `None`: nothing that this protocol shows.
    pub(crate) fn of(&mut self, event: Event) -> Option<StatusResponse> {
        match event {
            Event::Planned(vertices) => {
                let shown = vertices.into_iter().filter_map(|vertex| {
                    let name = vertex.place.as_ref().map(|place| {
                        let stage = match place.stage.as_str() {
                            "" => String::new(),
                            stage => format!("{stage} "),
                        };
                        let digits = place.of.to_string().len();
                        format!("[{stage}{:>digits$}/{}] {}", place.number, place.of, vertex.name)
                    });
                    self.know(vertex, name)
                });
                let vertexes = shown.collect();
                Some(StatusResponse { vertexes, ..StatusResponse::default() })
            }
            Event::Triggered { triggers, .. } => {
                let shown = triggers.into_iter().filter_map(|vertex| {
                    let name = format!("[onbuild] {}", vertex.name);
                    self.know(vertex, Some(name))
                });
                let vertexes = shown.collect();
                Some(StatusResponse { vertexes, ..StatusResponse::default() })
            }
            Event::Started(digest) => self.change(digest, |vertex| vertex.started = Some(now())),
            Event::CacheHit(digest) => self.change(digest, |vertex| vertex.cached = true),
            Event::Completed { vertex, .. } => {
                self.change(vertex, |vertex| vertex.completed = Some(now()))
            }
            Event::Failed(digest) => {
                self.failed.push(digest);
                None
            }
            Event::Running { .. } => None,
            Event::Progress { vertex, progress } => {
                let known = self.vertices.get(&vertex)?.digest.clone();
                let name = match progress.id.as_str() {
                    "" => progress.status.clone(),
                    id => format!("{id} {}", progress.status),
                };
                let time = now();
                let started = *self.statuses.entry((vertex, name.clone())).or_insert(time);
                let current = progress.current.unwrap_or_default();
                let total = progress.total.unwrap_or_default();
                Some(status_of(VertexStatus {
                    id: name.clone(),
                    vertex: known,
                    name,
                    current: current.try_into().unwrap_or(i64::MAX),
                    total: total.try_into().unwrap_or(i64::MAX),
                    timestamp: Some(time),
                    started: Some(started),
                    completed: (current == total).then_some(time),
                }))
            }
            Event::Log { vertex, stream, text } => {
                let log = VertexLog {
                    vertex: self.vertices.get(&vertex)?.digest.clone(),
                    timestamp: Some(now()),
                    stream: match stream {
                        Stream::Stdout => 1,
                        Stream::Stderr => 2,
                    },
                    msg: text.into_bytes(),
                };
                Some(StatusResponse { logs: vec![log], ..StatusResponse::default() })
            }
            Event::Warning(warning) => {
                let text = match warning {
                    Warning::Dockerfile(text) => text,
                    Warning::UnusedArguments(names) => {
                        format!("One or more build-args [{}] were not consumed", names.join(" "))
                    }
                };
                Some(self.warning(text))
            }
        }
    }

    pub(crate) fn warning(&self, text: String) -> StatusResponse {
        let warning = VertexWarning {
            vertex: self.dockerfile.clone(),
            level: 1,
            short: text.into_bytes(),
            ..VertexWarning::default()
        };
        StatusResponse { warnings: vec![warning], ..StatusResponse::default() }
    }

    /// What failed, with why.
    pub(crate) fn failure(&mut self, why: &str) -> StatusResponse {
        let failed = std::mem::take(&mut self.failed);
        let vertexes = failed.into_iter().filter_map(|digest| {
            let vertex = self.vertices.get_mut(&digest)?;
            (vertex.completed, vertex.error) = (Some(now()), why.to_owned());
            Some(vertex.clone())
        });
        StatusResponse { vertexes: vertexes.collect(), ..StatusResponse::default() }
    }

    fn know(
        &mut self,
        vertex: bulkhead_build_service::Vertex,
        name: Option<String>,
    ) -> Option<Vertex> {
        let Some(name) = name else {
            self.hidden.insert(vertex.digest);
            return None;
        };
        let inputs = vertex.inputs.iter().filter(|input| !self.hidden.contains(input));
        let shown = Vertex {
            digest: vertex.digest.to_string(),
            inputs: inputs.map(Digest::to_string).collect(),
            name,
            ..Vertex::default()
        };
        self.vertices.insert(vertex.digest, shown.clone());
        Some(shown)
    }

    fn change(
        &mut self,
        digest: Digest,
        change: impl FnOnce(&mut Vertex),
    ) -> Option<StatusResponse> {
        let vertex = self.vertices.get_mut(&digest)?;
        change(vertex);
        Some(vertex_of(vertex.clone()))
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_build_service::Place;

    use super::*;

    #[test]
    fn a_build_is_shown_step_by_step() {
        let digest = |name: &str| Digest::of(name.as_bytes());
        let vertex = |name: &str, place: Option<(&str, usize)>| bulkhead_build_service::Vertex {
            digest: digest(name),
            name: name.to_owned(),
            inputs: Vec::new(),
            place: place.map(|(stage, number)| Place { stage: stage.to_owned(), number, of: 10 }),
        };
        let mut words = Words::new("the Dockerfile".to_owned());
        let planned = words.of(Event::Planned(vec![
            vertex("FROM a", Some(("", 1))),
            vertex("ENV b=c", None),
            vertex("RUN d", Some(("base", 10))),
        ]));
        let names: Vec<String> =
            planned.expect("shown").vertexes.into_iter().map(|vertex| vertex.name).collect();
        assert_eq!(names, ["[ 1/10] FROM a", "[base 10/10] RUN d"]);
        assert!(words.of(Event::Started(digest("ENV b=c"))).is_none());
        let started = words.of(Event::Started(digest("FROM a"))).expect("shown").vertexes;
        assert!(started[0].started.is_some() && started[0].completed.is_none());
        words.of(Event::CacheHit(digest("FROM a")));
        let done = Event::Completed { vertex: digest("FROM a"), image: None };
        let done = words.of(done).expect("shown").vertexes;
        assert!(done[0].cached && done[0].completed.is_some());
        let text = "no newline".to_owned();
        let log = Event::Log { vertex: digest("RUN d"), stream: Stream::Stderr, text };
        let log = &words.of(log).expect("shown").logs[0];
        assert_eq!((log.stream, &log.msg[..]), (2, &b"no newline"[..]));
        assert!(words.of(Event::Failed(digest("RUN d"))).is_none());
        assert_eq!(words.failure("exit code 1").vertexes[0].error, "exit code 1");
        assert!(words.failure("again").vertexes.is_empty());
    }
}
